"""Lazy labels: a certificate for all checkpoints that asks only for the labels that can change it.

Harm needs a stopped answer that is wrong and a last answer that is right, so both differ. A person judges an answer
only where that holds, in the order in which the grid comes to it, and only until the next test is settled. The
threshold and its guarantee are those of full labelling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats.estimates import Bools, Floats
from justenough.stats.exact import most_harms

Ints = NDArray[np.int64]

NO_STOP: Final = -1
"""In a table of answers: the setting does not stop this problem."""
UNANSWERED: Final = -2
"""Likewise: there is no answer, which counts as wrong and needs no label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyCertificate:
    """A certified threshold, and the labels that it took."""

    threshold: float | None
    """None where not even the strictest setting passes."""
    labels: int
    """Answers that were judged."""
    problems: int
    """Problems with at least one judged answer."""
    full_labels: int
    """Answers that full labelling would judge: each different answer of the table, and each last answer."""
    full_problems: int


def lazy_certificate(
    grid: Floats,
    answers: Ints,
    last: Ints,
    judge: Callable[[int, int], bool],
    *,
    max_harm: float,
    error: float,
) -> LazyCertificate:
    """Certify harm ≤ `max_harm` along the ascending grid (g,) and ask `judge` for as few labels as it takes.

    `answers` (g, n) holds the number of the answer at which each setting stops each problem, or `NO_STOP`; `last` (n,)
    holds the number of its last answer. Either may be `UNANSWERED`. Equal answers of a problem have equal numbers.
    `judge(problem, answer)` says whether that answer is right; each answer is judged once at most, the last one first.
    """
    if answers.shape != (len(grid), len(last)):
        raise InputError(f"answers of shape {answers.shape}", hint=f"one row a setting: {(len(grid), len(last))}")
    allowed = most_harms(len(last), limit=max_harm, error=error)
    judged: dict[tuple[int, int], bool] = {}

    def is_right(problem: int, answer: int) -> bool:
        if answer == UNANSWERED:
            return False
        if (problem, answer) not in judged:
            judged[problem, answer] = judge(problem, answer)
        return judged[problem, answer]

    threshold: float | None = None
    for setting, stopped in zip(grid.tolist(), answers, strict=True):
        if not _passes(stopped, last, is_right, judged=judged, allowed=allowed):
            break
        threshold = setting
    return LazyCertificate(
        threshold=threshold,
        labels=len(judged),
        problems=len({problem for problem, _ in judged}),
        full_labels=_different_answers(answers, last),
        full_problems=len(last),
    )


def _passes(
    stopped: Ints,
    last: Ints,
    is_right: Callable[[int, int], bool],
    *,
    judged: dict[tuple[int, int], bool],
    allowed: int,
) -> bool:
    """Whether at most `allowed` of the problems are harmed; judges until that is settled."""

    def known(problem: int, answer: int) -> bool | None:
        return False if answer == UNANSWERED else judged.get((problem, answer))

    harms = 0
    unknown: list[int] = []
    for problem in np.flatnonzero((stopped != NO_STOP) & (stopped != last)).tolist():
        of_stop, of_last = known(problem, int(stopped[problem])), known(problem, int(last[problem]))
        if of_stop is False and of_last is True:
            harms += 1
        elif of_stop is not True and of_last is not False:
            unknown.append(problem)
    while harms <= allowed < harms + len(unknown):
        problem = unknown.pop(0)
        harms += is_right(problem, int(last[problem])) and not is_right(problem, int(stopped[problem]))
    return harms <= allowed


def _different_answers(answers: Ints, last: Ints) -> int:
    both = np.vstack((answers, last[None, :]))
    rows = np.sort(both, axis=0)
    new = np.vstack((np.ones((1, len(last)), dtype=bool), rows[1:] != rows[:-1]))
    different: Bools = new & (rows != NO_STOP) & (rows != UNANSWERED)
    return int(different.sum())
