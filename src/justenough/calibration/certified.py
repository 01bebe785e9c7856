"""Thresholds that carry a certificate: harm, or harm less rescue, bounded with a stated confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from justenough.calibration.examples import Bools, Examples, Floats, Outcome
from justenough.errors import InputError
from justenough.stats.exact import most_harms, passes_net
from justenough.stats.learn_then_test import hoeffding_bentkus
from justenough.stats.sequence import BITS, harm_controlled, last_passed, spend, sums_of_stops

Ints = NDArray[np.int64]

MAX_HARM = 0.01
"""Default limit of harm: one problem in a hundred."""
CONFIDENCE = 0.95
"""Default probability of a certificate."""
FINE_BITS: Final[Floats] = np.concatenate(([0.0], 2.0 ** (np.arange(-20 * 64, 10 * 64 + 1) / 64)))
"""Thresholds for every step, fixed before any data is seen: 0, and 64 to each doubling from a millionth to 1,024.

A finer grid costs no confidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Where the runs of n problems may stop, m places in all; the places of one problem are consecutive."""

    scores: Floats
    """(m,): a run stops at its first place with a score at or below the threshold; NaN never stops."""
    harms: Bools
    """(m,): whether stopping there loses a right answer."""
    rescues: Bools
    """(m,): whether stopping there saves an answer that is wrong at the end."""
    starts: Ints
    """(n,): each problem's first place."""

    def __len__(self) -> int:
        return len(self.starts)

    @classmethod
    def of(cls, examples: Examples, final: Bools) -> Checkpoints:
        """Examples that may stop only after step 1."""
        return cls(
            scores=examples.entropy,
            harms=final & ~examples.correct,
            rescues=examples.correct & ~final,
            starts=np.arange(len(examples.entropy)),
        )

    def counts(self, grid: Floats) -> tuple[Ints, Ints]:
        """Harms and rescues at each threshold of the ascending grid (g,)."""
        values = np.array([self.harms, self.rescues], dtype=np.float64)
        harms, rescues = sums_of_stops(grid, self.scores, values, self.starts).round().astype(np.int64)
        return harms, rescues


@dataclass(frozen=True, slots=True)
class RiskControlled:
    """The largest τ such that every τ' ≤ τ passes an exact binomial test of harm(τ') ≤ `max_harm` at 1 - `confidence`.

    After step 1 harm is 0/1 and can only grow with τ, so the calibration scores themselves serve as the sequence, ties
    entering together. Over all steps a fixed grid does (Learn-then-Test, arXiv 2110.01052).
    """

    max_harm: float = MAX_HARM
    """Largest share of problems that may be harmed."""
    confidence: float = CONFIDENCE
    """Probability that the bound holds, over the draw of the examples."""
    refits: int = 1
    """Planned refits on later examples. They share the error, so the confidence is that of all of them together."""
    name: ClassVar[str] = "risk"

    def __post_init__(self) -> None:
        _check("max_harm", self.max_harm, self.confidence, "fractions: 0.01 is one problem in a hundred")

    @property
    def error(self) -> float:
        """The error of one fit."""
        return spend(1 - self.confidence, self.refits)[0]

    def labels_needed(self) -> int:
        """Labels after which a signal without any observed harm is certified: `(1 - ε)^n ≤ δ`."""
        return _labels_needed(self.max_harm, self.error)

    def fit(self, examples: Examples) -> Outcome:
        """Needs the last step's grading of every example."""
        if examples.final is None:
            return Outcome(method=self.name, threshold=None, reason="no_final_answers", needed=self.labels_needed())
        n = len(examples.entropy)
        harmful = examples.final & ~examples.correct
        order = np.argsort(examples.entropy, kind="stable")
        scores, harms = examples.entropy[order], np.cumsum(harmful[order])
        allowed = most_harms(n, limit=self.max_harm, error=self.error) if n else -1
        last_of_tie = np.r_[scores[1:] != scores[:-1], True] if n else np.zeros(0, dtype=bool)
        certified = np.flatnonzero(last_of_tie & (harms <= allowed))
        return self.outcome(float(scores[certified[-1]]) if len(certified) else None, n)

    def fit_every(self, checkpoints: Checkpoints, *, grid: Floats = FINE_BITS) -> Outcome:
        """Certify stopping at any checkpoint; the grid must be fixed before the examples are seen."""
        n = len(checkpoints)
        harms = checkpoints.counts(grid)[0].astype(np.float64)
        threshold = harm_controlled(grid, harms, n, max_harm=self.max_harm, error=self.error) if n else None
        return self.outcome(threshold, n)

    def outcome(self, threshold: float | None, n: int) -> Outcome:
        """The outcome on n examples, with the guarantee in words."""
        if threshold is None:
            return _nothing(self.name, self.labels_needed() - n)
        guarantee = (
            f"{_draw(self.confidence, self.refits, n)}, at most {_share(self.max_harm)} of all problems are stopped"
            " wrong where the last step is right"
        )
        return Outcome(method=self.name, threshold=threshold, reason="ok", guarantee=guarantee)


Bound = Literal["exact", "hoeffding-bentkus"]


@dataclass(frozen=True, slots=True)
class NetControlled:
    """The largest τ of a fixed grid such that every grid point up to it passes a test of harm - rescue ≤ `max_loss`.

    The net change is no longer 0/1 and may fall as τ grows, so the scores cannot serve as the sequence: a grid fixed
    beforehand does, tested upwards until the first failure (Learn-then-Test, arXiv 2110.01052). `exact` is the exact
    unconditional test in Tango's order; it passes wherever the test of harm alone does. `hoeffding-bentkus` is the
    general bound for losses between 0 and 1, here (1 + harm - rescue) / 2, and takes far more labels.
    """

    max_loss: float = MAX_HARM
    """Largest loss of accuracy, as a fraction."""
    confidence: float = CONFIDENCE
    """Probability that the bound holds, over the draw of the examples."""
    test: Bound = "exact"
    """The test behind the certificate."""
    refits: int = 1
    """Planned refits on later examples. They share the error, so the confidence is that of all of them together."""
    name: ClassVar[str] = "net"

    def __post_init__(self) -> None:
        _check("max_loss", self.max_loss, self.confidence, "fractions: 0.01 is one point of accuracy")
        if self.test not in ("exact", "hoeffding-bentkus"):
            raise InputError(f"unknown test {self.test!r}", hint="exact or hoeffding-bentkus")

    @property
    def max_harm(self) -> float:
        """The same as `max_loss`: the level of the certificate."""
        return self.max_loss

    @property
    def error(self) -> float:
        """The error of one fit."""
        return spend(1 - self.confidence, self.refits)[0]

    def labels_needed(self) -> int:
        """Labels that suffice to certify a signal without any observed harm or rescue; for `exact` no fewer do."""
        if self.test == "exact":
            return _labels_needed(self.max_loss, self.error)
        # Hoeffding's bound at an observed mean of one half.
        return math.ceil(2 * math.log(self.error) / math.log1p(-(self.max_loss**2)) - 1e-9)

    def fit(self, examples: Examples) -> Outcome:
        """Needs the last step's grading of every example."""
        if examples.final is None:
            return Outcome(method=self.name, threshold=None, reason="no_final_answers", needed=self.labels_needed())
        return self.fit_every(Checkpoints.of(examples, examples.final), grid=BITS)

    def fit_every(self, checkpoints: Checkpoints, *, grid: Floats = FINE_BITS) -> Outcome:
        """Certify stopping at any checkpoint; the grid must be fixed before the examples are seen."""
        n = len(checkpoints)
        # Most of the grid lies between two scores: each pair of counts is tested once.
        harms, rescues = checkpoints.counts(grid)
        pairs, place = np.unique(harms * (n + 1) + rescues, return_inverse=True)
        threshold = last_passed(grid, self._passes(*np.divmod(pairs, n + 1), n)[place]) if n else None
        if threshold is None:
            return _nothing(self.name, self.labels_needed() - n)
        guarantee = (
            f"{_draw(self.confidence, self.refits, n)}, stopping costs at most {_share(self.max_loss)} of accuracy"
            " against always running all steps"
        )
        return Outcome(method=self.name, threshold=threshold, reason="ok", guarantee=guarantee)

    def _passes(self, harms: Ints, rescues: Ints, n: int) -> Bools:
        """Whether each pair of counts of harms and rescues among n passes."""
        if self.test == "exact":
            return passes_net(harms, rescues, n, limit=self.max_loss, error=self.error)
        return hoeffding_bentkus((1 + (harms - rescues) / n) / 2, n, (1 + self.max_loss) / 2) <= self.error


def _check(name: str, limit: float, confidence: float, hint: str) -> None:
    if not 0 < limit < 1 or not 0 < confidence < 1:
        raise InputError(f"{name} {limit} and confidence {confidence} must lie between 0 and 1", hint=hint)


def _labels_needed(limit: float, error: float) -> int:
    return math.ceil(math.log(error) / math.log1p(-limit) - 1e-12)


def _nothing(method: str, missing: int) -> Outcome:
    return Outcome(method=method, threshold=None, reason="nothing_certified", needed=max(0, missing))


def _draw(confidence: float, refits: int, n: int) -> str:
    together = f" and over {refits} refits together" if refits > 1 else ""
    return f"with {100 * confidence:.10g}% confidence over the draw of the {n} examples{together}"


def _share(value: float) -> str:
    """A percentage with two decimals, or with more where it has more."""
    plain = f"{100 * value:.2f}"
    return f"{plain if math.isclose(float(plain), 100 * value) else f'{100 * value:.10g}'}%"
