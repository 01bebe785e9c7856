"""Thresholds fitted on one task, model or size and applied to another: what that costs against fitting anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from benchmarks.recorded.data import PAPERS, Curve, Floats, Records, fit, pair_table
from benchmarks.recorded.pairs import Pair
from justenough.evaluation import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One method between k sources and targets; `[i, j]` is fitted on i and applied to j."""

    names: tuple[str, ...]
    thresholds: Floats
    """(k,): NaN where the source has none; the gate then never stops."""
    change: Floats
    """(k, k): accuracy against step 2 for all."""
    saving: Floats
    """(k, k): tokens against step 2 alone."""
    stopped: Floats
    """(k, k)"""


class Summary(NamedTuple):
    """Off the diagonal, against the target's own threshold."""

    refused: int
    """Sources without a threshold."""
    misses: float
    """Mean absolute difference in accuracy."""
    misses_ci: tuple[float, float]
    """95 %, resampling sources and targets."""
    worst_loss: float
    """The largest further loss of accuracy."""
    over_a_point: float
    """Share of transfers that lose a point or more beside the target's own threshold."""
    stopped_off: float
    """Mean absolute difference in the share stopped."""
    excess_change: float
    """Mean signed difference in accuracy: below 0, transferred thresholds cost accuracy."""


def transfer(tables: Mapping[str, Table], method: str) -> Transfer:
    """Fit on each, apply to each."""
    names = tuple(tables)
    curves = [Curve.of(table) for table in tables.values()]
    thresholds = [fit(method, table.examples()).threshold for table in tables.values()]
    cells = [[curve.at(threshold) for curve in curves] for threshold in thresholds]
    return Transfer(
        names=names,
        thresholds=np.array([np.nan if value is None else value for value in thresholds]),
        change=np.array([[cell.change for cell in row] for row in cells]),
        saving=np.array([[cell.saving_vs_last for cell in row] for row in cells]),
        stopped=np.array([[cell.stopped for cell in row] for row in cells]),
    )


def _off_diagonal(made: Transfer) -> tuple[Floats, Floats]:
    """Difference in accuracy and in the share stopped against each target's own threshold, shape (k, k), NaN where
    source or target has no threshold of its own or both are one."""
    change = made.change - np.diag(made.change)[None, :]
    stopped = made.stopped - np.diag(made.stopped)[None, :]
    fitted = np.isfinite(made.thresholds)
    blank = ~(fitted[:, None] & fitted[None, :]) | np.eye(len(made.names), dtype=bool)
    return np.where(blank, np.nan, change), np.where(blank, np.nan, stopped)


def summary(made: Transfer, *, resamples: int = 1000, seed: int = 0) -> Summary | None:
    """The transfers in a few figures; None where none is possible."""
    change, stopped = _off_diagonal(made)
    if not np.isfinite(change).any():
        return None
    misses = np.abs(change)
    draws = _resampled(misses, resamples=resamples, seed=seed)
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return Summary(
        refused=int(np.isnan(made.thresholds).sum()),
        misses=float(np.nanmean(misses)),
        misses_ci=(float(low), float(high)),
        worst_loss=float(-np.nanmin(change)),
        over_a_point=float((change[np.isfinite(change)] <= -0.01).mean()),
        stopped_off=float(np.nanmean(np.abs(stopped))),
        excess_change=float(np.nanmean(change)),
    )


def _resampled(values: Floats, *, resamples: int, seed: int) -> Floats:
    """Means over resampled rows and columns, the same draw for both: the unit is the model or task."""
    rng = np.random.default_rng(seed)
    k = len(values)
    draws = np.full(resamples, np.nan)
    for number in range(resamples):
        chosen = rng.integers(k, size=k)
        part = values[np.ix_(chosen, chosen)]
        if np.isfinite(part).any():
            draws[number] = np.nanmean(part)
    return draws


def compared(first: Transfer, second: Transfer, *, resamples: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """How much farther off `first` is than `second`: mean difference of the misses with a 95 % interval, on the
    transfers that both can make."""
    differences = np.abs(_off_diagonal(first)[0]) - np.abs(_off_diagonal(second)[0])
    if not np.isfinite(differences).any():
        return float("nan"), float("nan"), float("nan")
    draws = _resampled(differences, resamples=resamples, seed=seed)
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return float(np.nanmean(differences)), float(low), float(high)


def by_category(table: Table) -> dict[str, Table]:
    """A pair's table split by category."""
    groups = np.array(table.groups or ["all"] * len(table))
    return {str(group).removeprefix("/"): table.rows(groups == group) for group in np.unique(groups)}


def over_pairs(records: Records, chosen: Sequence[Pair]) -> dict[str, Table]:
    """Pairs by the name of their first model; a model without any signal is left out."""
    tables = {pair.first: pair_table(records, *pair) for pair in chosen}
    return {name: table for name, table in tables.items() if np.isfinite(table.bits[:, 0]).any()}


def all_methods(tables: Mapping[str, Table]) -> dict[str, Transfer]:
    """The paper's four."""
    return {method: transfer(tables, method) for method in PAPERS}


def information(table: Table) -> dict[str, float | None]:
    """Mutual information, in bits, of stopping and being right at each method's threshold, as a share of the most that
    any threshold reaches."""
    bits, right = table.bits[:, 0], table.correct[:, 0]
    usable = np.isfinite(bits)
    bits, right = bits[usable], right[usable]
    order = np.argsort(bits, kind="stable")
    most = max(_mutual(right[order], count) for count in range(1, len(bits)))
    found: dict[str, float | None] = {}
    for method in PAPERS:
        threshold = fit(method, table.examples()).threshold
        count = None if threshold is None else int((bits <= threshold).sum())
        found[method] = None if count is None or most <= 0 else _mutual(right[order], count) / most
    return found


def _mutual(right: np.ndarray[tuple[int], np.dtype[np.bool_]], count: int) -> float:
    """Mutual information, in bits, of standing among the first `count` and being right."""
    n, total = len(right), int(right.sum())
    inside = int(right[:count].sum())
    joint = np.array([[inside, count - inside], [total - inside, n - count - total + inside]]) / n
    expected = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    positive = joint > 0
    return float((joint[positive] * np.log2(joint[positive] / expected[positive])).sum())
