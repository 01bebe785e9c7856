"""The choices of an import."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields

from justenough.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The choices of an import; each format refuses those that do not apply to it."""

    model: str | None = None
    """Records: only this model. OpenAI: the name to give instead of the one recorded."""
    then: str | None = None
    """Records: the model whose answers are step 2."""
    tasks: str | None = None
    """OpenAI: a task file or a built-in task with the targets by id."""
    grader: str = "exact"
    """How answers are extracted and graded where the record does not tell."""

    def refuse(self, format: str, *, takes: Collection[str]) -> None:
        """Raise `InputError` for a choice that is not in `takes`: to ignore it would mislead."""
        for field in fields(self):
            if field.name not in (*takes, "grader") and getattr(self, field.name) is not None:
                raise InputError(f"--{field.name} means nothing to the format {format}", hint="leave it out")
