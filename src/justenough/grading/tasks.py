"""Tasks: problems built in, or read from JSONL files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Final

from justenough.errors import InputError
from justenough.toy.families import FAMILIES, Question, Split, questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem of a task."""

    id: str
    problem: str
    target: str | None
    """The right answer; None where it is not known."""
    task: str = ""
    family: str | None = None
    group: str | None = None
    """Difficulty level or category."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A task of the embedded model: families of one split, without end or until a family is exhausted."""

    summary: str
    split: Split
    families: tuple[str, ...] = FAMILIES


BUILT_IN: Final[Mapping[str, BuiltIn]] = MappingProxyType(
    {
        "arithmetic": BuiltIn("all families, held-out problems", "test"),
        "arithmetic-calibration": BuiltIn("all families, problems set apart for calibration", "calibration"),
        **{family: BuiltIn(f"the family {family}, held-out problems", "test", (family,)) for family in FAMILIES},
    }
)
"""Tasks by name; their default size is 600 problems."""

DEFAULT_SIZE: Final = 600


def problem_of(question: Question, *, task: str) -> Problem:
    """A question of the embedded model's families as a problem; the group is family and level."""
    return Problem(
        id=question.text,
        problem=question.text,
        target=str(question.answer),
        task=task,
        family=question.family,
        group=f"{question.family}-{question.level}",
    )


def read_tasks(spec: str, *, limit: int | None = None, seed: int = 0) -> list[Problem]:
    """The problems of a built-in task or of a JSONL file of `{id, problem, target, family?, group?}`.

    Raises `InputError` with file and line for a line that is none.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}", hint="at least 1")
    if spec in BUILT_IN:
        task = BUILT_IN[spec]
        drawn = islice(questions(task.split, seed=seed, families=task.families), limit or DEFAULT_SIZE)
        return [problem_of(question, task=spec) for question in drawn]
    path = Path(spec)
    if not path.is_file():
        raise InputError(f"no task {spec!r}", hint=f"a JSONL file, or one of {', '.join(BUILT_IN)}")
    problems = list(islice(_lines(path), limit))
    if not problems:
        raise InputError(f"{path} holds no problem", hint="one JSON object a line: {id, problem, target}")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise InputError(f"{path}: the id {problem.id!r} comes twice", hint="ids name problems: make them differ")
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
                raise InputError(f"{path}:{number}: no JSON: {error}", hint=hint) from error
            if not isinstance(row, dict):
                raise InputError(f"{path}:{number}: no object", hint=hint)
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
