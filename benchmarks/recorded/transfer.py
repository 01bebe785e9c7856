"""The cost of applying a threshold to another task, model or size, compared with fitting it there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from benchmarks.recorded import information
from benchmarks.recorded.data import PAPERS, Curve, Floats, Records, fit, pair_table
from benchmarks.recorded.pairs import STUDIED, Pair, pairs
from benchmarks.recorded.show import table as show_table
from justenough.evaluation import Table
from justenough.stats import Estimate, paired_bootstrap
from justenough.stats.text import percent, points

STRONG: Final = "Qwen3-30B-A3B-think"
"""The step 2 that every model shares in the transfer between models."""
_SIZE: Final = re.compile(r"(?<![0-9A-Za-z.])(?:\d+x)?\d+(?:\.\d+)?[bB](?:-A\d+B)?|(?<=Phi-3-)(?:mini|medium)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One method between k sources and targets; `[i, j]` is fitted on i and applied to j."""

    names: tuple[str, ...]
    thresholds: Floats
    """(k,): NaN if the source has none; then the gate never stops."""
    change: Floats
    """(k, k): accuracy against step 2 for all."""
    saving: Floats
    """(k, k): tokens against step 2 alone."""
    stopped: Floats
    """(k, k)"""


class Summary(NamedTuple):
    """The transfers to another target, compared with the target's own threshold."""

    refused: int
    """Sources without a threshold."""
    misses: float
    """Mean absolute difference in accuracy."""
    misses_ci: tuple[float, float]
    """95 %, resampling sources and targets."""
    worst_loss: float
    """The largest further loss of accuracy."""
    over_a_point: float
    """Share of transfers that lose a point or more against the target's own threshold."""
    stopped_off: float
    """Mean absolute difference in the share stopped."""
    excess_change: float
    """Mean signed difference in accuracy; below 0, transferred thresholds cost accuracy."""


def transfer(tables: Mapping[str, Table], method: str) -> Transfer:
    """Fit on each set and apply to each set."""
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


def _off_diagonal(grid: Transfer) -> tuple[Floats, Floats]:
    """Difference in accuracy and in the stopped share from each target's own threshold, shape (k, k). NaN if source or
    target has no threshold, and on the diagonal."""
    change = grid.change - np.diag(grid.change)[None, :]
    stopped = grid.stopped - np.diag(grid.stopped)[None, :]
    fitted = np.isfinite(grid.thresholds)
    blank = ~(fitted[:, None] & fitted[None, :]) | np.eye(len(grid.names), dtype=bool)
    return np.where(blank, np.nan, change), np.where(blank, np.nan, stopped)


def summary(grid: Transfer, *, resamples: int = 1000, seed: int = 0) -> Summary | None:
    """The transfers in a few figures; None if no transfer is possible."""
    change, stopped = _off_diagonal(grid)
    if not np.isfinite(change).any():
        return None
    misses = np.abs(change)
    draws = _resampled(misses, resamples=resamples, seed=seed)
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return Summary(
        refused=int(np.isnan(grid.thresholds).sum()),
        misses=float(np.nanmean(misses)),
        misses_ci=(float(low), float(high)),
        worst_loss=float(-np.nanmin(change)),
        over_a_point=float((change[np.isfinite(change)] <= -0.01).mean()),
        stopped_off=float(np.nanmean(np.abs(stopped))),
        excess_change=float(np.nanmean(change)),
    )


def _resampled(values: Floats, *, resamples: int, seed: int) -> Floats:
    """Means over resampled rows and columns with the same draw for both; the unit is the model or task."""
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
    """How much larger the error of `first` is than that of `second`: mean difference with a 95 % interval, on the
    transfers that both allow."""
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
    """Tables of pairs by the name of the first model; models without any signal are left out."""
    tables = {pair.first: pair_table(records, *pair) for pair in chosen}
    return {name: table for name, table in tables.items() if np.isfinite(table.bits[:, 0]).any()}


def all_methods(tables: Mapping[str, Table]) -> dict[str, Transfer]:
    """The transfers of the paper's four methods."""
    return {method: transfer(tables, method) for method in PAPERS}


class Across(NamedTuple):
    """One method over several sets, with transfers within each set; intervals resample the sets."""

    sets: int
    transfers: int
    refused: float
    """Share of sources without a threshold."""
    misses: Estimate
    """Mean over the sets of the mean absolute difference in accuracy."""
    net: Estimate
    """The same with its sign; below 0, transferred thresholds cost accuracy."""
    against_mean: Estimate
    """How much larger the errors are than those of the entropy mean, on the transfers that both allow."""


def across(grids: Sequence[Mapping[str, Transfer]], method: str, *, resamples: int = 1000) -> Across | None:
    """The figures over the sets in which the method allows a transfer; None if there is none."""
    rows: list[tuple[float, float, float]] = []
    transfers, sources, refused = 0, 0, 0
    for grid in grids:
        change, base = _off_diagonal(grid[method])[0], _off_diagonal(grid["mean"])[0]
        sources += len(change)
        refused += int(np.isnan(grid[method].thresholds).sum())
        both = np.isfinite(change) & np.isfinite(base)
        if both.any():
            transfers += int(np.isfinite(change).sum())
            further = float((np.abs(change) - np.abs(base))[both].mean())
            rows.append((float(np.nanmean(np.abs(change))), float(np.nanmean(change)), further))
    if not rows:
        return None
    estimates = [paired_bootstrap(np.array(column), resamples=resamples) for column in zip(*rows, strict=True)]
    return Across(len(rows), transfers, refused / sources, *estimates)


def families(names: Sequence[str]) -> dict[str, list[str]]:
    """Models of one make that differ only in size, by their name without the size; makes of one size are left out."""
    by_make: dict[str, list[str]] = {}
    for name in names:
        make = _SIZE.sub("*", name)
        if make != name:
            by_make.setdefault(make, []).append(name)
    return {make: sizes for make, sizes in by_make.items() if len(sizes) > 1}


def show(records: Records, *, resamples: int) -> object:
    """Print the transfers between tasks, models and sizes."""
    print(
        "\n== Transfer: fitted on one set, applied to another, against the target's own threshold. `error` is the"
        "\nmean absolute difference in accuracy; `vs mean` is how much larger it is than the entropy mean's"
    )
    effort = [pair for pair in pairs(records) if pair.effort]
    shared = over_pairs(
        records, [Pair(name, STRONG) for name in records.by_model if name != STRONG and STRONG in records.by_model]
    )
    grids = {
        f"category × category ({pair.name})": by_category(pair_table(records, *pair))
        for pair in STUDIED
        if pair.first in records.by_model and pair.then in records.by_model
    }
    grids["size × size (Qwen3, thinking off → on)"] = over_pairs(records, effort)
    grids[f"model × model (all, then {STRONG})"] = shared
    out: dict[str, object] = {}
    for name, tables in grids.items():
        if len(tables) < 2:
            print(f"\n{name}: left out, only {len(tables)} in the table")
            continue
        print(f"\n{name}: {len(tables)} of each")
        out[name] = _show_grid(all_methods(tables), resamples=resamples)
    sets = {
        f"category × category, within each of all models (then {STRONG})": [
            all_methods(by_category(table)) for table in shared.values()
        ],
        f"size × size, within each make (then {STRONG})": [
            all_methods({name: shared[name] for name in sizes}) for sizes in families(list(shared)).values()
        ],
    }
    for name, members in sets.items():
        print(f"\n{name}: intervals resample these {len(members)} sets")
        out[name] = _show_across(members, resamples=resamples)
    return {"grids": out, "information": information.show(shared, resamples=resamples)}


def _show_grid(grids: Mapping[str, Transfer], *, resamples: int) -> object:
    rows, results = [], dict[str, object]()
    for method, grid in grids.items():
        figures = summary(grid, resamples=resamples)
        versus = compared(grid, grids["mean"], resamples=resamples)
        results[method] = {
            "names": grid.names,
            "thresholds": grid.thresholds,
            "change": grid.change,
            "saving_vs_last": grid.saving,
            "stopped": grid.stopped,
            "summary": figures._asdict() if figures else None,
            "miss_against_mean": versus,
        }
        if figures is None:
            rows.append([method, *["–"] * 7])
            continue
        rows.append(
            [
                method,
                str(figures.refused),
                f"{100 * figures.misses:.2f} [{100 * figures.misses_ci[0]:.2f}, {100 * figures.misses_ci[1]:.2f}]",
                f"{100 * versus[0]:+.2f} [{100 * versus[1]:+.2f}, {100 * versus[2]:+.2f}]",
                f"{100 * figures.excess_change:+.2f}",
                f"{100 * figures.worst_loss:.1f}",
                percent(figures.over_a_point),
                percent(figures.stopped_off),
            ]
        )
    show_table(
        ["method", "none", "error (points)", "vs mean", "net", "worst", "≥ 1 point lost", "stopped: error"], rows
    )
    return results


def _show_across(grids: Sequence[Mapping[str, Transfer]], *, resamples: int) -> object:
    results = {method: across(grids, method, resamples=resamples) for method in PAPERS}
    rows = [
        [method, *["–"] * 6]
        if result is None
        else [
            method,
            str(result.sets),
            str(result.transfers),
            percent(result.refused),
            points(result.misses, digits=2),
            points(result.against_mean, digits=2),
            points(result.net, digits=2),
        ]
        for method, result in results.items()
    ]
    show_table(["method", "sets", "transfers", "none", "error (points)", "vs mean", "net"], rows)
    return {method: None if result is None else result._asdict() for method, result in results.items()}
