"""Fixed-sequence testing over all checkpoints (Learn-then-Test, arXiv 2110.01052).

The grid of settings is fixed before the calibration data is seen. The settings are tested from strict to lax, each at
the whole error, until the first failure. The chance that any setting before it breaks its limit is at most that error,
however harm depends on the setting. Stopping at any checkpoint needs this: a laxer threshold stops earlier, and an
earlier answer may be right where a later one is wrong, so harm may fall as the threshold rises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats.drawing import generator
from justenough.stats.estimates import Bools, Floats
from justenough.stats.exact import most_harms

Ints = NDArray[np.int64]

BITS: Final[Floats] = np.concatenate(([0.0], 2.0 ** (np.arange(-160, 81) / 8)))
"""A grid for scores in bits: 0, and eight thresholds to each doubling from a millionth to 1,024."""


def quantile_grid(scores: Floats, points: int) -> Floats:
    """At most `points` thresholds, ascending: quantiles of the finite scores of a fitting part.

    The calibration part must hold other problems. Raises `InputError` where no score is finite.
    """
    finite = scores[np.isfinite(scores)]
    if points < 1 or not len(finite):
        raise InputError(f"{points} points from {len(finite)} finite scores", hint="at least one of each")
    quantiles: Floats = np.unique(np.quantile(finite, np.arange(1, points + 1) / points, method="inverted_cdf"))
    return quantiles


def spend(error: float, refits: int) -> tuple[float, ...]:
    """The error of each planned refit. All refits share one promise, so the sum is at most `error`."""
    if not 0 < error < 1 or refits < 1:
        raise InputError(f"error {error} over {refits} refits", hint="an error between 0 and 1, and at least one refit")
    level = error / refits
    while math.fsum([level] * refits) > error:
        level = math.nextafter(level, 0.0)
    return (level,) * refits


def one_run_each(problems: Sequence[str], *, seed: int) -> Ints:
    """The row of one run of each problem, ascending; `seed` and the order of a problem's runs decide which.

    Runs of one problem are not independent: a test that counts all of them promises too much.
    """
    _, member, runs = np.unique(np.asarray(problems), return_inverse=True, return_counts=True)
    rows = np.argsort(member, kind="stable")
    ends = np.cumsum(runs)
    drawn = generator(seed).integers(runs)
    return np.sort(rows[ends - runs + drawn])


def sums_of_stops(grid: Floats, scores: Floats, values: Floats, starts: Ints) -> Floats:
    """For each threshold of the ascending grid (g,), the sum over problems of `values` where the problem stops.

    A problem's checkpoints are consecutive: `scores` are (c,), `values` are (c,) or (k, c) for k sums at once, and
    `starts` (n,) holds each problem's first checkpoint. A problem stops at its first checkpoint whose score is at most
    the threshold; NaN never stops. For harm, `values` is 1 where the answer there is wrong and the last one is right.
    For a rule with patience, a score is the greatest of the last few scores.
    """
    record, lowest, problem = _records(scores, starts)
    rows = np.atleast_2d(values)[:, record]
    # Above its own score a record takes the place of the problem's next lower record.
    next_rows = np.where(np.append(problem, -1)[1:] == problem, np.roll(rows, -1, axis=1), 0.0)
    place = np.searchsorted(grid, lowest, side="left")
    sums = [np.bincount(place, weights=change, minlength=len(grid) + 1)[: len(grid)] for change in rows - next_rows]
    running: Floats = np.cumsum(sums, axis=1)
    return running.reshape(*values.shape[:-1], len(grid))


def answers_of_stops(grid: Floats, scores: Floats, answers: Ints, starts: Ints) -> Iterator[tuple[float, Ints]]:
    """For each threshold of the ascending grid, the answer at which each problem stops, (n,); -1 where it does not.

    `answers` (c,) holds the answer at each checkpoint. Thresholds with the same stops give the same array.
    """
    record, lowest, problem = _records(scores, starts)
    place = np.searchsorted(grid, lowest, side="left")
    # The highest score at or below the threshold belongs to the earliest such checkpoint.
    order = np.lexsort((lowest, place))
    ends = np.searchsorted(place[order], np.arange(len(grid)), side="right").tolist()
    stopped = np.full(len(starts), -1, dtype=np.int64)
    begin = 0
    for threshold, end in zip(grid.tolist(), ends, strict=True):
        if end > begin:
            stopped = stopped.copy()
            for one in order[begin:end].tolist():
                stopped[problem[one]] = answers[record[one]]
            begin = end
        yield threshold, stopped


def _records(scores: Floats, starts: Ints) -> tuple[Ints, Floats, Ints]:
    """The checkpoints below all earlier ones of their problem, with their scores and problems.

    Only they can be a first passage: a run never reaches the others.
    """
    problem = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(scores))))
    measured = np.flatnonzero(~np.isnan(scores))
    # One running minimum serves for all problems: each begins below everything before it.
    _, rank = np.unique(scores[measured], return_inverse=True)
    place = rank - len(measured) * problem[measured]
    record = measured[place < np.minimum.accumulate(np.append(1 + len(measured), place[:-1]))]
    return record, scores[record], problem[record]


def last_passed(grid: Floats, passing: Bools) -> float | None:
    """The last setting before the first failure; None if the first setting fails."""
    count = int(np.argmin(np.append(passing, False)))
    return float(grid[count - 1]) if count else None


def harm_controlled(grid: Floats, harms: Floats | Ints, n: int, *, max_harm: float, error: float) -> float | None:
    """The last threshold of the grid certified for harm ≤ `max_harm` by the exact binomial test; None where none is.

    `harms` (g,) counts the problems of n that each threshold stops wrong where the last answer is right. `n` counts
    problems: where there are repeats, draw one run of each first.
    """
    return last_passed(grid, harms <= most_harms(n, limit=max_harm, error=error))
