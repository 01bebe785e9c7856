"""Tasks: problems built in, or read from JSONL files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from justenough.errors import InputError

GROUP: Final = "justenough.tasks"
DEFAULT_SIZE: Final = 600
"""Problems of a built-in task, unless a limit is given."""


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
        raise InputError(f"{path} holds no problem", hint="one JSON object a line: {id, problem, target}")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise InputError(f"{path}: the id {problem.id!r} occurs twice", hint="give each problem its own id")
        seen.add(problem.id)
    return problems


def _lines(path: Path) -> Iterator[Problem]:
    hint = "one JSON object a line: {id, problem, target, family?, group?}"
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                row = json.loads(raw)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}:{number}: not JSON: {error}", hint=hint) from error
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: not an object", hint=hint)
            for key in ("id", "problem"):
                if not isinstance(row.get(key), str | int) or isinstance(row[key], bool) or row[key] == "":
                    raise InputError(f"{path}:{number}: {key} is {row.get(key)!r}", hint=hint)
            for key in ("target", "family", "group", "task"):
                if not isinstance(row.get(key), str | int | float | None):
                    raise InputError(f"{path}:{number}: {key} is {row[key]!r}, expected text", hint=hint)
            yield Problem(
                id=str(row["id"]),
                problem=str(row["problem"]),
                target=_text(row.get("target")),
                task=_text(row.get("task")) or path.stem,
                family=_text(row.get("family")),
                group=_text(row.get("group")),
            )


def _text(value: str | float | None) -> str | None:
    return None if value is None else str(value)
