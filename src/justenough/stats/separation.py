"""How well a signal tells right from wrong: effect size, AUROC, AUROC within groups, their intervals, the verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats.estimates import RESAMPLES, Bools, Estimate, Floats

Verdict = Literal["separates", "weak", "absent", "cannot tell"]

_AT_ONCE: Final = 1_000_000
"""Counts of resampled problems held in one block: bounds the memory."""
MINIMUM_OF_EACH: Final = 10
"""Right and wrong answers, of each, below which separation cannot be told."""


def cohens_d(right: Floats, wrong: Floats) -> float | None:
    """`(mean(wrong) - mean(right)) / pooled standard deviation` (ddof 1); None with fewer than two of either, or no
    variance."""
    if len(right) < 2 or len(wrong) < 2:
        return None
    pooled = ((len(right) - 1) * right.var(ddof=1) + (len(wrong) - 1) * wrong.var(ddof=1)) / (
        len(right) + len(wrong) - 2
    )
    if pooled <= least_variance(right, wrong):
        return None
    return float((wrong.mean() - right.mean()) / math.sqrt(pooled))


def least_variance(*values: Floats) -> float:
    """A variance up to this is rounding error: it would give an effect size of 1e15."""
    return 1e-24 * max(1.0, *(float(np.abs(part).max()) for part in values)) ** 2


def auroc(right: Floats, wrong: Floats) -> float | None:
    """P(a wrong answer's value exceeds a right one's), ties half; None where either is missing."""
    if not len(right) or not len(wrong):
        return None
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate((right, wrong)))
    pairs = len(right) * len(wrong)
    return float((ranks[len(right) :].sum() - len(wrong) * (len(wrong) + 1) / 2) / pairs)


def within_groups(values: Floats, correct: Bools, groups: Sequence[str]) -> float | None:
    """AUROC over pairs of the same group only, all groups' pairs together; None where no group has both."""
    concordant, pairs = 0.0, 0
    names = np.asarray(groups)
    for group in np.unique(names):
        member = names == group
        right, wrong = values[member & correct], values[member & ~correct]
        area = auroc(right, wrong)
        if area is not None:
            concordant += area * len(right) * len(wrong)
            pairs += len(right) * len(wrong)
    return concordant / pairs if pairs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """How well a signal tells right from wrong, and the verdict on it (METHOD: definitions)."""

    cohens_d: Estimate | None
    auroc: Estimate | None
    within_groups: Estimate | None
    """None where no groups are recorded or no group has right and wrong answers."""
    verdict: Verdict
    needed: int
    """Examples still needed, at the present rates of right and wrong, where the verdict is `cannot tell`."""
    right: int
    """Number of right answers."""
    wrong: int
    """Number of wrong answers."""

    @property
    def gating_refused(self) -> bool:
        """Whether a threshold would be harmful: no separation, or a weak one that groups explain."""
        if self.verdict == "absent":
            return True
        within = self.within_groups
        return self.verdict == "weak" and within is not None and (within.low is None or within.low <= 0.60)

    @property
    def sentence(self) -> str:
        """The verdict in a few words."""
        return f"cannot tell: need {self.needed} more" if self.verdict == "cannot tell" else self.verdict


def separation(
    values: Floats,
    correct: Bools,
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Separation:
    """Cohen's d and AUROC of `values` (n,) for right against wrong, with 95 % bootstrap intervals resampled within
    class, and the verdict.

    Too few examples come first: with fewer than 10 right or 10 wrong nothing is said, for or against.
    """
    if values.shape != correct.shape or values.ndim != 1:
        raise InputError(f"{values.shape} values and {correct.shape} gradings", hint="give one grading for each value")
    if not np.isfinite(values).all():
        raise InputError("a value of the signal is no finite number", hint="leave such problems out")
    right, wrong = values[correct], values[~correct]
    d, area = cohens_d(right, wrong), auroc(right, wrong)
    grouped = groups is not None and len(set(groups)) > 1
    inside = within_groups(values, correct, groups) if groups is not None and grouped else None
    draws = _resampled(values, correct, groups if inside is not None else None, seed=seed, resamples=resamples)
    n = len(values)
    d_estimate = _estimate(d, draws[:, 0], n)
    area_estimate = _estimate(area, draws[:, 1], n)
    inside_estimate = _estimate(inside, draws[:, 2], n)
    verdict: Verdict
    needed = 0
    if min(len(right), len(wrong)) < MINIMUM_OF_EACH or area_estimate is None:
        verdict, needed = "cannot tell", _needed(len(right), len(wrong))
    elif _below(area_estimate.high, 0.60) or (d_estimate is not None and _below(d_estimate.high, 0.3)):
        # A constant signal has no d, and no number of examples would give it one.
        verdict = "absent"
    elif d_estimate is None:
        verdict, needed = "cannot tell", _needed(len(right), len(wrong))
    elif d_estimate.low is None or d_estimate.low <= 0:
        # The interval shrinks with the square root of n: so many more bring its lower limit to 0 at the present d.
        verdict = "cannot tell"
        half = d - d_estimate.low if d is not None and d_estimate.low is not None else math.inf
        # Where d is next to nothing, that number would be dust: then as many again.
        told = d is not None and half < math.inf and d > half / 100
        needed = max(1, math.ceil(n * ((half / d) ** 2 - 1))) if told and d else n
    elif d_estimate.low >= 0.5 and (not grouped or (inside_estimate is not None and _above(inside_estimate.low, 0.60))):
        # Groups that each hold right or wrong answers alone explain all of it: that is not `separates`.
        verdict = "separates"
    else:
        verdict = "weak"
    return Separation(
        cohens_d=d_estimate,
        auroc=area_estimate,
        within_groups=inside_estimate,
        verdict=verdict,
        needed=needed,
        right=len(right),
        wrong=len(wrong),
    )


def _below(limit: float | None, bound: float) -> bool:
    return limit is not None and limit < bound


def _above(limit: float | None, bound: float) -> bool:
    return limit is not None and limit > bound


def _needed(right: int, wrong: int) -> int:
    """Examples to draw until ten of the rarer kind may be expected, at its present rate."""
    rarer, n = min(right, wrong), right + wrong
    rate = max(rarer, 0.5) / max(n, 1)
    return max(1, math.ceil((MINIMUM_OF_EACH - rarer) / min(rate, 0.5)))


def _estimate(value: float | None, draws: Floats, n: int) -> Estimate | None:
    if value is None:
        return None
    usable = draws[np.isfinite(draws)]
    # An interval from a minority of the resamples would describe another statistic.
    if len(usable) < max(1, len(draws) // 2):
        return Estimate(value, None, None, n)
    low, high = np.quantile(usable, (0.025, 0.975))
    return Estimate(value, float(low), float(high), n)


def _resampled(
    values: Floats, correct: Bools, groups: Sequence[str] | None, *, seed: int, resamples: int
) -> NDArray[np.float64]:
    """d, AUROC and within-group AUROC of each resample, shape (resamples, 3), NaN where undefined."""
    order = np.argsort(values, kind="stable")
    values, correct = values[order], correct[order]
    right, wrong = np.flatnonzero(correct), np.flatnonzero(~correct)
    draws = np.full((resamples, 3), np.nan)
    if not len(right) or not len(wrong):
        return draws
    labels = np.asarray(groups)[order] if groups is not None else None
    members = [np.flatnonzero(labels == group) for group in np.unique(labels)] if labels is not None else []
    rng = np.random.default_rng(seed)
    n = len(values)
    at_once = max(1, min(100, _AT_ONCE // n))
    for start in range(0, resamples, at_once):
        block = slice(start, min(start + at_once, resamples))
        of_right, of_wrong = np.zeros((2, block.stop - start, n))
        for row in range(block.stop - start):
            of_right[row] = np.bincount(right[rng.integers(len(right), size=len(right))], minlength=n)
            of_wrong[row] = np.bincount(wrong[rng.integers(len(wrong), size=len(wrong))], minlength=n)
        draws[block, 0] = _weighted_d(values, of_right, of_wrong)
        concordant, pairs = _weighted_pairs(values, of_right, of_wrong)
        draws[block, 1] = concordant / pairs
        if members:
            sums = [_weighted_pairs(values[rows], of_right[:, rows], of_wrong[:, rows]) for rows in members]
            # Counts of pairs are whole or half numbers: their sums are exact in any order.
            concordant, pairs = np.sum([part for part, _ in sums], axis=0), np.sum([part for _, part in sums], axis=0)
            draws[block, 2] = np.divide(concordant, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
    return draws


def _weighted_d(values: Floats, of_right: Floats, of_wrong: Floats) -> Floats:
    """Cohen's d of each row of counts (m, n), shape (m,); NaN where it is undefined."""
    n_right, n_wrong = of_right.sum(axis=1), of_wrong.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_right, mean_wrong = of_right @ values / n_right, of_wrong @ values / n_wrong
        squares = (of_right * (values - mean_right[:, None]) ** 2).sum(axis=1)
        squares += (of_wrong * (values - mean_wrong[:, None]) ** 2).sum(axis=1)
        pooled = squares / (n_right + n_wrong - 2)
        d = (mean_wrong - mean_right) / np.sqrt(pooled)
    defined = (n_right >= 2) & (n_wrong >= 2) & (pooled > least_variance(values))
    made: Floats = np.where(defined, d, np.nan)
    return made


def _weighted_pairs(values: Floats, of_right: Floats, of_wrong: Floats) -> tuple[Floats, Floats]:
    """Concordant pairs (ties half) and all pairs of each row of counts (m, n), shapes (m,); `values` ascending."""
    below = np.cumsum(of_right, axis=1) - of_right
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.empty(0, dtype=np.int64)
    tied_right, tied_wrong = of_right, of_wrong
    if len(starts) < len(values):
        tied_right = np.add.reduceat(of_right, starts, axis=1)
        tied_wrong = np.add.reduceat(of_wrong, starts, axis=1)
        below = below[:, starts]
    concordant: Floats = (tied_wrong * (below + tied_right / 2)).sum(axis=1)
    pairs: Floats = of_right.sum(axis=1) * of_wrong.sum(axis=1)
    return concordant, pairs
