"""Does a threshold maximise the mutual information of stopping and being right, as `info` has it in its name?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.recorded.data import PAPERS, Floats, Ints, fit
from benchmarks.recorded.show import table as show_table
from justenough.evaluation import Table
from justenough.stats import Estimate, paired_bootstrap, resampled_sums
from justenough.stats.text import percent


class Informed(NamedTuple):
    """Mutual information of stopping and being right, in bits, on questions that nothing was fitted on."""

    at: float | None
    """At the method's threshold; None where it has none."""
    most: float
    """At the threshold that maximises it on the questions that the method is fitted on, too."""


def information(table: Table, *, seed: int = 0) -> dict[str, Informed]:
    """Each method beside the maximiser, fitted on one half of the questions and judged on the other, in turn."""
    rows = np.flatnonzero(np.isfinite(table.bits[:, 0]))
    rows = np.random.default_rng(seed).permutation(rows)
    halves = [table.rows(rows[: len(rows) // 2]), table.rows(rows[len(rows) // 2 :])]
    found: dict[str, list[float | None]] = {method: [] for method in PAPERS}
    most: list[float] = []
    for fitted, judged in (halves, halves[::-1]):
        bits = np.sort(fitted.bits[:, 0])
        most.append(_mutual(judged, float(bits[int(np.argmax(_mutuals(fitted)))])))
        for method in PAPERS:
            threshold = fit(method, fitted.examples()).threshold
            found[method].append(None if threshold is None else _mutual(judged, threshold))
    best = float(np.mean(most))
    return {
        method: Informed(None if None in values else float(np.mean([value or 0.0 for value in values])), best)
        for method, values in found.items()
    }


def informed(found: Sequence[Informed], *, resamples: int = 1000, seed: int = 0) -> tuple[Estimate, Estimate] | None:
    """A method over models: bits short of the maximiser's, and the share of its bits; intervals resample models."""
    known = np.array([(made.at, made.most) for made in found if made.at is not None])
    if not len(known):
        return None
    short = paired_bootstrap(known[:, 0] - known[:, 1], resamples=resamples, seed=seed)
    sums = resampled_sums(known, resamples=resamples, seed=seed)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], (0.025, 0.975))
    share = Estimate(float(known[:, 0].sum() / known[:, 1].sum()), float(low), float(high), len(known))
    return short, share


def _mutual(table: Table, threshold: float) -> float:
    """Of stopping at a threshold."""
    count = int((table.bits[:, 0] <= threshold).sum())
    return float(_mutuals(table)[count - 1]) if count else 0.0


def _mutuals(table: Table) -> Floats:
    """Mutual information, in bits, of standing among the first 1 … n by the signal and being right, shape (n,)."""
    right = table.correct[np.argsort(table.bits[:, 0], kind="stable"), 0]
    n, total = len(right), int(right.sum())
    counts, inside = np.arange(1, n + 1), np.cumsum(right)
    joint = np.stack([inside, counts - inside, total - inside, n - counts - total + inside])
    made: Floats = _plogp(np.stack([counts, n - counts]), n) + _plogp(np.array([[total], [n - total]]), n)
    return made - _plogp(joint, n)


def _plogp(counts: Ints, n: int) -> Floats:
    """Entropy in bits of counts (m, …) out of n."""
    p = counts / n
    made: Floats = -(p * np.log2(np.where(p > 0, p, 1))).sum(axis=0)
    return made


def show(tables: Mapping[str, Table], *, resamples: int) -> object:
    """Each method over all models."""
    print(
        "\nMutual information of stopping and being right, in bits, on questions that nothing was fitted on, beside"
        "\nthat of the threshold that maximises it on the other half; intervals resample the models"
    )
    by_model = {model: information(table) for model, table in tables.items()}
    rows, found = [], dict[str, object]()
    for method in PAPERS:
        made = [each[method] for each in by_model.values()]
        figures = informed(made, resamples=resamples)
        least = sum(one.at is not None and one.at >= one.most for one in made)
        if figures is None:
            rows.append([method, *["–"] * 4])
            continue
        short, share = figures
        bits = f"{short.value:+.4f} [{short.low or 0:+.4f}, {short.high or 0:+.4f}]"
        part = f"{percent(share.value)} [{100 * (share.low or 0):.1f}, {100 * (share.high or 0):.1f}]"
        rows.append([method, str(short.n), bits, part, str(least)])
        found[method] = {"models": short.n, "short": short._asdict(), "share": share._asdict(), "no_less": least}
    show_table(["method", "models", "bits beside the most", "share of the most", "models with no less"], rows)
    return {"methods": found, "models": {model: dict(each) for model, each in by_model.items()}}
