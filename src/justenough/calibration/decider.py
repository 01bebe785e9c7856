"""The decider: P(stopping now loses a right answer), by a logistic regression on the history of the signal.

The same regression gives the outlook, P(the last answer is right). Each is fitted on problems that the certificate does
not use, and then frozen. A gate updates it step by step; it has no access to later steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError, NotEnoughExamples
from justenough.signal.regression import Bools, Floats, Regression, fitted, ridge, standardised
from justenough.signal.scorer import RunScore
from justenough.stats.drawing import generator

Ints = NDArray[np.int64]

VERSION: Final = 1
FEATURES: Final = ("entropy", "mean", "minimum", "change", "tokens", "share")
"""Signal of the step; its mean and its minimum so far; its change since the step before; ln(1 + tokens so far); number
of the step as a share of the limit."""
MINIMUM_OF_EACH: Final = 10
"""Harmful and harmless checkpoints, of each, below which nothing is fitted."""

_PENALTIES: Final = (0.1, 1.0, 10.0, 100.0)
_FOLDS: Final = 5
_DIGITS: Final = 9
"""Scores are rounded, so that the gate and a replay agree in spite of the last bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decider(Regression):
    """`P = 1 / (1 + exp(-(intercept + Σ weight · (feature - centre) / scale)))`."""

    features: tuple[str, ...]
    """Names of the features."""
    limit: int
    """Number of steps of which a step's number is a share."""
    version: int = VERSION
    """Version of the features."""

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise InputError(
                f"a decider of version {self.version}, this is for version {VERSION}", hint="calibrate anew"
            )
        if self.features != FEATURES or len(self.weights) != len(FEATURES):
            raise InputError("the decider has other features than this version computes", hint="calibrate anew")
        if self.limit < 1:
            raise InputError(f"a decider's limit is {self.limit}", hint="at least 1")
        Regression.__post_init__(self)

    def begin(self) -> RunScore:
        """The history of a new run."""
        return History(self)

    def scores(self, bits: Floats, tokens: Floats, starts: Ints) -> Floats:
        """P at each checkpoint (m,); NaN where there is no signal.

        `bits` and `tokens` are those of each step; problem i begins at `starts[i]`.
        """
        return self._of(features_of(bits, tokens, starts, limit=self.limit))

    def carrying(self) -> list[tuple[str, float]]:
        """The features with their weights, the most important first."""
        return sorted(zip(self.features, self.weights, strict=True), key=lambda pair: -abs(pair[1]))

    def _of(self, rows: Floats) -> Floats:
        from scipy.special import expit

        odds = self.intercept + ((rows - np.array(self.centre)) / np.array(self.scale)) @ np.array(self.weights)
        scores: Floats = np.round(expit(odds), _DIGITS)
        return scores


class History:
    """What a run has shown so far."""

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self._bits: list[float] = []
        self._tokens: list[int] = []
        self._sum, self._count, self._minimum, self._before = 0.0, 0, math.inf, math.nan
        self._steps = self._total = 0

    def after(self, bits: float | None, tokens: int) -> float | None:
        """P after this step; None where it has no signal."""
        self._steps += 1
        self._total += tokens
        if bits is None:
            return None
        self._sum += bits
        self._count += 1
        self._minimum = min(self._minimum, bits)
        change = 0.0 if math.isnan(self._before) else bits - self._before
        self._before = bits
        share = min(1.0, self._steps / self._decider.limit)
        mean = self._sum / self._count
        row = np.array([[bits, mean, self._minimum, change, np.log1p(self._total), share]])
        return float(self._decider._of(row)[0])


def features_of(bits: Floats, tokens: Floats, starts: Ints, *, limit: int) -> Floats:
    """The features at each checkpoint, (m, p); NaN where there is no signal. Each row depends on no later step."""
    problem = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(bits))))
    totals = np.cumsum(tokens)
    length = np.log1p(totals - (totals - tokens)[starts[problem]])
    share = np.minimum(1.0, (np.arange(len(bits)) - starts[problem] + 1) / limit)
    measured = np.flatnonzero(~np.isnan(bits))
    counts = np.bincount(problem[measured], minlength=len(starts))
    firsts = np.cumsum(counts) - counts
    rows = np.full((len(bits), len(FEATURES)), math.nan)
    # All problems with the same number of measured steps in one go, a row for each.
    for count in np.unique(counts[counts > 0]).tolist():
        at = measured[firsts[counts == count][:, None] + np.arange(count)]
        seen = bits[at]
        mean = np.cumsum(seen, axis=1) / np.arange(1, count + 1)
        change = np.diff(seen, axis=1, prepend=seen[:, :1])
        minimum = np.minimum.accumulate(seen, axis=1)
        rows[at] = np.stack((seen, mean, minimum, change, length[at], share[at]), axis=2)
    return rows


def fit_decider(bits: Floats, tokens: Floats, starts: Ints, labels: Bools, *, limit: int, seed: int = 0) -> Decider:
    """Fit P(label) on the checkpoints (m,) of some problems.

    The penalty of the weights is chosen by cross-validation, in which a problem is never split.
    Raises `NotEnoughExamples` with fewer than ten checkpoints with or without the label.
    """
    problem = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(bits))))
    table = features_of(bits, tokens, starts, limit=limit)
    used = ~np.isnan(bits)
    # At its last checkpoint a run ends anyway.
    used[np.append(starts[1:], len(bits)) - 1] = False
    rows, labels, problem = table[used], labels[used], problem[used]
    rarer = min(int(labels.sum()), int((~labels).sum()))
    if rarer < MINIMUM_OF_EACH:
        raise NotEnoughExamples(
            f"a decider needs {MINIMUM_OF_EACH} checkpoints of each kind, at which stopping loses a right answer or the"
            f" last answer is right, and at which not; of the rarer kind there are {rarer}",
            needed=MINIMUM_OF_EACH - rarer,
            hint="label more problems, or take --threshold risk",
        )
    scaled = standardised(rows)[0]
    fold = generator(seed).permutation(len(starts))[problem] % _FOLDS
    penalty = min(_PENALTIES, key=lambda one: _loss(scaled, labels, fold, one))
    return Decider(features=FEATURES, limit=limit, n=len(starts), **fitted(rows, labels, penalty=penalty))


def _loss(rows: Floats, labels: Bools, fold: Ints, penalty: float) -> float:
    """The log loss on the folds that were left out, summed."""
    total = 0.0
    for left_out in range(_FOLDS):
        test = fold == left_out
        weights = ridge(rows[~test], labels[~test], penalty)
        odds = np.clip(weights[0] + rows[test] @ weights[1:], -50, 50)
        total += float(np.logaddexp(0, np.where(labels[test], -odds, odds)).sum())
    return total
