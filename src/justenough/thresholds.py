"""The thresholds: from labelled entropies to τ in bits. One frozen dataclass each; a new one is one more registry line.

Every edge case has a named outcome. `ok` and the fallback `collapses_to_mean` carry a threshold; all others carry none,
which means *never stop*. A method that lacks examples says how many.

| outcome | when | threshold |
|---|---|---|
| `ok` | the formula holds | yes |
| `collapses_to_mean` | universal: σ_c ≥ μ_c, or μ_c = 0 | μ_c |
| `too_few_right` | fewer right answers than the formula needs | none |
| `too_few_wrong` | fewer wrong answers than the formula needs | none |
| `no_variance` | both classes constant: d and σ undefined | none |
| `not_separating` | d ≤ 0: wrong answers are no less sure | none |
| `never_stop` | Bayes: "wrong" is likelier throughout between the means | none |
| `prior_dominates` | Bayes: "right" is likelier throughout, by its prior | none |
| `nothing_certified` | risk: no threshold passes the test | none |
| `no_final_answers` | risk: the traces do not hold the last step | none |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError, NotEnoughExamples, NothingCertified
from justenough.stats import cohens_d, least_variance

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Reason = Literal[
    "ok",
    "collapses_to_mean",
    "too_few_right",
    "too_few_wrong",
    "no_variance",
    "not_separating",
    "never_stop",
    "prior_dominates",
    "nothing_certified",
    "no_final_answers",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Labelled problems: step-1 entropies in bits, whether step 1 is right, whether the last step is; each (n,)."""

    entropy: Floats
    correct: Bools
    final: Bools | None = None
    """None where only step 1 was recorded."""

    def __post_init__(self) -> None:
        if self.entropy.ndim != 1 or self.entropy.shape != self.correct.shape:
            raise InputError(f"{self.entropy.shape} entropies, {self.correct.shape} labels", hint="one label for each")
        if self.final is not None and self.final.shape != self.correct.shape:
            raise InputError(f"{self.final.shape} last labels, {self.correct.shape} first", hint="one for each")
        if self.correct.dtype != np.bool_ or (self.final is not None and self.final.dtype != np.bool_):
            # 0 and 1 would index the entropies instead of choosing among them.
            raise InputError("labels must be true or false", hint="an array of dtype bool")
        if not np.isfinite(self.entropy).all():
            raise InputError("an entropy is no finite number", hint="leave such problems out")

    @property
    def right(self) -> Floats:
        """Entropies of the right answers."""
        return self.entropy[self.correct]

    @property
    def wrong(self) -> Floats:
        """Entropies of the wrong answers."""
        return self.entropy[~self.correct]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a method made of the examples."""

    method: str
    threshold: float | None
    """Bits: stop where H ≤ threshold. None: never stop."""
    reason: Reason
    needed: int = 0
    """Examples that are missing at least, where that is the reason."""
    guarantee: str | None = None
    """What is certified, for a threshold that carries a certificate."""

    def require(self) -> float:
        """The threshold; raises `NothingCertified` or `NotEnoughExamples` where there is none."""
        if self.threshold is not None:
            return self.threshold
        if self.reason in ("nothing_certified", "no_final_answers"):
            raise NothingCertified(
                f"{self.method}: {EXPLANATIONS[self.reason]}",
                needed=self.needed,
                hint=f"a harmless signal would take {self.needed} labels"
                if self.needed
                else "lower the confidence or allow more harm",
            )
        raise NotEnoughExamples(
            f"{self.method}: {EXPLANATIONS[self.reason]}",
            needed=self.needed,
            hint=f"label at least {self.needed} more" if self.needed else "label more, or take --threshold mean",
        )


EXPLANATIONS: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        "ok": "fitted",
        "collapses_to_mean": "right answers vary as much as their mean, so the threshold is that mean",
        "too_few_right": "too few right answers among the examples",
        "too_few_wrong": "too few wrong answers among the examples",
        "no_variance": "the entropies do not vary, so their difference has no scale",
        "not_separating": "wrong answers are no less sure than right ones",
        "never_stop": "an answer is likelier wrong than right at every entropy between the means",
        "prior_dominates": "right answers are so frequent that no entropy between the means speaks for wrong",
        "nothing_certified": "no threshold can be certified on these examples",
        "no_final_answers": "harm needs the last step's answers, and the traces do not hold them",
    }
)


class Method(Protocol):
    """From examples to an outcome; hyperparameters are in the constructor, data in `fit`."""

    @property
    def name(self) -> str:
        """The name in the registry."""

    def fit(self, examples: Examples) -> Outcome:
        """Fit on examples; never raises for want of them, the outcome says so."""


def _lacking(method: str, examples: Examples, *, right: int, wrong: int) -> Outcome | None:
    for reason, have, need in (
        ("too_few_right", len(examples.right), right),
        ("too_few_wrong", len(examples.wrong), wrong),
    ):
        if have < need:
            named: Reason = "too_few_right" if reason == "too_few_right" else "too_few_wrong"
            return Outcome(method=method, threshold=None, reason=named, needed=need - have)
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

    name: Final = "mean"

    def fit(self, examples: Examples) -> Outcome:
        """Needs one right answer."""
        if (lacking := _lacking(self.name, examples, right=1, wrong=0)) is not None:
            return lacking
        return Outcome(method=self.name, threshold=float(examples.right.mean()), reason="ok")


@dataclass(frozen=True, slots=True)
class Info:
    """Information-theoretic: `τ = μ_c + σ_c ln(1 + |d|)` (arXiv 2510.08146)."""

    name: Final = "info"

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

    name: Final = "bayes"

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

    name: Final = "universal"

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


@dataclass(frozen=True, slots=True)
class RiskControlled:
    """The largest τ such that every τ' ≤ τ passes an exact binomial test of harm(τ') ≤ `max_harm` at 1 − `confidence`.

    Harm is 0/1 and can only grow with τ, so the calibration scores themselves serve as the sequence, ties entering
    together (fixed-sequence testing, Learn-then-Test, arXiv 2110.01052).
    """

    max_harm: float = 0.01
    confidence: float = 0.95
    name: Final = "risk"

    def __post_init__(self) -> None:
        if not 0 < self.max_harm < 1 or not 0 < self.confidence < 1:
            raise InputError(
                f"max_harm {self.max_harm} and confidence {self.confidence} must lie between 0 and 1",
                hint="fractions: 0.01 is one problem in a hundred",
            )

    def labels_needed(self) -> int:
        """Labels after which a signal without any observed harm is certified: `(1 − ε)^n ≤ δ`."""
        return math.ceil(math.log(1 - self.confidence) / math.log1p(-self.max_harm) - 1e-12)

    def fit(self, examples: Examples) -> Outcome:
        """Needs the last step's grading of every example."""
        from scipy.stats import binom

        n = len(examples.entropy)
        if examples.final is None:
            return Outcome(method=self.name, threshold=None, reason="no_final_answers", needed=self.labels_needed())
        harmful = examples.final & ~examples.correct
        order = np.argsort(examples.entropy, kind="stable")
        scores, harms = examples.entropy[order], np.cumsum(harmful[order])
        # The test passes up to this many harms; cdf rises with the count, so it passes below it too.
        counts = np.arange(int(harms[-1]) + 1 if n else 1)
        passing = binom.cdf(counts, max(n, 1), self.max_harm) <= 1 - self.confidence
        allowed = int(passing.sum()) - 1
        last_of_tie = np.r_[scores[1:] != scores[:-1], True] if n else np.zeros(0, dtype=bool)
        certified = np.flatnonzero(last_of_tie & (harms <= allowed))
        if not n or allowed < 0 or not len(certified):
            needed = max(0, self.labels_needed() - n)
            return Outcome(method=self.name, threshold=None, reason="nothing_certified", needed=needed)
        guarantee = (
            f"with {self.confidence:.0%} confidence over the draw of the {n} examples, at most {self.max_harm:.2%} of"
            " all problems are stopped wrong where the last step is right"
        )
        return Outcome(method=self.name, threshold=float(scores[certified[-1]]), reason="ok", guarantee=guarantee)


METHODS: Final[Mapping[str, Callable[[], Method]]] = MappingProxyType(
    {"mean": Mean, "info": Info, "bayes": Bayes, "universal": Universal, "risk": RiskControlled}
)
"""Name → method at its default hyperparameters."""
