"""Lazy labels: a certificate for all checkpoints from only those labels that can change it.

Stopping harms only if its answer is wrong and the last answer is right, so both differ. A person judges only such
answers, in the order of the grid, and only until the next test is decided. The threshold and its guarantee are those of
full labelling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.stats.exact import most_harms

Ints = NDArray[np.int64]

NO_STOP: Final = -1
"""In a table of answers: the setting does not stop this problem."""
WRONG: Final = -2
"""Likewise: an answer that is known to be wrong, or none."""
RIGHT: Final = -3
"""Likewise: an answer that is known to be right."""


def lazy_certificate(
    settings: Iterable[tuple[float, Ints]],
    last: Ints,
    judge: Callable[[int, int], bool],
    *,
    max_harm: float,
    error: float,
    judged: dict[tuple[int, int], bool],
) -> float | None:
    """The last of the ascending settings that is certified for harm ≤ `max_harm`; None if the first one fails.

    Each setting is a threshold with the number of the answer at which it stops each problem (n,), or `NO_STOP`; `last`
    (n,) holds the number of its last answer. Either may be `WRONG` or `RIGHT`. Equal answers of a problem that are
    neither have equal numbers. `judge(problem, answer)` says whether that answer is right; its verdicts are added to
    `judged`. Each answer is judged at most once, the last one first.
    """
    allowed = most_harms(len(last), limit=max_harm, error=error)

    def known(problem: int, answers: Ints) -> bool | None:
        answer = int(answers[problem])
        return answer == RIGHT if answer in (WRONG, RIGHT) else judged.get((problem, answer))

    def is_right(problem: int, answers: Ints) -> bool:
        right, answer = known(problem, answers), int(answers[problem])
        if right is None:
            right = judged[problem, answer] = judge(problem, answer)
        return right

    def passes(stopped: Ints) -> bool:
        harms = 0
        unknown: list[int] = []
        for problem in np.flatnonzero((stopped != NO_STOP) & (stopped != last)).tolist():
            of_stop, of_last = known(problem, stopped), known(problem, last)
            if of_stop is False and of_last is True:
                harms += 1
            elif of_stop is not True and of_last is not False:
                unknown.append(problem)
        while harms <= allowed < harms + len(unknown):
            problem = unknown.pop(0)
            harms += is_right(problem, last) and not is_right(problem, stopped)
        return harms <= allowed

    threshold: float | None = None
    passed: Ints | None = None
    for setting, stopped in settings:
        # Most settings of a fine grid stop the same problems at the same place as the one before.
        if stopped is not passed and not passes(stopped):
            break
        threshold, passed = setting, stopped
    return threshold
