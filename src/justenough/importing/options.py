"""Options of an import."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Final

from justenough.errors import InputError

ALL: Final = "all"
"""Stands for all models of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """Options of an import; a format refuses the options that it does not use."""

    model: str | None = None
    """Import only this model, or `all` of them. If the file has one model or names none, this is its name."""
    then: str | None = None
    """Records: the model whose answers are step 2."""
    tasks: str | None = None
    """Replies: a task file, or a built-in task, that has the right answers by id or by problem."""
    split: str | None = None
    """Replies: the splitter that divides the thought into the steps of a stream."""
    grader: str = "exact"
    """Name of the grader that reads and grades the answers that are not graded yet."""
    note: Callable[[str], None] = lambda _: None
    """Called with a remark on all traces of the file, such as a top k that one reply makes small."""

    @property
    def chosen(self) -> str | None:
        """The one model that is imported; None if no model is named, or all are."""
        return None if self.model == ALL else self.model

    def refuse(self, format: str, *, takes: Collection[str]) -> None:
        """Raise `InputError` if an option is set that is not in `takes`."""
        for field in fields(self):
            if field.name not in (*takes, "grader", "model", "note") and getattr(self, field.name) is not None:
                raise InputError(f"--{field.name} means nothing to the format {format}", hint="leave it out")
