"""The poolings of many steps at once, bit for bit as `signal.pooling` computes each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from justenough.signal.pooling import POOLINGS, WINDOW, Measured

Spans = Sequence[tuple[int, int]]
"""Where the tokens of each step begin and end; no step is empty."""

_ONES: Final = np.ones(WINDOW)


def _means(bits: list[float], spans: Spans) -> list[float]:
    fsum = math.fsum
    return [fsum(bits[begin:end]) / (end - begin) for begin, end in spans]


def _worst_windows(bits: list[float], spans: Spans) -> list[float]:
    """The mean of the window with the largest sum, the first one of equal ones."""
    if len(bits) < WINDOW:
        return _means(bits, spans)
    sums = np.correlate(bits, _ONES, mode="valid").tolist()
    windows = []
    for begin, end in spans:
        if end - begin > WINDOW:
            part = sums[begin : end - WINDOW + 1]
            begin += part.index(max(part))
            end = begin + WINDOW
        windows.append((begin, end))
    return _means(bits, windows)


def _ninetieths(bits: list[float], spans: Spans) -> list[float]:
    measure = POOLINGS["90th-percentile"].measure
    return [measure(Measured(bits[begin:end])) or 0.0 for begin, end in spans]


_POOLED: Final[Mapping[str, Callable[[list[float], Spans], list[float]]]] = {
    "mean": _means,
    "last-quarter": lambda bits, spans: _means(bits, [(end - (end - begin + 3) // 4, end) for begin, end in spans]),
    "worst-window": _worst_windows,
    "90th-percentile": _ninetieths,
    "maximum": lambda bits, spans: [max(bits[begin:end]) for begin, end in spans],
    "sum": lambda bits, spans: [math.fsum(bits[begin:end]) for begin, end in spans],
}


def pooled(bits: list[float], spans: Spans, pooling: str) -> list[float] | None:
    """The value of each step, from the bits of all tokens; None for a pooling that reads something else besides."""
    return _POOLED[pooling](bits, spans) if pooling in _POOLED else None
