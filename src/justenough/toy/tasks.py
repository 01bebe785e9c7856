"""The built-in tasks: problems of the embedded model's families, by split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from justenough.grading.tasks import Problem
from justenough.toy.families import FAMILIES, Question, Split, questions


@dataclass(frozen=True, slots=True)
class ArithmeticTask:
    """Families of one split, endless or until a family has no new problem."""

    name: str
    summary: str
    split: Split
    families: tuple[str, ...] = FAMILIES

    def problems(self, *, seed: int) -> Iterator[Problem]:
        """Distinct problems, the same ones for the same seed."""
        for question in questions(self.split, seed=seed, families=self.families):
            yield problem_of(question, task=self.name)


def problem_of(question: Question, *, task: str) -> Problem:
    """A question as a problem of a task; the group is family and level."""
    return Problem(
        id=question.text,
        problem=question.text,
        target=str(question.answer),
        task=task,
        family=question.family,
        group=f"{question.family}-{question.level}",
    )


ARITHMETIC: Final = ArithmeticTask("arithmetic", "all families, held-out problems", "test")
ARITHMETIC_CALIBRATION: Final = ArithmeticTask(
    "arithmetic-calibration", "all families, problems reserved for calibration", "calibration"
)
PRODUCT, SUM, REMAINDER = (
    ArithmeticTask(name, f"the family {name}, held-out problems", "test", (name,)) for name in FAMILIES
)
