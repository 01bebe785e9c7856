"""Thresholds that carry a certificate: harm, or harm less rescue, bounded with a stated confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from justenough.calibration.examples import Bools, Examples, Outcome
from justenough.errors import InputError
from justenough.stats.exact import most_harms, passes_net
from justenough.stats.learn_then_test import hoeffding_bentkus
from justenough.stats.sequence import BITS, last_passed

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RiskControlled:
    """The largest τ such that every τ' ≤ τ passes an exact binomial test of harm(τ') ≤ `max_harm` at 1 − `confidence`.

    Harm is 0/1 and can only grow with τ, so the calibration scores themselves serve as the sequence, ties entering
    together (fixed-sequence testing, Learn-then-Test, arXiv 2110.01052).
    """

    max_harm: float = 0.01
    """Largest share of problems that may be harmed."""
    confidence: float = 0.95
    """Probability that the bound holds, over the draw of the examples."""
    name: ClassVar[str] = "risk"

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
        n = len(examples.entropy)
        if examples.final is None:
            return Outcome(method=self.name, threshold=None, reason="no_final_answers", needed=self.labels_needed())
        harmful = examples.final & ~examples.correct
        order = np.argsort(examples.entropy, kind="stable")
        scores, harms = examples.entropy[order], np.cumsum(harmful[order])
        allowed = most_harms(n, limit=self.max_harm, error=1 - self.confidence) if n else -1
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


Bound = Literal["exact", "hoeffding-bentkus"]


@dataclass(frozen=True, slots=True)
class NetControlled:
    """The largest τ of a fixed grid such that every grid point up to it passes a test of harm - rescue ≤ `max_loss`.

    The net change is no longer 0/1 and may fall as τ grows, so the scores cannot serve as the sequence: a grid fixed
    beforehand does, tested upwards until the first failure (Learn-then-Test, arXiv 2110.01052). `exact` is the exact
    unconditional test in Tango's order; it passes wherever the test of harm alone does. `hoeffding-bentkus` is the
    general bound for losses between 0 and 1, here (1 + harm - rescue) / 2, and takes far more labels.
    """

    max_loss: float = 0.01
    """Largest loss of accuracy, as a fraction."""
    confidence: float = 0.95
    """Probability that the bound holds, over the draw of the examples."""
    test: Bound = "exact"
    """The test behind the certificate."""
    name: ClassVar[str] = "net"

    def __post_init__(self) -> None:
        if not 0 < self.max_loss < 1 or not 0 < self.confidence < 1:
            raise InputError(
                f"max_loss {self.max_loss} and confidence {self.confidence} must lie between 0 and 1",
                hint="fractions: 0.01 is one point of accuracy",
            )
        if self.test not in ("exact", "hoeffding-bentkus"):
            raise InputError(f"unknown test {self.test!r}", hint="exact or hoeffding-bentkus")

    def labels_needed(self) -> int:
        """Labels that suffice to certify a signal without any observed harm or rescue; for `exact` no fewer do."""
        error = 1 - self.confidence
        if self.test == "exact":
            return math.ceil(math.log(error) / math.log1p(-self.max_loss) - 1e-12)
        # Hoeffding's bound at an observed mean of one half.
        return math.ceil(2 * math.log(error) / math.log1p(-(self.max_loss**2)) - 1e-9)

    def fit(self, examples: Examples) -> Outcome:
        """Needs the last step's grading of every example."""
        n = len(examples.entropy)
        if examples.final is None:
            return Outcome(method=self.name, threshold=None, reason="no_final_answers", needed=self.labels_needed())
        order = np.argsort(examples.entropy, kind="stable")
        harms = np.concatenate(([0], np.cumsum((examples.final & ~examples.correct)[order])))
        rescues = np.concatenate(([0], np.cumsum((examples.correct & ~examples.final)[order])))
        stopped = np.searchsorted(examples.entropy[order], BITS, side="right")
        # Most of the grid lies between two scores: each count of stops is tested once.
        counts, place = np.unique(stopped, return_inverse=True)
        passing = self._passes(harms[counts], rescues[counts], n)[place] if n else np.zeros(len(BITS), dtype=bool)
        threshold = last_passed(BITS, passing)
        if threshold is None:
            needed = max(0, self.labels_needed() - n)
            return Outcome(method=self.name, threshold=None, reason="nothing_certified", needed=needed)
        guarantee = (
            f"with {self.confidence:.0%} confidence over the draw of the {n} examples, stopping costs at most"
            f" {self.max_loss:.2%} of accuracy against always running all steps"
        )
        return Outcome(method=self.name, threshold=threshold, reason="ok", guarantee=guarantee)

    def _passes(self, harms: Ints, rescues: Ints, n: int) -> Bools:
        """Whether each count of harms and rescues among n passes."""
        error = 1 - self.confidence
        if self.test == "exact":
            return passes_net(harms, rescues, n, limit=self.max_loss, error=error)
        risk = (1 + (harms - rescues) / n) / 2
        return hoeffding_bentkus(risk, n, (1 + self.max_loss) / 2) <= error
