"""Tasks: problems built in, or read from JSON Lines, CSV or Parquet files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from justenough.errors import InputError
from justenough.files import lines_of

GROUP: Final = "justenough.tasks"
DEFAULT_SIZE: Final = 600
"""Problems of a built-in task, unless a limit is given."""
_HINT: Final = "one row for each problem, with problem and target, or question and answer; id?, family?, group?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem of a task."""

    id: str
    problem: str
    target: str | None
    """The right answer; None if it is not known."""
    other_targets: tuple[str, ...] = ()
    """Further right answers."""
    task: str = ""
    family: str | None = None
    group: str | None = None
    """Difficulty level or category."""

    @property
    def targets(self) -> tuple[str, ...]:
        """All right answers; empty if none is known."""
        return () if self.target is None else (self.target, *self.other_targets)


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
    """The problems of a built-in task or of a file: JSON Lines, CSV or Parquet, with the fields of `Problem`.

    `question` and `answer` may replace `problem` and `target`; without an id, the number of the row is the id. A list
    of targets gives several right answers. Raises `InputError` with file and row for a bad row.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}", hint="at least 1")
    tasks = built_in_tasks()
    if spec in tasks:
        return list(islice(tasks[spec].problems(seed=seed), limit or DEFAULT_SIZE))
    path = Path(spec)
    if not path.is_file():
        raise InputError(f"no task {spec!r}", hint=f"a task file, or one of {', '.join(tasks)}")
    problems = [_problem(path, number, row) for number, row in islice(_rows(path), limit)]
    if not problems:
        raise InputError(f"{path} holds no problem", hint=_HINT)
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise InputError(f"{path}: the id {problem.id!r} occurs twice", hint="give each problem its own id")
        seen.add(problem.id)
    return problems


def _rows(path: Path) -> Iterator[tuple[int, object]]:
    """The rows of a task file with their numbers, from 1."""
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as text:
                for number, row in enumerate(csv.DictReader(text, restval=""), 1):
                    # An empty cell is a missing value; cells beyond the header have the key None.
                    yield number, {key: value for key, value in row.items() if key is not None and value}
        elif path.suffix == ".parquet":
            yield from _parquet(path)
        else:
            with path.open("rb") as file:
                yield from (
                    (number, _json(path, number, raw))
                    for number, raw in enumerate(lines_of(file, path), 1)
                    if raw.strip()
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}", hint=_HINT) from error


def _parquet(path: Path) -> Iterator[tuple[int, object]]:
    import pyarrow.parquet

    try:
        yield from enumerate(pyarrow.parquet.read_table(path).to_pylist(), 1)
    except pyarrow.ArrowException as error:
        raise InputError(f"{path} is not a Parquet file: {error}", hint=_HINT) from error


def _json(path: Path, number: int, raw: bytes) -> object:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{number}: not JSON: {error}", hint=_HINT) from error


def _problem(path: Path, number: int, row: object) -> Problem:
    if not isinstance(row, dict):
        raise InputError(f"{path}:{number}: not an object", hint=_HINT)
    row = {"id": number, "problem": row.get("question"), "target": row.get("answer")} | row
    for key in ("id", "problem"):
        if not isinstance(row.get(key), str | int) or isinstance(row[key], bool) or row[key] == "":
            raise InputError(f"{path}:{number}: {key} is {row.get(key)!r}", hint=_HINT)
    targets = row.get("target")
    targets = targets if isinstance(targets, list) and targets else [targets]
    texts = [(key, row.get(key)) for key in ("family", "group", "task")]
    for key, value in [*texts, *(("target", target) for target in targets)]:
        if not isinstance(value, str | int | float | None):
            raise InputError(f"{path}:{number}: {key} is {value!r}, expected text", hint=_HINT)
    first, *others = (_text(target) for target in targets)
    return Problem(
        id=str(row["id"]),
        problem=str(row["problem"]),
        target=first,
        other_targets=tuple(other for other in others if other is not None),
        task=_text(row.get("task")) or path.stem,
        family=_text(row.get("family")),
        group=_text(row.get("group")),
    )


def _text(value: str | float | None) -> str | None:
    return None if value is None else str(value)
