"""Tasks: problems built in, or read from JSONL files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import Annotated, Final, Protocol

import msgspec

from justenough.errors import InputError
from justenough.files import read_as

GROUP: Final = "justenough.tasks"
DEFAULT_SIZE: Final = 600
"""Problems of a built-in task, unless a limit is given."""
_HINT: Final = "one JSON object a line: {id, problem, target, family?, group?}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem of a task."""

    id: str
    problem: str
    target: str | None
    """The right answer; None if it is not known."""
    task: str = ""
    family: str | None = None
    group: str | None = None
    """Difficulty level or category."""


class Task(Protocol):
    """A built-in task: an entry point of the group `justenough.tasks`, under the task's name."""

    @property
    def summary(self) -> str:
        """What the task contains, in a few words, for the help."""

    def problems(self, *, seed: int) -> Iterator[Problem]:
        """The problems, possibly without end; the same ones for the same seed."""


def built_in_tasks() -> dict[str, Task]:
    """The tasks of all installed packages by name, sorted."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.name: point.load() for point in points}


def read_tasks(spec: str, *, limit: int | None = None, seed: int = 0) -> list[Problem]:
    """The problems of a built-in task or of a JSONL file of `{id, problem, target, family?, group?}`.

    Raises `InputError` with file and line for a bad line.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}", hint="at least 1")
    tasks = built_in_tasks()
    if spec in tasks:
        return list(islice(tasks[spec].problems(seed=seed), limit or DEFAULT_SIZE))
    path = Path(spec)
    if not path.is_file():
        raise InputError(f"no task {spec!r}", hint=f"a JSONL file, or one of {', '.join(tasks)}")
    problems = list(islice(_lines(path), limit))
    if not problems:
        raise InputError(f"{path} has no problem", hint=_HINT)
    name, times = Counter(problem.id for problem in problems).most_common(1)[0]
    if times > 1:
        raise InputError(f"{path}: the id {name!r} occurs {times} times", hint="give each problem its own id")
    return problems


_Named = Annotated[str, msgspec.Meta(min_length=1)] | int
_Text = str | int | float | bool | None
_OTHERS = [(name, _Text, None) for name in ("target", "family", "group", "task")]
_Row = msgspec.defstruct("_Row", [("id", _Named), ("problem", _Named), *_OTHERS])
"""A line of a task file; numbers are read as text."""


def _lines(path: Path) -> Iterator[Problem]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            where = f"{path}:{number}"
            try:
                value = json.loads(raw)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where}: not JSON: {error}", hint=_HINT) from error
            row = read_as(value, _Row, where=where, hint=_HINT)
            texts = {key: None if text is None else str(text) for key, text in msgspec.structs.asdict(row).items()}
            yield Problem(**texts | {"task": texts["task"] or path.stem})  # type: ignore[arg-type]
