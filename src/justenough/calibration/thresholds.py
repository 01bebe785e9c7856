"""The threshold methods: each fits τ in bits on labelled entropies. A new one is a dataclass and a line in `METHODS`.

Every edge case has a named outcome (`EXPLANATIONS`). `ok` and the fallback `collapses_to_mean` of the universal method
carry a threshold. The others carry none, which means *never stop*. A method that lacks examples says how many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final

from justenough.calibration.certified import NetControlled as NetControlled
from justenough.calibration.certified import RiskControlled as RiskControlled
from justenough.calibration.examples import EXPLANATIONS as EXPLANATIONS
from justenough.calibration.examples import Examples as Examples
from justenough.calibration.examples import Method as Method
from justenough.calibration.examples import Outcome as Outcome
from justenough.calibration.examples import Reason as Reason
from justenough.stats import cohens_d, least_variance


def _lacking(method: str, examples: Examples, *, right: int, wrong: int) -> Outcome | None:
    if (missing := right - len(examples.right)) > 0:
        return Outcome(method=method, threshold=None, reason="too_few_right", needed=missing)
    if (missing := wrong - len(examples.wrong)) > 0:
        return Outcome(method=method, threshold=None, reason="too_few_wrong", needed=missing)
    return None


def _effect(method: str, examples: Examples) -> float | Outcome:
    """Cohen's d, or why a method that needs it has no threshold."""
    if (lacking := _lacking(method, examples, right=2, wrong=2)) is not None:
        return lacking
    d = cohens_d(examples.right, examples.wrong)
    if d is None:
        return Outcome(method=method, threshold=None, reason="no_variance")
    # abs(d) in the paper's formulae would hide that wrong answers are the surer ones.
    return d if d > 0 else Outcome(method=method, threshold=None, reason="not_separating")


@dataclass(frozen=True, slots=True)
class Mean:
    """Entropy mean: `τ = μ_c` (arXiv 2510.08146)."""

    name: ClassVar[str] = "mean"

    def fit(self, examples: Examples) -> Outcome:
        """Needs one right answer."""
        if (lacking := _lacking(self.name, examples, right=1, wrong=0)) is not None:
            return lacking
        return Outcome(method=self.name, threshold=float(examples.right.mean()), reason="ok")


@dataclass(frozen=True, slots=True)
class Info:
    """Information-theoretic: `τ = μ_c + σ_c ln(1 + |d|)` (arXiv 2510.08146)."""

    name: ClassVar[str] = "info"

    def fit(self, examples: Examples) -> Outcome:
        """Needs two right and two wrong answers and d > 0."""
        d = _effect(self.name, examples)
        if isinstance(d, Outcome):
            return d
        right = examples.right
        threshold = float(right.mean() + right.std(ddof=1) * math.log1p(d))
        return Outcome(method=self.name, threshold=threshold, reason="ok")


@dataclass(frozen=True, slots=True)
class Bayes:
    """Bayes-optimal: where the two Gaussian class densities, weighted by their priors, cross (arXiv 2510.08146).

    Between the means the logarithm of their ratio falls strictly, so there is at most one crossing, and bracketing
    finds it for equal variances too. A crossing outside the means is never used.
    """

    name: ClassVar[str] = "bayes"

    def fit(self, examples: Examples) -> Outcome:
        """Needs two right and two wrong answers, variance in both, and d > 0."""
        from scipy.optimize import brentq

        d = _effect(self.name, examples)
        if isinstance(d, Outcome):
            return d
        right, wrong = examples.right, examples.wrong
        means = float(right.mean()), float(wrong.mean())
        deviations = float(right.std(ddof=1)), float(wrong.std(ddof=1))
        if min(deviations) <= math.sqrt(least_variance(examples.entropy)):
            return Outcome(method=self.name, threshold=None, reason="no_variance")
        prior = math.log(len(right) / len(wrong)) - math.log(deviations[0] / deviations[1])

        def log_ratio(x: float) -> float:
            """ln of (right's weighted density / wrong's) at entropy x."""
            z_right, z_wrong = (x - means[0]) / deviations[0], (x - means[1]) / deviations[1]
            return prior - (z_right**2 - z_wrong**2) / 2

        if log_ratio(means[0]) < 0:
            return Outcome(method=self.name, threshold=None, reason="never_stop")
        if log_ratio(means[1]) > 0:
            return Outcome(method=self.name, threshold=None, reason="prior_dominates")
        return Outcome(method=self.name, threshold=float(brentq(log_ratio, *means)), reason="ok")


@dataclass(frozen=True, slots=True)
class Universal:
    """Scale-invariant universal: `τ = μ_c + |d|/(1+|d|) (μ_i − μ_c) max(0, 1 − σ_c/μ_c)` (arXiv 2510.08146)."""

    name: ClassVar[str] = "universal"

    def fit(self, examples: Examples) -> Outcome:
        """Needs two right and two wrong answers and d > 0; falls back to μ_c, by name, where σ_c ≥ μ_c."""
        d = _effect(self.name, examples)
        if isinstance(d, Outcome):
            return d
        mean, deviation = float(examples.right.mean()), float(examples.right.std(ddof=1))
        if deviation >= mean:
            return Outcome(method=self.name, threshold=mean, reason="collapses_to_mean")
        gap = float(examples.wrong.mean()) - mean
        threshold = mean + d / (1 + d) * gap * (1 - deviation / mean)
        return Outcome(method=self.name, threshold=threshold, reason="ok")


METHODS: Final[Mapping[str, Callable[[], Method]]] = MappingProxyType(
    {"mean": Mean, "info": Info, "bayes": Bayes, "universal": Universal, "risk": RiskControlled, "net": NetControlled}
)
"""Name → method at its default hyperparameters."""


def methods_at(max_harm: float, confidence: float, *, refits: int = 1) -> dict[str, Method]:
    """Name → method, the certified ones at a level; so many planned refits share its error."""
    return {name: make() for name, make in METHODS.items()} | {
        "risk": RiskControlled(max_harm, confidence, refits),
        "net": NetControlled(max_harm, confidence, refits=refits),
    }
