"""A figure with its interval, and what the other modules share."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RESAMPLES: Final = 2000
Z: Final = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""


class Estimate(NamedTuple):
    """A figure with its 95 % interval and the number of problems behind it; limits are None where there is none."""

    value: float
    """The figure."""
    low: float | None
    """Lower limit of the 95 % interval."""
    high: float | None
    """Upper limit of the 95 % interval."""
    n: int
    """Number of problems."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Lower and upper limit."""
        return None if self.low is None or self.high is None else (self.low, self.high)
