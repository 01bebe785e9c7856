"""Lazy labels: a certificate for all checkpoints from only those labels that can change it.

Stopping harms only if its answer is wrong and the last answer is right, so both differ. A person judges only such
answers, in the order of the grid, and only until the next test is decided. The threshold and its guarantee are those of
full labelling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.stats.exact import most_harms

Ints = NDArray[np.int64]

NO_STOP: Final = -1
"""In a table of answers: the setting does not stop this problem."""
UNANSWERED: Final = -2
"""Likewise: there is no answer, which counts as wrong and needs no label."""


class LazyCertificate(NamedTuple):
    """A certified threshold, and the labels that it took."""

    threshold: float | None
    """None where not even the strictest setting passes."""
    labels: int
    """Answers that were judged."""


def lazy_certificate(
    settings: Iterable[tuple[float, Ints]],
    last: Ints,
    judge: Callable[[int, int], bool],
    *,
    max_harm: float,
    error: float,
) -> LazyCertificate:
    """Certify harm ≤ `max_harm` along ascending settings and ask `judge` for as few labels as it takes.

    Each setting is a threshold with the number of the answer at which it stops each problem (n,), or `NO_STOP`; `last`
    (n,) holds the number of its last answer. Either may be `UNANSWERED`. Equal answers of a problem have equal numbers.
    `judge(problem, answer)` says whether that answer is right; each answer is judged once at most, the last one first.
    """
    allowed = most_harms(len(last), limit=max_harm, error=error)
    judged: dict[tuple[int, int], bool] = {}

    def is_right(problem: int, answer: int) -> bool:
        if answer == UNANSWERED:
            return False
        if (problem, answer) not in judged:
            judged[problem, answer] = judge(problem, answer)
        return judged[problem, answer]

    threshold: float | None = None
    passed: Ints | None = None
    for setting, stopped in settings:
        # Most settings of a fine grid stop the same problems at the same place as the one before.
        if stopped is not passed and not _passes(stopped, last, is_right, judged=judged, allowed=allowed):
            break
        threshold, passed = setting, stopped
    return LazyCertificate(threshold, len(judged))


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
