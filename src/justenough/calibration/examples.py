"""Labelled examples, and the outcome of a threshold method on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError, NotEnoughExamples, NothingCertified

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
    """Entropy of step 1 in bits, shape (n,)."""
    correct: Bools
    """Whether step 1 is right, shape (n,)."""
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
    """The result of a method on some examples."""

    method: str
    threshold: float | None
    """Bits: stop where H ≤ threshold. None: never stop."""
    reason: Reason
    """`ok`, or why there is no threshold."""
    needed: int = 0
    """The least number of missing examples, where that is the reason."""
    guarantee: str | None = None
    """The guarantee in words, for a threshold that carries a certificate."""

    def require(self) -> float:
        """The threshold; raises `NothingCertified` or `NotEnoughExamples` where there is none."""
        if self.threshold is None:
            raise self.failure()
        return self.threshold

    def failure(self) -> NothingCertified | NotEnoughExamples:
        """The error of an outcome without a threshold."""
        message = f"{self.method}: {EXPLANATIONS[self.reason]}"
        if self.reason in ("nothing_certified", "no_final_answers"):
            more = f"a harmless signal would take {self.needed} more labels"
            hint = more if self.needed else "lower the confidence or allow more harm"
            return NothingCertified(message, needed=self.needed, hint=hint)
        hint = f"label at least {self.needed} more" if self.needed else "label more, or take --threshold mean"
        return NotEnoughExamples(message, needed=self.needed, hint=hint)


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
    """Turns examples into an outcome; hyperparameters are in the constructor, data in `fit`."""

    @property
    def name(self) -> str:
        """The name in the registry."""

    def fit(self, examples: Examples) -> Outcome:
        """Fit on examples; too few of them is an outcome, not an error."""
