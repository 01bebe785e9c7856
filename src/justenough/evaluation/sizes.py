"""How many labels a threshold needs: its figures over many draws of each number of labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from justenough.calibration.thresholds import Method
from justenough.evaluation.draws import Spread, spread_of
from justenough.evaluation.figures import Outcomes, gate_outcomes, saving_and_change
from justenough.evaluation.table import Table
from justenough.gate import GateSettings

SIZES: Final = (5, 10, 20, 50, 100, 300)
DRAWS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """A method at one number of labels, over draws; each draw is tested on the problems that are not in it."""

    n: int
    draws: int
    threshold: Spread | None
    """Over the draws that have a threshold."""
    saving: Spread
    """In tokens, against all steps."""
    accuracy_change: Spread
    none: float
    """Share of draws without a threshold, which never stop."""


def calibration_sizes(
    table: Table, method: Method, settings: GateSettings, *, draws: int = DRAWS, seed: int = 0
) -> tuple[Sized, ...]:
    """The method at each size that leaves at least as many problems to test it on.

    Each draw's threshold is compared with the threshold of all problems, on the problems that the draw left out.
    Without this comparison the choice of these problems would widen the spread.
    """
    usable = np.flatnonzero(np.isfinite(table.bits[:, 0]))
    if not len(usable):
        return ()

    def gated(threshold: float | None) -> Outcomes:
        return gate_outcomes(table, replace(settings, threshold=threshold))

    whole = gated(method.fit(table.examples()).threshold)
    saved, changed = saving_and_change(table, whole)
    sizes: list[Sized] = []
    for n in SIZES:
        if 2 * n > len(usable):
            break
        thresholds: list[float] = []
        savings, changes = np.zeros(draws), np.zeros(draws)
        for number in range(draws):
            drawn = np.random.default_rng((seed, n, number)).choice(usable, size=n, replace=False)
            threshold = method.fit(table.examples(drawn)).threshold
            if threshold is not None:
                thresholds.append(threshold)
            others = np.ones(len(table), dtype=bool)
            others[drawn] = False
            here = saving_and_change(table, gated(threshold), others)
            there = saving_and_change(table, whole, others)
            savings[number] = saved + here[0] - there[0]
            changes[number] = changed + here[1] - there[1]
        sizes.append(
            Sized(
                n=n,
                draws=draws,
                threshold=spread_of(np.array(thresholds)) if thresholds else None,
                saving=spread_of(savings),
                accuracy_change=spread_of(changes),
                none=1 - len(thresholds) / draws,
            )
        )
    return tuple(sizes)
