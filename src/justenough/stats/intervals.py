"""The 95 % intervals of Cohen's d and of an AUROC.

Runs of the same problem are not independent. Give the problem of each row where a file holds repeats: the number of
problems, not the number of runs, then decides the width. `tests/guarantees/test_intervals.py` measures the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from justenough.errors import InputError
from justenough.stats.effects import below, cohens_d, within_groups
from justenough.stats.estimates import Bools, Estimate, Floats, Z

COMPARABLE: Final = 10
"""Comparable answers below which a within-group AUROC cannot tell."""


def effect_interval(values: Floats, correct: Bools, *, problems: Sequence[str] | None = None) -> Estimate | None:
    """Cohen's d of `values` (n,), wrong against right, with the interval of the non-central t distribution.

    The standard error of the difference of means is the pooled one, or the one of unequal variances and repeated
    problems where that is greater. None where d is not defined.
    """
    right, wrong = values[correct], values[~correct]
    d = cohens_d(right, wrong)
    if d is None:
        return None
    problems = _repeated(problems, len(values))
    freedom = len(values) - 2
    spreads = float(right.var(ddof=1)), float(wrong.var(ddof=1))
    pooled = ((len(right) - 1) * spreads[0] + (len(wrong) - 1) * spreads[1]) / freedom
    variance = max(pooled * (1 / len(right) + 1 / len(wrong)), spreads[0] / len(right) + spreads[1] / len(wrong))
    if problems is not None:
        influence = np.where(correct, -(values - right.mean()) / len(right), (values - wrong.mean()) / len(wrong))
        variance = max(variance, _sum_of_squares(influence, problems))
        freedom = max(1, len(set(problems)) - 2)
    scale = math.sqrt(variance / pooled)
    low, high = noncentrality(d / scale, freedom)
    return Estimate(d, low * scale, high * scale, len(values))


def noncentrality(t: float, freedom: int) -> tuple[float, float]:
    """The 95 % interval of the non-centrality of a t distribution with `freedom` degrees, of which `t` is one draw."""
    from scipy.special import gammaincinv, nctdtr

    # The normal approximation gives the start of the search, and its error is a small part of this width.
    centre, width = t * (1 - 1 / (4 * freedom)), math.sqrt(1 + t * t / (2 * freedom))
    if width > 1000:
        # All of the spread is that of the standard deviation, and the distribution function would lose its digits.
        ends = [t * math.sqrt(2 * float(gammaincinv(freedom / 2, chance)) / freedom) for chance in (0.025, 0.975)]
        return min(ends), max(ends)

    def solve(chance: float, start: float) -> float:
        return _root(lambda nc: chance - float(nctdtr(freedom, nc, t)), start, width / 8)

    return solve(0.975, centre - Z * width), solve(0.025, centre + Z * width)


def _root(rising: Callable[[float], float], start: float, step: float) -> float:
    """The zero of a rising function; the search begins at `start`."""
    from scipy.optimize import brentq

    low = high = start
    while rising(low) > 0:
        low -= step
    while rising(high) < 0:
        high += step
    return low if low == high else float(brentq(rising, low, high, xtol=1e-6 * max(1.0, step)))


def auroc_interval(
    values: Floats, correct: Bools, *, groups: Sequence[str] | None = None, problems: Sequence[str] | None = None
) -> Estimate | None:
    """P(a wrong answer's value exceeds a right one's) with DeLong's interval on the logit scale; None with one class.

    The quantile is Student's t, because the rarer class may have few answers. With `groups` only pairs of the same
    group are compared. Repeated problems are one unit of the variance. Where the AUROC is 0 or 1 or its variance 0, the
    interval is Newcombe's score interval (method 5, Statistics in Medicine 2006) with the problems of each class.
    """
    from scipy.special import expit, stdtrit

    names = ["" for _ in values] if groups is None else groups
    area = within_groups(values, correct, names)
    if area is None:
        return None
    problems = _repeated(problems, len(values))
    influence, used = _influence(values, correct, names, area)
    of_right, of_wrong = (_count(used & kind, problems) for kind in (correct, ~correct))
    if problems is None:
        # Exactly DeLong's variance where there is one group; degrees of freedom as of a mean with unequal variances.
        parts = [
            float((influence[kind] ** 2).sum()) * of / max(of - 1, 1)
            for kind, of in ((correct, of_right), (~correct, of_wrong))
        ]
        variance = sum(parts)
        share = parts[0] ** 2 / max(of_right - 1, 1) + parts[1] ** 2 / max(of_wrong - 1, 1)
        freedom = variance**2 / share if share > 0 else 1.0
    else:
        variance, freedom = _sum_of_squares(influence, problems), float(max(1, len(set(problems)) - 1))
    if not 0 < area < 1 or variance <= 1e-18 or min(of_right, of_wrong) < 2:
        low, high = _newcombe(area, of_right, of_wrong)
    else:
        middle = math.log(area / (1 - area))
        half = float(stdtrit(freedom, 0.975)) * math.sqrt(variance) / (area * (1 - area))
        low, high = float(expit(middle - half)), float(expit(middle + half))
    return Estimate(area, low, high, len(values))


def _influence(values: Floats, correct: Bools, groups: Sequence[str], area: float) -> tuple[Floats, Bools]:
    """By how much each row moves the AUROC (n,), and which rows are in a group with both classes."""
    influence, used = np.zeros(len(values)), np.zeros(len(values), dtype=bool)
    pairs = 0
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    for group in range(int(member.max()) + 1):
        right, wrong = np.flatnonzero((member == group) & correct), np.flatnonzero((member == group) & ~correct)
        if not len(right) or not len(wrong):
            continue
        influence[wrong] = below(values[right], values[wrong]) - len(right) * area
        influence[right] = len(wrong) - below(values[wrong], values[right]) - len(wrong) * area
        used[right] = used[wrong] = True
        pairs += len(right) * len(wrong)
    return influence / pairs, used


def _count(rows: Bools, problems: Sequence[str] | None) -> int:
    return int(rows.sum()) if problems is None else len(np.unique(np.asarray(problems)[rows]))


def _repeated(problems: Sequence[str] | None, rows: int) -> Sequence[str] | None:
    """The problem of each row; None where no problem has two rows."""
    if problems is not None and len(problems) != rows:
        raise InputError(f"{len(problems)} problems for {rows} rows", hint="give the problem of each row")
    return problems if problems is not None and len(set(problems)) < rows else None


def _sum_of_squares(influence: Floats, problems: Sequence[str]) -> float:
    """Cluster-robust variance of a sum: squares of the problems' sums, with the usual correction of few problems."""
    _, member = np.unique(np.asarray(problems), return_inverse=True)
    sums = np.bincount(member, weights=influence)
    return float((sums**2).sum()) * len(sums) / max(len(sums) - 1, 1)


def _newcombe(area: float, right: int, wrong: int) -> tuple[float, float]:
    """The two areas that are 1.96 of their own standard errors away from the observed one."""
    from scipy.optimize import brentq

    more = (right + wrong) / 2 - 1

    def excess(true: float) -> float:
        spread = 1 + more * (1 - true) / (2 - true) + more * true / (1 + true)
        return (true - area) ** 2 - Z**2 * true * (1 - true) * spread / (right * wrong)

    # At the observed area the excess is not positive, at 0 and 1 it is not negative.
    low = 0.0 if area <= 0 else float(brentq(excess, 0.0, area - 1e-12))
    high = 1.0 if area >= 1 else float(brentq(excess, area + 1e-12, 1.0))
    return low, high


def comparable(correct: Bools, groups: Sequence[str]) -> int:
    """The sum over groups of the rarer of right and wrong answers."""
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    right, wrong = (
        np.bincount(member[kind], minlength=int(member.max(initial=-1)) + 1) for kind in (correct, ~correct)
    )
    return int(np.minimum(right, wrong).sum())


def within_interval(
    values: Floats, correct: Bools, groups: Sequence[str], *, problems: Sequence[str] | None = None
) -> Estimate | None:
    """The AUROC over pairs of the same group; None with fewer than 10 comparable answers, which cannot tell.

    With a handful of pairs the interval may be narrow by luck. Then a signal that only groups explain would pass.
    """
    if comparable(correct, groups) < COMPARABLE:
        return None
    return auroc_interval(values, correct, groups=groups, problems=problems)
