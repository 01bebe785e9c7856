"""Effect sizes of a signal, wrong answers against right ones: Cohen's d, AUROC, and AUROC within groups."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from justenough.stats.estimates import Bools, Floats


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
    return float(below(right, wrong).sum() / (len(right) * len(wrong))) if len(right) and len(wrong) else None


def below(values: Floats, limits: Floats) -> Floats:
    """How many of the values (n,) are below each limit (m,), ties half."""
    ordered = np.sort(values)
    counts: Floats = (np.searchsorted(ordered, limits, "left") + np.searchsorted(ordered, limits, "right")) / 2
    return counts


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
