"""Published rules that must be fitted on labelled problems before they can be used.

Each is fitted on the labels that the gate gets, and on nothing else. `fitted` returns candidates, among which the same
labels choose as among the settings of the other rules.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, product
from types import MappingProxyType
from typing import ClassVar, Final, Self

import numpy as np

from justenough.errors import NotEnoughExamples
from justenough.rules.elicited import LACKING, Answers
from justenough.rules.looks import Bools, FirstPassage, Floats, Looks, first_stops, passage, require
from justenough.rules.quantities import LOGPROB, LOGPROBS, MEAN_BITS, Quantity
from justenough.stats.logistic import logistic
from justenough.trace import Trace
from justenough.trace.batches import Batch

_MARKERS: Final = re.compile(
    r"wait|hmm|but |let me|re-check|recheck|actually|alternatively|double-check|double check|hold on|oops|mistake|wrong"
    r"|let's|however",
    re.IGNORECASE,
)


def _count_markers(text: str) -> int:
    return len(_MARKERS.findall(text))


def _markers(trace: Trace, answers: Answers) -> Floats:
    steps = trace.steps
    return np.array([float(_count_markers(step.text)) if step.text or not step.tokens else LACKING for step in steps])


def _all_markers(batch: Batch, answers: Answers) -> Floats:
    places, texts = batch.steps.coded("text")
    counts = np.array([float(_count_markers(text or "")) for text in texts])[places]
    lacking = (batch.steps.counts("tokens") > 0) & ~np.array(list(map(bool, texts)))[places]
    return np.where(lacking, LACKING, counts)


def _smooth(values: Floats) -> list[float]:
    latest, smooth = math.nan, list[float](values.tolist())
    for place, value in enumerate(smooth):
        if math.isfinite(value):
            latest = math.exp(value) if math.isnan(latest) else 0.95 * math.exp(value) + 0.05 * latest
            smooth[place] = latest
    return smooth


def _smoothed(trace: Trace, answers: Answers) -> Floats:
    return np.array(_smooth(LOGPROB.read(trace, answers)))


def _all_smoothed(batch: Batch, answers: Answers) -> Floats:
    values = LOGPROB.flat(batch, answers) if LOGPROB.flat is not None else np.zeros(0)
    parts = pairwise(batch.offsets.tolist())
    return np.array(list(chain.from_iterable(_smooth(values[begin:end]) for begin, end in parts)))


SMOOTHED: Final = Quantity(LOGPROBS, _smoothed, flat=_all_smoothed)
"""Exponential moving average of the answers' probability, in which the newest one has the weight .95."""
MARKERS: Final = Quantity("the text of every step", _markers, elicits=False, logprobs=False, flat=_all_markers)
"""Number of words in the step's text with which the model doubts or corrects its thought."""


class FittedPassage(FirstPassage):
    """A first passage whose numbers come from labelled problems."""

    __slots__ = ()
    knobs: ClassVar[int] = 0

    @classmethod
    @abstractmethod
    def fitted(cls, looks: Looks, right: Bools) -> Sequence[Self]:
        """Candidates from labelled problems, whose answers are `right` (n, K) or not.

        Raises `NotEnoughExamples` or `MissingField`.
        """


@dataclass(frozen=True, slots=True)
class Cusum(FittedPassage):
    """Stops when the answers' entropy has changed from that of unsure thoughts to that of sure ones (CUSUM, arXiv
    2606.02020, ICML 2026).

    With `Z = ln(f₁(H)/f₀(H))` of the mean token entropy H of each answer, `S ← max(0, S + Z)`, the rule stops when S is
    at least ln γ, the logarithm of the mean number of steps to a false alarm. The densities f₀ and f₁ are histograms.
    The definition was read in a summary of the publication. The authors fit f₀ and f₁ once per model on 100 other
    trajectories. The rest is not known, and is our choice: the densities are those of answers before and after the
    answer stays the same to the end; the histogram has 10 bins of equal width with one count added to each; the labels
    choose γ.
    """

    edges: tuple[float, ...]
    """Bits, the inner limits of the bins."""
    ratios: tuple[float, ...]
    """ln(f₁/f₀) in each bin."""
    alarm: float = 10.0
    """γ."""
    head: ClassVar[str] = "cusum"
    reads: ClassVar[tuple[Quantity, ...]] = (MEAN_BITS,)

    @classmethod
    def fitted(cls, looks: Looks, right: Bools) -> Sequence[Self]:
        """The densities of the labelled problems with each γ; the grades are needed only to choose γ."""
        bits = looks.values[MEAN_BITS]
        known = np.isfinite(bits) & looks.before_last
        final = looks.answers[np.arange(len(bits)), looks.lengths - 1]
        same = (looks.answers == final[:, None]) | ~looks.recorded
        sure = np.logical_and.accumulate(same[:, ::-1], axis=1)[:, ::-1] & (final >= 0)[:, None]
        if not (known & sure).any() or not (known & ~sure).any():
            raise NotEnoughExamples("no answer changed, or none stayed", needed=1, hint="label more problems")
        edges = np.linspace(bits[known].min(), bits[known].max(), _BINS + 1)[1:-1]
        counts = [1 + np.bincount(np.digitize(bits[known & part], edges), minlength=_BINS) for part in (sure, ~sure)]
        ratios = np.log(counts[0] / counts[0].sum()) - np.log(counts[1] / counts[1].sum())
        return [cls(tuple(edges.tolist()), tuple(ratios.tolist()), alarm) for alarm in _ALARMS]

    def holds(self, looks: Looks) -> Bools:
        """Where the sum reaches its bound."""
        bits = looks.values[MEAN_BITS]
        known = np.isfinite(bits)
        evidence = np.where(known, np.array(self.ratios)[np.digitize(bits, self.edges)], 0.0)
        # max(0, S + Z) is how far the sum stands above its lowest point so far.
        total = np.cumsum(evidence, axis=1)
        above: Floats = total - np.minimum(np.minimum.accumulate(total, axis=1), 0.0)
        return known & (above >= math.log(self.alarm))


_BINS: Final = 10
_ALARMS: Final = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0, 10000.0)


@dataclass(frozen=True, slots=True)
class LearnStop(FittedPassage):
    """Stops when a logistic regression finds the answer likely to be right (LearnStop, arXiv 2606.30852).

    Its 8 features, markers of backtracking, C = 1 and the choice of the bound are those of the authors' program: the
    bound that costs least among those at which `lost answers + √(ln(bounds/.05)/(2n))` is at most .15. Lost is a wrong
    answer at the stop though the last one is right. So with fewer than some 170 labelled problems it never stops. The
    bounds are percentiles of scores that were cross-fitted over 5 parts of the problems. Answers are never scored
    where there is none; markers are counted in recorded steps.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    """The intercept first."""
    bound: float
    """Probability."""
    steps: int
    """Number of checkpoints of which a checkpoint's number is a share."""
    head: ClassVar[str] = "learn-stop"
    reads: ClassVar[tuple[Quantity, ...]] = (LOGPROB, MEAN_BITS, MARKERS)

    @classmethod
    def fitted(cls, looks: Looks, right: Bools) -> Sequence[Self]:
        """The regression with the cheapest bound that keeps the risk; nothing if none does."""
        n, steps = right.shape
        used = looks.answered & looks.before_last
        if not (right & used).any() or not (~right & used).any():
            raise NotEnoughExamples(
                "all labelled answers are right, or all wrong", needed=1, hint="label more problems"
            )
        if math.sqrt(math.log(1 / 0.05) / (2 * n)) > 0.15:
            # With so few labels no bound is certain, whatever the scores are.
            return []
        rows, part = np.nonzero(used)[0], np.random.default_rng(0).permutation(n) % 5
        table, labels = _features(looks, steps)[used], right[used]
        scores = np.full(right.shape, np.nan)
        for left_out in range(5):
            inside = part[rows] != left_out
            if labels[inside].any() and not labels[inside].all():
                values = _scored(table[~inside], _regression(table[inside], labels[inside]))
                scores[tuple(place[~inside] for place in np.nonzero(used))] = values
        bounds = np.unique(np.nanquantile(scores, np.linspace(0, 1, 101))) if np.isfinite(scores).any() else np.zeros(0)
        slack = math.sqrt(math.log((len(bounds) + 1) / 0.05) / (2 * n))
        model, options = _regression(table, labels), list[tuple[int, Self]]()
        for bound in bounds.tolist() if slack <= 0.15 else ():
            stops, tokens = passage(_Scored(scores, bound), looks)
            lost = right[:, -1] & ~right[np.arange(n), stops]
            if lost.mean() + slack <= 0.15:
                options.append((int(tokens.sum()), cls(*model, bound, steps)))
        return [min(options, key=lambda option: option[0])[1]] if options else []

    def holds(self, looks: Looks) -> Bools:
        """Where the answer is that likely to be right."""
        table = _features(looks, self.steps)
        scores = _scored(table.reshape(-1, table.shape[2]), (self.centre, self.scale, self.weights))
        return looks.answered & (scores.reshape(table.shape[:2]) >= self.bound)


@dataclass(frozen=True, slots=True)
class _Scored(FirstPassage):
    """Stops where scores that are already known reach a bound."""

    scores: Floats
    bound: float
    head: ClassVar[str] = "learn-stop"
    knobs: ClassVar[int] = 0

    def holds(self, looks: Looks) -> Bools:
        """Where a score is at least the bound."""
        return self.scores >= self.bound


_Model = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]


def _features(looks: Looks, steps: int) -> Floats:
    """The 8 features of LearnStop, (n, K, 8)."""
    length, codes = looks.agreeing, looks.answers
    votes = np.zeros(codes.shape)
    for step in range(codes.shape[1]):
        votes[:, step] = (codes[:, : step + 1] == codes[:, step : step + 1]).mean(axis=1)
    number = np.broadcast_to(np.arange(codes.shape[1]) / max(steps - 1, 1), codes.shape)
    density = np.cumsum(looks.values[MARKERS], axis=1) / np.maximum(looks.seen, 1) * 100
    logprob = np.maximum(looks.values[LOGPROB], -20.0)
    parts = (looks.seen / 1000, number, logprob, looks.values[MEAN_BITS], length > 1, length, votes, density)
    return np.nan_to_num(np.stack(np.broadcast_arrays(*parts), axis=2).astype(np.float64), posinf=0.0, neginf=0.0)


def _regression(table: Floats, labels: Bools) -> _Model:
    """Centre, scale, and the weights of the scaled features."""
    centre, scale = table.mean(axis=0), table.std(axis=0)
    scale[scale < 1e-9] = 1.0
    weights = logistic((table - centre) / scale, labels, penalty=[1e-9] + [1.0] * table.shape[1])
    return tuple(centre.tolist()), tuple(scale.tolist()), tuple(weights.tolist())


def _scored(table: Floats, model: _Model) -> Floats:
    from scipy.special import expit

    centre, scale, weights = map(np.array, model)
    scores: Floats = expit(weights[0] + (table - centre) / scale @ weights[1:])
    return scores


@dataclass(frozen=True, slots=True)
class ConformalThinking(FittedPassage):
    """Stops when the answer is sure enough, or when it is still unsure after so many tokens (Conformal Thinking, arXiv
    2602.03814, ICML 2026).

    The signal is the probability of the answer's tokens (geometric mean), smoothed by `s ← .95 x + .05 s`. It stops if
    the signal is at least `upper`, or at most `base + (.9995 - base)/(1 + exp(-slope (t - shift)))` at t ≥ 200 tokens
    of thought. Both limits keep a target risk: the mean loss on the labels plus `√(ln(1/δ)/(2n))`, δ = .1, is at most
    the target. The loss of the upper one is a wrong answer at the stop, that of the lower one a stop although the last
    answer is right. Of the limits that keep the target, the most efficient is taken.

    The definition and all numbers are those of the authors' preliminary program; the publication has other signals
    too. The target is the user's, so the labels choose it. The grids are coarser than the authors'.
    """

    upper: float
    lower: tuple[float, float, float] | None
    """Base, slope per token, and shift in tokens."""
    head: ClassVar[str] = "conformal-thinking"
    reads: ClassVar[tuple[Quantity, ...]] = (SMOOTHED,)

    @classmethod
    def fitted(cls, looks: Looks, right: Bools) -> Sequence[Self]:
        """For each target risk the most efficient limits that keep it."""
        rows, last, slack = np.arange(len(right)), looks.lengths - 1, math.sqrt(math.log(10) / (2 * len(right)))
        correct, wrong = right & looks.recorded, np.cumsum(~right, axis=1)
        first = np.where(correct.any(axis=1), correct.argmax(axis=1), looks.answers.shape[1])
        tried: list[list[tuple[float, float, Self]]] = [[], []]
        require(cls, looks, looks.before_last)
        for bound in (*(1 - 2.0 ** -np.arange(40)).tolist(), *np.arange(0, 1, 0.01).tolist()):
            rule = cls(bound, None)
            stops = first_stops(rule.holds(looks), looks)
            loss = float((~right[rows, stops]).mean())
            tried[0].append((loss, float(np.maximum(stops - first, 0).mean()), rule))
        for lower in product((-2.0, -1.5, -1.0, -0.5, 0.0), np.linspace(0, 0.01, 6).tolist(), _SHIFTS):
            rule = cls(math.inf, lower)
            stops = first_stops(rule.holds(looks), looks)
            loss = float((right[rows, last] & (stops < last)).mean())
            tried[1].append((loss, float((wrong[rows, stops] / (last + 1)).mean()), rule))
        candidates = []
        for target in _TARGETS:
            best = [min((one for one in part if one[0] + slack <= target), key=_second, default=None) for part in tried]
            if best[0] is not None or best[1] is not None:
                upper = math.inf if best[0] is None else best[0][2].upper
                candidates.append(cls(upper, None if best[1] is None else best[1][2].lower))
        return candidates

    def holds(self, looks: Looks) -> Bools:
        """Where the signal is above the one limit or below the other."""
        sure: Bools = looks.values[SMOOTHED] >= self.upper
        if self.lower is None:
            return sure
        base, slope, shift = self.lower
        limit = base + (0.9995 - base) / (1 + np.exp(np.minimum(-slope * (looks.seen - shift), 700.0)))
        hopeless: Bools = (looks.values[SMOOTHED] <= limit) & (looks.seen >= 200)
        return sure | hopeless


_SHIFTS: Final = tuple(np.linspace(0, 20000, 6).tolist())
_TARGETS: Final = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


def _second(row: tuple[float, float, object]) -> float:
    return row[1]


FITTED: Final = MappingProxyType({make.head: make for make in (Cusum, LearnStop, ConformalThinking)})
"""Name → rule that labels fit."""
