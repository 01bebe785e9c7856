"""Does `info`, as its name says, maximise the mutual information between stopping and being right?"""

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
    """Mutual information between stopping and being right, in bits, on held-out questions."""

    at: float | None
    """At the method's threshold; None if it has none."""
    most: float
    """At the threshold that maximises it on the same fitting questions."""


def information(table: Table, *, seed: int = 0) -> dict[str, Informed]:
    """Each method and the maximiser, fitted on one half of the questions and evaluated on the other, in turn."""
    rows = np.flatnonzero(np.isfinite(table.bits[:, 0]))
    rows = np.random.default_rng(seed).permutation(rows)
    halves = [table.rows(rows[: len(rows) // 2]), table.rows(rows[len(rows) // 2 :])]
    at_threshold: dict[str, list[float | None]] = {method: [] for method in PAPERS}
    most: list[float] = []
    for fitted, judged in (halves, halves[::-1]):
        bits = np.sort(fitted.bits[:, 0])
        most.append(_mutual(judged, float(bits[int(np.argmax(_mutuals(fitted)))])))
        for method in PAPERS:
            threshold = fit(method, fitted.examples()).threshold
            at_threshold[method].append(None if threshold is None else _mutual(judged, threshold))
    best = float(np.mean(most))
    return {
        method: Informed(None if None in values else float(np.mean([value or 0.0 for value in values])), best)
        for method, values in at_threshold.items()
    }


def informed(results: Sequence[Informed], *, resamples: int = 1000, seed: int = 0) -> tuple[Estimate, Estimate] | None:
    """A method over models: difference from the maximiser in bits, and share of its bits; intervals resample models."""
    known = np.array([(result.at, result.most) for result in results if result.at is not None])
    if not len(known):
        return None
    short = paired_bootstrap(known[:, 0] - known[:, 1], resamples=resamples, seed=seed)
    sums = resampled_sums(known, resamples=resamples, seed=seed)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], (0.025, 0.975))
    share = Estimate(float(known[:, 0].sum() / known[:, 1].sum()), float(low), float(high), len(known))
    return short, share


def _mutual(table: Table, threshold: float) -> float:
    """Mutual information at a threshold."""
    count = int((table.bits[:, 0] <= threshold).sum())
    return float(_mutuals(table)[count - 1]) if count else 0.0


def _mutuals(table: Table) -> Floats:
    """Mutual information in bits between being among the first 1 … n by the signal and being right, shape (n,)."""
    right = table.correct[np.argsort(table.bits[:, 0], kind="stable"), 0]
    n, total = len(right), int(right.sum())
    counts, inside = np.arange(1, n + 1), np.cumsum(right)
    joint = np.stack([inside, counts - inside, total - inside, n - counts - total + inside])
    marginal: Floats = _plogp(np.stack([counts, n - counts]), n) + _plogp(np.array([[total], [n - total]]), n)
    return marginal - _plogp(joint, n)


def _plogp(counts: Ints, n: int) -> Floats:
    """Entropy in bits of the distribution with counts (m, …) out of n."""
    p = counts / n
    bits: Floats = -(p * np.log2(np.where(p > 0, p, 1))).sum(axis=0)
    return bits


def show(tables: Mapping[str, Table], *, resamples: int) -> object:
    """Print each method over all models."""
    print(
        "\nMutual information between stopping and being right, in bits, on held-out questions, compared with the"
        "\nthreshold that maximises it on the other half; intervals resample the models"
    )
    by_model = {model: information(table) for model, table in tables.items()}
    rows, summary = [], dict[str, object]()
    for method in PAPERS:
        results = [each[method] for each in by_model.values()]
        figures = informed(results, resamples=resamples)
        least = sum(one.at is not None and one.at >= one.most for one in results)
        if figures is None:
            rows.append([method, *["–"] * 4])
            continue
        short, share = figures
        bits = f"{short.value:+.4f} [{short.low or 0:+.4f}, {short.high or 0:+.4f}]"
        part = f"{percent(share.value)} [{100 * (share.low or 0):.1f}, {100 * (share.high or 0):.1f}]"
        rows.append([method, str(short.n), bits, part, str(least)])
        summary[method] = {"models": short.n, "short": short._asdict(), "share": share._asdict(), "no_less": least}
    show_table(["method", "models", "difference in bits", "share of the maximum", "models with no less"], rows)
    return {"methods": summary, "models": {model: dict(each) for model, each in by_model.items()}}
