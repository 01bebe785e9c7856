"""The paired change of accuracy: Tango's score, its interval, and the verdict of non-inferiority."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from justenough.errors import InputError
from justenough.stats.estimates import Bools, Estimate, Floats, Z


class NonInferiority(NamedTuple):
    """A verdict at a margin, with the one-sided 97.5 % lower limit of the change in accuracy."""

    verdict: Literal["non-inferior", "inferior", "inconclusive"]
    margin: float
    """Largest loss of accuracy that counts as non-inferior, as a fraction."""
    low: float
    """Lower limit of the change in accuracy."""
    high: float
    """Upper limit of the change in accuracy."""


def tango_score(gained: float, lost: float, n: int, change: float) -> float:
    """Tango's score for the hypothesis that a paired difference of proportions is `change` (Tango 1998, eq. 3–7).

    `gained` and `lost` count the discordant pairs; about standard normal under the hypothesis.
    """
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * change
    c = -lost * change * (1 - change)
    p_lost = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * p_lost + change * (1 - change))
    distance = gained - lost - n * change
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def tango_interval(gained: float, lost: float, n: int) -> tuple[float, float]:
    """Tango's score interval of (gained - lost) / n from the discordant pairs of n (Statistics in Medicine 1998).

    It holds the changes that the score test at 2.5 % a side does not reject. Without a discordant pair it still has a
    width.
    """
    from scipy.optimize import brentq

    observed, edge = (gained - lost) / n, 1 - 1e-9

    def limit(side: float) -> float:
        if side * observed >= edge:
            return side
        return float(brentq(lambda change: tango_score(gained, lost, n, change) + side * Z, observed, side * edge))

    return limit(-1.0), limit(1.0)


def problems_needed(gained: float, lost: float, n: int, *, margin: float) -> int | None:
    """How many problems bring the lower limit of `tango_interval` to -`margin`, at the rates of these n.

    None if no number does. At constant rates the score grows with the square root of n.
    """
    score = tango_score(gained, lost, n, -margin)
    return math.ceil(n * (Z / score) ** 2) if score > 0 else None


def change_interval(candidate: Bools | Floats, reference: Bools, *, problems: Sequence[str] | None = None) -> Estimate:
    """Accuracy of `candidate` minus that of `reference` (n,), paired, with Tango's interval.

    With `problems`, each problem counts once, as the mean of its runs. This is the interval of one run of each problem:
    a little too wide where runs of a problem differ.
    """
    if candidate.shape != reference.shape or not len(candidate):
        raise InputError(f"{candidate.shape} and {reference.shape} gradings", hint="give one of each for each problem")
    gained, lost, n = discordant(candidate, reference, problems=problems)
    low, high = tango_interval(gained, lost, n)
    return Estimate((gained - lost) / n, low, high, n)


def discordant(
    candidate: Bools | Floats, reference: Bools, *, problems: Sequence[str] | None = None
) -> tuple[float, float, int]:
    """Pairs that only `candidate` has right, pairs that only `reference` has right, and how many problems there are.

    Each problem counts once: of several runs, each counts as a fraction. `candidate` may hold shares of draws with a
    right answer; the counts are then the expected ones of one draw for each problem.
    """
    weight: Floats = np.ones(len(candidate))
    if problems is not None:
        _, member, runs = np.unique(np.asarray(problems), return_inverse=True, return_counts=True)
        weight = 1 / runs[member]
    gained, lost = (weight * candidate)[~reference].sum(), (weight * (1 - candidate))[reference].sum()
    return float(gained), float(lost), round(float(weight.sum()))


def non_inferiority(
    candidate: Bools | Floats, reference: Bools, *, margin: float = 0.01, problems: Sequence[str] | None = None
) -> NonInferiority:
    """Whether `candidate` is right less often than `reference` by more than `margin`: paired score test, 2.5 %.

    The verdict agrees with `change_interval`, whose limits it shows. `problems` names the problem of each pair where
    some are repeated.
    """
    if not 0 < margin < 1:
        raise InputError(f"margin {margin} is outside 0 to 1", hint="a fraction: 0.01 is one point")
    if not len(candidate):
        raise InputError("there is no problem to compare on", hint="give traces")
    gained, lost, n = discordant(candidate, reference, problems=problems)
    low, high = tango_interval(gained, lost, n)
    score = tango_score(gained, lost, n, -margin)
    verdict: Literal["non-inferior", "inferior", "inconclusive"] = "inconclusive"
    if score >= Z:
        verdict = "non-inferior"
    elif score <= -Z:
        verdict = "inferior"
    return NonInferiority(verdict, margin, low, high)
