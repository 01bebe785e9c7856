"""The verdict on how well a signal tells right from wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from justenough.errors import InputError
from justenough.stats.estimates import Bools, Estimate, Floats
from justenough.stats.intervals import COMPARABLE, auroc_interval, comparable, effect_interval, within_interval
from justenough.stats.text import spread

Verdict = Literal["separates", "weak", "absent", "cannot tell"]

MINIMUM_OF_EACH: Final = 10
"""Right and wrong answers, of each, below which separation cannot be told."""
LEAST_AREA: Final = 0.60
"""An AUROC whose interval is below it shows no separation; one within groups must be above it for `separates`."""
LEAST_EFFECT: Final = 0.3
"""A Cohen's d whose interval is below it shows no separation."""
CLEAR_EFFECT: Final = 0.5
"""The interval of Cohen's d must reach it for `separates`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """How well a signal tells right from wrong, and the verdict on it (METHOD: definitions)."""

    cohens_d: Estimate | None
    auroc: Estimate | None
    within_groups: Estimate | None
    """None where no groups are recorded, or with fewer than 10 answers that can be compared within groups."""
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
        return self.verdict == "weak" and within is not None and not _above(within, LEAST_AREA)

    @property
    def shortfall(self) -> str | None:
        """Which figures miss their limits, and how many examples would pass; None for other verdicts than no."""
        d, area, within = self.cohens_d, self.auroc, self.within_groups
        if self.verdict == "absent":
            figures = (("AUROC", area, LEAST_AREA), ("d", d, LEAST_EFFECT))
            missed = [
                f"the interval of {name}, {spread(one, digits=3)}, is below {limit}"
                for name, one, limit in figures
                if one is not None and _below(one.high, limit)
            ]
            return " and ".join(missed) or "the signal is the same for all examples"
        if self.verdict != "weak":
            return None
        figures = (("d", d, CLEAR_EFFECT), ("AUROC within groups", within, LEAST_AREA))
        return " and ".join(
            f"the interval of {name}, {spread(one, digits=3)}, must be above {limit} ({self._remedy(one, limit)})"
            for name, one, limit in figures
            if one is not None and not _above(one, limit)
        )

    def _remedy(self, figure: Estimate, limit: float) -> str:
        """How many examples bring the interval above a limit; it shrinks with the square root of their number."""
        if figure.low is None or figure.value <= limit:
            return "the figure itself is not above it" if figure.value <= limit else "more examples would tell"
        n = self.right + self.wrong
        enough = math.ceil(n * ((figure.value - figure.low) / (figure.value - limit)) ** 2) + 1
        return f"about {enough} examples instead of {n} would pass, if the figure stays"

    @property
    def sentence(self) -> str:
        """The verdict in a few words."""
        return f"cannot tell: need {self.needed} more" if self.verdict == "cannot tell" else self.verdict


def separation(
    values: Floats,
    correct: Bools,
    *,
    groups: Sequence[str] | None = None,
    problems: Sequence[str] | None = None,
) -> Separation:
    """Cohen's d and AUROC of `values` (n,) for right against wrong, with 95 % intervals, and the verdict.

    `problems` names the problem of each value where some are repeated. With fewer than 10 right or 10 wrong answers the
    verdict is `cannot tell`. With groups, `separates` becomes `cannot tell` if fewer than 10 answers can be
    compared within groups.
    """
    if values.shape != correct.shape or values.ndim != 1:
        raise InputError(f"{values.shape} values and {correct.shape} gradings", hint="give one grading for each value")
    if not np.isfinite(values).all():
        raise InputError("a value of the signal is no finite number", hint="leave such problems out")
    n, right = len(values), int(correct.sum())
    d = effect_interval(values, correct, problems=problems)
    area = auroc_interval(values, correct, problems=problems)
    grouped = groups is not None and len(set(groups)) > 1
    inside = within_interval(values, correct, groups, problems=problems) if groups is not None and grouped else None
    verdict: Verdict
    needed = 0
    if min(right, n - right) < MINIMUM_OF_EACH or area is None:
        verdict, needed = "cannot tell", _needed(right, n - right)
    elif np.ptp(values) == 0 or _below(area.high, LEAST_AREA) or (d is not None and _below(d.high, LEAST_EFFECT)):
        # A constant signal has no d, and no number of examples would give it one.
        verdict = "absent"
    elif d is None:
        verdict, needed = "cannot tell", _needed(right, n - right)
    elif d.low is None or d.low <= 0:
        # The interval shrinks with the square root of n: so many more bring its lower limit to 0 at the present d.
        verdict = "cannot tell"
        half = d.value - d.low if d.low is not None else math.inf
        # For a d near 0 that number would have no meaning: then as many again.
        needed = max(1, math.ceil(n * ((half / d.value) ** 2 - 1))) if d.value > half / 100 else n
    elif d.low < CLEAR_EFFECT:
        verdict = "weak"
    elif groups is not None and grouped and inside is None:
        verdict = "cannot tell"
        needed = math.ceil(n * (COMPARABLE / max(comparable(correct, groups), 1) - 1))
    else:
        verdict = "separates" if inside is None or _above(inside, LEAST_AREA) else "weak"
    return Separation(
        cohens_d=d, auroc=area, within_groups=inside, verdict=verdict, needed=needed, right=right, wrong=n - right
    )


def _below(limit: float | None, bound: float) -> bool:
    return limit is not None and limit < bound


def _above(figure: Estimate, bound: float) -> bool:
    return figure.low is not None and figure.low > bound


def _needed(right: int, wrong: int) -> int:
    """Further examples until ten of the rarer kind are expected, at its present rate."""
    rarer, n = min(right, wrong), right + wrong
    rate = max(rarer, 0.5) / max(n, 1)
    return max(1, math.ceil((MINIMUM_OF_EACH - rarer) / min(rate, 0.5)))
