"""Sums of parts of an array of numbers, each bit for bit that of `math.fsum`, many at once."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.trace.blocks import Floats

Ints = NDArray[np.int64]

_COARSE: Final = 2.0**20
_FINE: Final = 2.0**45
_LARGEST: Final = 2.0**33
"""Sums of multiples of 1/`_COARSE` up to here are exact in double precision."""
_MOST: Final = 2**28
"""The same for this many multiples of 1/`_FINE` that are at most half of 1/`_COARSE`."""


def edges(begin: Ints, end: Ints) -> Ints:
    """The parts as the indices of a ufunc's `reduceat`, which then gives each part at every second place."""
    return np.stack((begin, end), axis=1).ravel()


class Sums:
    """Sums of parts of `values` (N,).

    Each value is the exact sum of three: two of them are multiples of a power of two, whose sums have no rounding
    error, and the third one is so small that the error of its sum is known not to matter. Where it might, `math.fsum`
    decides.
    """

    def __init__(self, values: Floats) -> None:
        self.values = values

    @cached_property
    def _split(self) -> tuple[Floats, Floats, Floats] | None:
        """The three terms, with a 0 at the end; None if the values are too large, or too many."""
        padded = np.append(self.values, 0.0)
        if len(padded) > _MOST or not float(np.abs(padded).max()) * len(padded) < _LARGEST:
            return None
        coarse = np.rint(padded * _COARSE) / _COARSE
        rest = padded - coarse
        fine = np.rint(rest * _FINE) / _FINE
        return coarse, fine, rest - fine

    def of(self, begin: Ints, end: Ints) -> Floats:
        """The sum of each part `values[begin:end]`."""
        if self._split is None:
            return np.array([self._one(*part) for part in zip(begin.tolist(), end.tolist(), strict=True)])
        if not len(begin):
            return np.zeros(0)
        at, count = edges(begin, end), end - begin
        coarse, fine, least = (np.where(count > 0, np.add.reduceat(term, at)[::2], 0.0) for term in self._split)
        total = coarse + fine
        shift = total - coarse
        lost = (coarse - (total - shift)) + (fine - shift) + least
        doubt = np.abs(lost) / 2**51 + count * (count / 2.0**98)
        sums: Floats = total + (lost - doubt)
        for place in np.flatnonzero(sums != total + (lost + doubt)).tolist():
            sums[place] = self._one(int(begin[place]), int(end[place]))
        return sums

    def _one(self, begin: int, end: int) -> float:
        return math.fsum(self.values[begin:end].tolist())
