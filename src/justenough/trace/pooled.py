"""The poolings of many steps at once, bit for bit as `signal.pooling` computes each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from justenough.signal.pooling import WINDOW
from justenough.trace.blocks import Floats
from justenough.trace.sums import Ints, Sums, edges

_ONES: Final = np.ones(WINDOW)


def _means(bits: Sums, begin: Ints, end: Ints) -> Floats:
    return bits.of(begin, end) / (end - begin)


def _worst_windows(bits: Sums, begin: Ints, end: Ints) -> Floats:
    """The mean of the window with the largest sum, the first one of equal ones."""
    long = np.flatnonzero(end - begin > WINDOW)
    if len(long):
        sums = np.correlate(bits.values, _ONES, mode="valid")
        first, count = begin[long], (end - begin)[long] - WINDOW + 1
        largest = np.maximum.reduceat(np.append(sums, 0.0), edges(first, first + count))[::2]
        part = np.repeat(np.arange(len(long)), count)
        windows = np.arange(len(part)) + (first - np.cumsum(count) + count)[part]
        equal = np.flatnonzero(sums[windows] == largest[part])[::-1]
        begin, end = begin.copy(), end.copy()
        # The first of equal windows is assigned last.
        begin[long[part[equal]]] = windows[equal]
        end[long] = begin[long] + WINDOW
    return _means(bits, begin, end)


def _ninetieths(bits: Sums, begin: Ints, end: Ints) -> Floats:
    """The steps of equal length are sorted together."""
    values, lengths = np.empty(len(begin)), end - begin
    for length in np.unique(lengths).tolist():
        places = np.flatnonzero(lengths == length)
        rows = np.sort(bits.values[begin[places, None] + np.arange(length)], axis=1)
        below, weight = divmod(0.9 * (length - 1), 1)
        low, high = rows[:, int(below)], rows[:, min(int(below) + 1, length - 1)]
        values[places] = high - (high - low) * (1 - weight) if weight >= 0.5 else low + (high - low) * weight
    return values


_POOLED: Final[Mapping[str, Callable[[Sums, Ints, Ints], Floats]]] = {
    "mean": _means,
    "last-quarter": lambda bits, begin, end: _means(bits, end - (end - begin + 3) // 4, end),
    "worst-window": _worst_windows,
    "90th-percentile": _ninetieths,
    "maximum": lambda bits, begin, end: np.maximum.reduceat(np.append(bits.values, 0.0), edges(begin, end))[::2],
    "sum": Sums.of,
}


def pooled(bits: Sums, begin: Ints, end: Ints, pooling: str) -> Floats | None:
    """The value of each step, from the bits of all tokens; None for a pooling that reads something else besides.

    No step is empty.
    """
    return _POOLED[pooling](bits, begin, end) if pooling in _POOLED else None
