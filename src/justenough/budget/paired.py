"""Paired intervals of changes in accuracy, by resampling problems and random draws together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.budget.curves import Floats
from justenough.stats import RESAMPLES, Estimate

_CHUNK: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Resamples:
    """How often each of n problems occurs in each resample: the same resamples for all comparisons."""

    counts: NDArray[np.float32]
    """(resamples, n); small whole numbers, exact in half the memory."""
    seed: int

    @classmethod
    def of(cls, n: int, *, seed: int, resamples: int = RESAMPLES) -> Resamples:
        """Draw the resamples by `seed`."""
        rng = np.random.default_rng(seed)
        counts = np.empty((resamples, n), dtype=np.float32)
        step = max(1, _CHUNK // n)
        for start in range(0, resamples, step):
            size = min(step, resamples - start)
            drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
            counts[start : start + size] = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        return cls(counts, seed)

    def change(self, scores: Floats, even: Floats) -> Estimate:
        """Difference of the means of two (draws, n) arrays, with a 95 % interval over problems, paired, and draws."""
        n = scores.shape[1]
        value = float(scores.mean() - even.mean())
        # The same answers in all draws, up to rounding: the change is exactly 0.
        if len({len(scores), len(even), 1}) < 3 and np.allclose(scores, even, rtol=0, atol=1e-9):
            return Estimate(0.0, 0.0, 0.0, n)
        rng = np.random.default_rng((self.seed, 5))
        mine, theirs = (self._means(array, rng) for array in (scores, even))
        low, high = np.quantile(mine - theirs, (0.025, 0.975))
        return Estimate(value, float(low), float(high), n)

    def _means(self, scores: Floats, rng: np.random.Generator) -> Floats:
        """The mean of each resample of problems, over resampled draws."""
        draws, n = scores.shape
        # Deviations from the mean: the rounding of half precision is then negligible.
        middle = float(scores.mean())
        means = (scores - middle).astype(np.float32) @ self.counts.T / n
        weights = rng.multinomial(draws, np.full(draws, 1 / draws), size=len(self.counts)) / draws
        return np.asarray(middle + (means * weights.T).sum(axis=0), dtype=np.float64)
