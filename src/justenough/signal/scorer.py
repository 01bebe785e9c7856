"""What a gate may compare with its threshold in place of a step's signal."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class RunScore(Protocol):
    """The score of one run, step by step."""

    def after(self, bits: float | None, tokens: int) -> float | None:
        """The score after the next step, from its signal and tokens; None where it has none."""


class Scorer(Protocol):
    """Computes a score that stands in for the step's signal, from all that the run has shown so far."""

    def begin(self) -> RunScore:
        """The score of a new run."""

    def scores(self, bits: Floats, tokens: Floats, starts: NDArray[np.int64]) -> Floats:
        """The scores of recorded runs, (m,), from each step's signal and tokens; run i begins at `starts[i]`."""
