"""Fitted curves over entropy: P(right | H) and the length of a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.errors import BudgetError, GatingRefused, NotEnoughExamples
from justenough.stats.logistic import logistic

Floats = NDArray[np.float64]

SLOPE_PRIOR: Final = 2.5
"""Standard deviation of the Gaussian prior on the slope, in standard deviations of H (Gelman et al. 2008)."""
INTERCEPT_PRIOR: Final = 10.0


@dataclass(frozen=True, slots=True)
class RightGivenEntropy:
    """P(right | H) = 1 / (1 + exp(-(intercept + slope · H))), never rising in H."""

    intercept: float
    """In log-odds."""
    slope: float
    """Per bit; at most 0."""
    n: int
    """Number of examples."""
    n_right: int
    """Number of right answers."""
    unmended: float = 1.0
    """Share of the wrong answers that stay wrong, if later steps are assumed and not fitted."""

    def __post_init__(self) -> None:
        if not 0 <= self.unmended <= 1:
            raise BudgetError(f"a share of {self.unmended!r} stays wrong", hint="a fraction from 0 to 1")
        if not (math.isfinite(self.intercept) and math.isfinite(self.slope)) or self.slope > 0:
            raise GatingRefused(
                f"P(right | H) with slope {self.slope!r} and intercept {self.intercept!r} does not fall with entropy",
                hint="the signal does not tell right from wrong: see `justenough diagnose`",
            )

    def __call__(self, entropy: ArrayLike) -> Floats:
        """The probabilities at entropies of any shape, in bits."""
        from scipy.special import expit

        wrong = expit(-(self.intercept + self.slope * np.asarray(entropy, dtype=np.float64)))
        return np.asarray(1 - self.unmended * wrong, dtype=np.float64)

    def at(self, bits: float) -> float:
        """The probability at one entropy."""
        z = min(self.intercept + self.slope * bits, 700.0)
        return 1 - self.unmended / (1 + math.exp(z))

    @classmethod
    def fit(cls, entropy: ArrayLike, correct: ArrayLike) -> RightGivenEntropy:
        """Logistic regression with a weak Gaussian prior, on entropies (n,) in bits and gradings (n,).

        Raises `NotEnoughExamples` without examples, `BudgetError` for values that are not entropies, and
        `GatingRefused` if the fit rises with entropy.
        """
        bits = checked_entropies(entropy)
        labels = np.asarray(correct, dtype=np.bool_)
        if labels.shape != bits.shape:
            raise BudgetError(f"{bits.shape} entropies, {labels.shape} gradings", hint="one grading for each entropy")
        if not len(bits):
            raise NotEnoughExamples("there is no example to fit P(right | H) on", needed=2, hint="collect some first")
        n, right, spread = len(bits), int(labels.sum()), float(bits.std())
        # A spread that is only rounding error would give a slope of 1e15.
        if spread <= 1e-12 * max(1.0, float(bits.max())):
            return cls.flat(n=n, n_right=right)
        z = (bits - bits.mean()) / spread
        penalty = (INTERCEPT_PRIOR**-2, SLOPE_PRIOR**-2)
        intercept, slope = logistic(z[:, None], labels, penalty=penalty).tolist()
        return cls(intercept - slope * float(bits.mean()) / spread, slope / spread, n, right)

    @classmethod
    def flat(cls, *, n: int, n_right: int) -> RightGivenEntropy:
        """The same probability at every entropy: the share right, with half an example of each kind added."""
        return cls(math.log((n_right + 0.5) / (n - n_right + 0.5)), 0.0, n, n_right)

    @classmethod
    def fit_or_flat(cls, entropy: ArrayLike, correct: ArrayLike) -> RightGivenEntropy:
        """`fit`, or `flat` if the fit is refused. A flat curve prefers no problem for its entropy."""
        try:
            return cls.fit(entropy, correct)
        except GatingRefused:
            labels = np.asarray(correct, dtype=np.bool_)
            return cls.flat(n=len(labels), n_right=int(labels.sum()))


def checked_entropies(entropy: ArrayLike) -> Floats:
    """Entropies (n,) in bits; raises `BudgetError` for NaN, infinite and negative ones."""
    bits = np.asarray(entropy, dtype=np.float64)
    if bits.ndim != 1:
        raise BudgetError(f"entropies have shape {bits.shape}, expected (n,)", hint="one number of bits a problem")
    bad = np.flatnonzero(~(np.isfinite(bits) & (bits >= 0)))
    if len(bad):
        raise BudgetError(
            f"problem {int(bad[0])}: {float(bits[bad[0]])!r} is no entropy", hint="bits are finite and at least 0"
        )
    return bits


@dataclass(frozen=True, slots=True)
class StepLength:
    """Expected tokens of one step: `intercept + slope · H`, clipped to `low` and `high`."""

    intercept: float
    """In tokens."""
    slope: float
    """Tokens per bit."""
    low: float
    """Smallest expected length, in tokens."""
    high: float
    """Largest expected length, in tokens."""
    spread: float = 0.0
    """Standard deviation of lengths, tokens."""

    def __call__(self, entropy: ArrayLike) -> Floats:
        """Expected tokens at step-1 entropies of any shape."""
        return np.clip(self.intercept + self.slope * np.asarray(entropy, dtype=np.float64), self.low, self.high)

    @classmethod
    def constant(cls, tokens: float) -> StepLength:
        """The same length at every entropy."""
        if not math.isfinite(tokens) or tokens <= 0:
            raise BudgetError(f"a step of {tokens!r} tokens", hint="expected tokens of a step, above 0")
        return cls(tokens, 0.0, tokens, tokens)

    @classmethod
    def fit(cls, entropy: Floats, tokens: Floats) -> StepLength:
        """Least squares on entropies (n,) and tokens (n,), clipped to the 5th to 95th percentile."""
        mean, spread = max(1.0, float(tokens.mean())), float(entropy.std())
        if len(tokens) < 10 or spread <= 1e-12:
            return cls(mean, 0.0, mean, mean, float(tokens.std()))
        slope = float(((entropy - entropy.mean()) * (tokens - mean)).mean() / spread**2)
        low, high = (max(1.0, float(limit)) for limit in np.quantile(tokens, (0.05, 0.95)))
        line = cls(mean - slope * float(entropy.mean()), slope, low, high)
        # Clipping a long tail would promise more steps than the budget holds, so the mean is restored.
        scale = mean / float(line(entropy).mean())
        return cls(line.intercept * scale, slope * scale, low * scale, high * scale, float(tokens.std()))
