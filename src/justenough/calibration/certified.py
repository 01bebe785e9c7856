"""Thresholds with a certificate: a bound on harm, or on harm minus rescue, with a stated confidence."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
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
Bound = Literal["exact", "hoeffding-bentkus"]

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


class Certified(ABC):
    """A method whose threshold carries a certificate."""

    __slots__ = ()
    name: ClassVar[str]
    promise: ClassVar[str]
    """The guarantee in words, for a share of the problems."""
    confidence: float
    refits: int

    @property
    @abstractmethod
    def max_harm(self) -> float:
        """The level of the certificate: the largest harm, or the largest loss of accuracy."""

    @abstractmethod
    def fit_every(self, checkpoints: Checkpoints, *, grid: Floats = FINE_BITS) -> Outcome:
        """Certify stopping at any checkpoint; the grid must be fixed before the examples are seen."""

    def __post_init__(self) -> None:
        if not 0 < self.max_harm < 1 or not 0 < self.confidence < 1:
            raise InputError(
                f"{self.name}: {self.max_harm} and confidence {self.confidence} must lie between 0 and 1",
                hint="fractions: 0.01 is one problem in a hundred",
            )

    @property
    def error(self) -> float:
        """The error of one fit."""
        return spend(1 - self.confidence, self.refits)[0]

    def labels_needed(self) -> int:
        """Labels that certify a signal without any observed harm or rescue: `(1 - ε)^n ≤ δ`."""
        return math.ceil(math.log(self.error) / math.log1p(-self.max_harm) - 1e-12)

    def ungraded(self) -> Outcome:
        """The outcome where the last answers are not graded."""
        return Outcome(method=self.name, threshold=None, reason="no_final_answers", needed=self.labels_needed())

    def outcome(self, threshold: float | None, n: int) -> Outcome:
        """The outcome on n examples, with the guarantee in words."""
        if threshold is None:
            missing = max(0, self.labels_needed() - n)
            return Outcome(method=self.name, threshold=None, reason="nothing_certified", needed=missing)
        together = f" and over {self.refits} refits together" if self.refits > 1 else ""
        guarantee = (
            f"with {100 * self.confidence:.10g}% confidence over the draw of the {n} examples{together},"
            f" {self.promise.format(_share(self.max_harm))}"
        )
        return Outcome(method=self.name, threshold=threshold, reason="ok", guarantee=guarantee)


@dataclass(frozen=True, slots=True)
class RiskControlled(Certified):
    """The largest τ such that every τ' ≤ τ passes an exact binomial test of harm(τ') ≤ `max_harm` at 1 - `confidence`.

    After step 1 harm is 0/1 and can only grow with τ. So the calibration scores are the sequence of settings, and ties
    enter together. Over all steps the settings are a fixed grid (Learn-then-Test, arXiv 2110.01052).
    """

    max_harm: float = MAX_HARM
    """Largest share of problems that may be harmed."""
    confidence: float = CONFIDENCE
    """Probability that the bound holds, over the draw of the examples."""
    refits: int = 1
    """Planned refits on later examples. They share the error, so the confidence is that of all of them together."""
    name: ClassVar[str] = "risk"
    promise: ClassVar[str] = "at most {} of all problems are stopped wrong where the last step is right"

    def fit(self, examples: Examples) -> Outcome:
        """Needs the last step's grading of every example."""
        if examples.final is None:
            return self.ungraded()
        n = len(examples.entropy)
        order = np.argsort(examples.entropy, kind="stable")
        scores, harms = examples.entropy[order], np.cumsum((examples.final & ~examples.correct)[order])
        allowed = most_harms(n, limit=self.max_harm, error=self.error) if n else -1
        # Equal scores stop together, so only the last of them counts.
        certified = np.flatnonzero(np.append(scores[1:] != scores[:-1], n > 0)[:n] & (harms <= allowed))
        return self.outcome(float(scores[certified[-1]]) if len(certified) else None, n)

    def fit_every(self, checkpoints: Checkpoints, *, grid: Floats = FINE_BITS) -> Outcome:
        """Certify stopping at any checkpoint; the grid must be fixed before the examples are seen."""
        n = len(checkpoints)
        harms = checkpoints.counts(grid)[0]
        threshold = harm_controlled(grid, harms, n, max_harm=self.max_harm, error=self.error) if n else None
        return self.outcome(threshold, n)


@dataclass(frozen=True, slots=True)
class NetControlled(Certified):
    """The largest τ of a fixed grid such that every grid point up to it passes a test of harm - rescue ≤ `max_loss`.

    The net change may fall as τ grows, so the scores cannot be the sequence of settings. The settings are a fixed grid,
    which is tested upwards until the first failure (Learn-then-Test, arXiv 2110.01052). `exact` is the exact
    unconditional test in Tango's order; it passes wherever the test of harm alone does. `hoeffding-bentkus` is the
    general bound for losses between 0 and 1, here (1 + harm - rescue) / 2, and needs far more labels.
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
    promise: ClassVar[str] = "stopping costs at most {} of accuracy against always running all steps"

    def __post_init__(self) -> None:
        Certified.__post_init__(self)
        if self.test not in ("exact", "hoeffding-bentkus"):
            raise InputError(f"unknown test {self.test!r}", hint="exact or hoeffding-bentkus")

    @property
    def max_harm(self) -> float:
        """The same as `max_loss`: the level of the certificate."""
        return self.max_loss

    def labels_needed(self) -> int:
        """Labels that certify a signal without any observed harm or rescue; for `exact` no fewer do."""
        if self.test == "exact":
            return Certified.labels_needed(self)
        # Hoeffding's bound at an observed mean of one half.
        return math.ceil(2 * math.log(self.error) / math.log1p(-(self.max_loss**2)) - 1e-9)

    def fit(self, examples: Examples) -> Outcome:
        """Needs the last step's grading of every example."""
        if examples.final is None:
            return self.ungraded()
        return self.fit_every(Checkpoints.of(examples, examples.final), grid=BITS)

    def fit_every(self, checkpoints: Checkpoints, *, grid: Floats = FINE_BITS) -> Outcome:
        """Certify stopping at any checkpoint; the grid must be fixed before the examples are seen."""
        n = len(checkpoints)
        # Most of the grid lies between two scores: each pair of counts is tested once.
        harms, rescues = checkpoints.counts(grid)
        pairs, place = np.unique(harms * (n + 1) + rescues, return_inverse=True)
        return self.outcome(last_passed(grid, self._passes(*np.divmod(pairs, n + 1), n)[place]) if n else None, n)

    def _passes(self, harms: Ints, rescues: Ints, n: int) -> Bools:
        """Whether each pair of counts of harms and rescues among n passes."""
        if self.test == "exact":
            return passes_net(harms, rescues, n, limit=self.max_loss, error=self.error)
        return hoeffding_bentkus((1 + (harms - rescues) / n) / 2, n, (1 + self.max_loss) / 2) <= self.error


def _share(value: float) -> str:
    """A percentage with two decimals, or with more where it has more."""
    plain = f"{100 * value:.2f}"
    return f"{plain if math.isclose(float(plain), 100 * value) else f'{100 * value:.10g}'}%"
