"""How many labels a threshold needs: its spread over draws of n examples, and its equivalence with all data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from benchmarks.recorded.data import Curve, Floats, fit
from justenough.evaluation import Table
from justenough.stats import cohens_d

SIZES: Final = (5, 10, 20, 50, 100, 300)
ACCURACY_MARGIN: Final = 0.01
"""One point."""
SIGNAL_MARGIN: Final = 0.2
"""In pooled standard deviations of the signal: a small effect in Cohen's terms."""


class Spread(NamedTuple):
    """Mean, 5th and 95th percentile."""

    mean: float
    p5: float
    p95: float


class Equivalence(NamedTuple):
    """Two one-sided tests of a calibration against the one from all data, based on the spread of its draws."""

    margin: float
    p: float
    """The larger one-sided p-value; the calibrations are equivalent if it is at most .05."""
    needed_margin: float
    """The smallest margin at which they would be equivalent."""

    @property
    def equivalent(self) -> bool:
        """Whether they are equivalent at the 5 % level."""
        return self.p <= 0.05


class Size(NamedTuple):
    """The results of a method at one number of labels."""

    n: int
    refused: float
    """Share of draws without a threshold; the gate then never stops."""
    threshold: Spread | None
    saving: Spread
    """Against step 2 alone."""
    change: Spread
    signal: Equivalence | None
    """Equivalence of the threshold; None if fewer than half of the draws have one, or if all data give none."""
    accuracy: Equivalence


def equivalence(differences: Floats, margin: float) -> Equivalence:
    """Whether the differences (draws,) stay within ±margin. Each side is tested at 5 %, that is on the 5–95 % range."""
    p = max(float((differences <= -margin).mean()), float((differences >= margin).mean()))
    low, high = np.quantile(differences, (0.05, 0.95))
    return Equivalence(margin, p, max(0.0, float(-low), float(high)))


def _spread(values: Floats) -> Spread:
    low, high = np.quantile(values, (0.05, 0.95))
    return Spread(float(values.mean()), float(low), float(high))


def sizes(
    table: Table, method: str, *, draws: int, ns: Sequence[int] = SIZES, seed: int = 0
) -> tuple[float | None, list[Size]]:
    """The threshold from all data, and the thresholds from fewer; each draw is evaluated on the other problems."""
    whole = fit(method, table.examples()).threshold
    curve = Curve.of(table)
    usable = np.flatnonzero(np.isfinite(table.bits[:, 0]))
    right = table.correct[usable, 0]
    d = cohens_d(table.bits[usable, 0][right], table.bits[usable, 0][~right])
    gap = float(table.bits[usable, 0][~right].mean() - table.bits[usable, 0][right].mean())
    pooled = abs(gap / d) if d else float(table.bits[usable, 0].std(ddof=1))
    rows = []
    for n in ns:
        if n >= len(usable):
            continue
        thresholds, savings, changes, missed = np.full(draws, np.nan), np.zeros(draws), np.zeros(draws), np.zeros(draws)
        for number in range(draws):
            drawn = np.random.default_rng((seed, n, number)).choice(usable, size=n, replace=False)
            part = table.rows(drawn)
            threshold = fit(method, part.examples()).threshold
            thresholds[number] = np.nan if threshold is None else threshold
            savings[number], changes[number] = _others(curve, table, part, threshold)
            missed[number] = changes[number] - _others(curve, table, part, whole)[1]
        has = np.isfinite(thresholds)
        rows.append(
            Size(
                n=n,
                refused=float(1 - has.mean()),
                threshold=_spread(thresholds[has]) if has.any() else None,
                saving=_spread(savings),
                change=_spread(changes),
                signal=equivalence(thresholds[has] - whole, SIGNAL_MARGIN * pooled)
                if whole is not None and has.mean() >= 0.5
                else None,
                accuracy=equivalence(missed, ACCURACY_MARGIN),
            )
        )
    return whole, rows


def _others(curve: Curve, table: Table, drawn: Table, threshold: float | None) -> tuple[float, float]:
    """Saving against step 2 alone and change in accuracy on the problems that were not drawn."""
    at = curve.at(threshold)
    with np.errstate(invalid="ignore"):
        stops = np.zeros(len(drawn), dtype=bool) if threshold is None else drawn.bits[:, 0] <= threshold
    change = at.change * curve.n - float((drawn.correct[:, 0].astype(float) - drawn.correct[:, -1])[stops].sum())
    last = curve.last_tokens - float(drawn.last_only.sum())
    net = at.saving_vs_last * curve.last_tokens - (float(drawn.last_only[stops].sum()) - float(drawn.spent[:, 0].sum()))
    return net / last, change / (curve.n - len(drawn))
