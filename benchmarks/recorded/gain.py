"""Stopping that is fitted on the gain of extending, with further inputs, by nested cross-validation.

The inner folds choose the threshold and the outer folds evaluate it. So no problem is evaluated with a score or a
threshold that was fitted on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from benchmarks.recorded.data import PAPERS, Bools, Floats, Ints, Records, fit, paired
from benchmarks.recorded.pairs import SETTINGS, pairs
from benchmarks.recorded.show import table as show_table
from justenough.evaluation import Table, recommend
from justenough.evaluation.table import table_of
from justenough.stats import Estimate, paired_bootstrap, resampled_sums
from justenough.stats.logistic import logistic
from justenough.stats.text import percent, points
from justenough.trace import Trace

OUTER: Final = 5
INNER: Final = 5
MAX_LOSS: Final = 0.01
SEEDS: Final = 5
"""Number of divisions into folds."""
FEWEST: Final = 125
"""With fewer problems, four outer folds are too small for a recommendation."""

Score = Callable[[Ints, Ints], Floats]
"""Fits on the first rows and returns the scores of the second rows; lower scores are stopped first."""


class Judged(NamedTuple):
    """The figures of a way of stopping, on held-out problems."""

    stopped: float
    stopped_ci: tuple[float, float]
    change: Estimate
    saving_vs_last: float
    harm: float
    folds: tuple[float, float] | None = None
    """The smallest and largest stopped share over `SEEDS` divisions into folds; None for a single division."""
    in_sample: float | None = None
    """Stopped share if the same questions are used for fitting and evaluation: compare with `stopped`."""
    in_sample_change: float | None = None


def judged(table: Table, stops: Bools, *, resamples: int = 1000) -> Judged:
    """The figures of stopping these problems at step 1."""
    first, last = table.correct[:, 0], table.correct[:, -1]
    tokens = table.spent[:, 0] + np.where(stops, 0.0, table.last_only)
    low, high = np.quantile(resampled_sums(stops[:, None].astype(float), resamples=resamples), (0.025, 0.975))
    return Judged(
        stopped=float(stops.mean()),
        stopped_ci=(float(low) / len(stops), float(high) / len(stops)),
        change=paired_bootstrap(np.where(stops, first.astype(float) - last, 0.0), resamples=resamples),
        saving_vs_last=float(1 - tokens.sum() / table.last_only.sum()),
        harm=float((stops & ~first & last).mean()),
    )


def folds(n: int, count: int, *, seed: int) -> Ints:
    """The fold number of each of n rows."""
    return np.random.default_rng(seed).permutation(n) % count


def cut(scores: Floats, first: Bools, last: Bools, *, max_loss: float) -> float | None:
    """The largest score up to which (lost - rescued answers + 1) / n stays within `max_loss`, as in the library's
    recommended gate. Equal scores enter together. None if there is no such score."""
    order = np.argsort(scores, kind="stable")
    lost = np.cumsum((last.astype(int) - first.astype(int))[order])
    ends = np.r_[scores[order][1:] != scores[order][:-1], True]
    over = np.flatnonzero(ends & (lost + 1 > max_loss * len(scores)))
    fine = np.flatnonzero(ends)
    fine = fine[fine < over[0]] if len(over) else fine
    return float(scores[order][fine[-1]]) if len(fine) else None


def nested(table: Table, score: Score, *, max_loss: float = MAX_LOSS, seed: int = 0) -> Bools:
    """Which problems are stopped: the scores and, by inner folds, the threshold come from the other outer folds."""
    n = len(table)
    first, last = table.correct[:, 0], table.correct[:, -1]
    outer = folds(n, OUTER, seed=seed)
    stops = np.zeros(n, dtype=bool)
    for number in range(OUTER):
        train, held = np.flatnonzero(outer != number), np.flatnonzero(outer == number)
        inner = folds(len(train), INNER, seed=seed + 1 + number)
        inside = np.zeros(len(train))
        for part in range(INNER):
            inside[inner == part] = score(train[inner != part], train[inner == part])
        threshold = cut(inside, first[train], last[train], max_loss=max_loss)
        if threshold is not None:
            stops[held] = score(train, held) <= threshold
    # A problem without a signal is never stopped, whatever the other inputs are.
    return stops & np.isfinite(table.bits[:, 0])


def inputs(table: Table, *, length: bool, category: bool, crossed: bool = False) -> Floats:
    """(n, p), standardised: the signal and its square, the logarithm of step 1's length, the category; with `crossed`
    also signal and length within each category."""
    bits = table.bits[:, 0]
    signal = np.where(np.isfinite(bits), bits, np.nanmax(bits))
    columns = [signal, signal**2]
    if length:
        tokens = np.log1p(table.spent[:, 0])
        columns += [tokens, tokens**2, tokens * signal]
    if category:
        groups = np.array(table.groups or [""] * len(table))
        members = [(groups == group).astype(float) for group in np.unique(groups)]
        columns += members
        if crossed:
            logs = np.log1p(table.spent[:, 0])
            columns += [member * other for member in members for other in (signal, signal**2, logs, logs * signal)]
    matrix = np.stack(columns, axis=1)
    spread = matrix.std(axis=0)
    standardised: Floats = (matrix - matrix.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return standardised


def _odds(features: Floats, event: Bools, train: Ints, held: Ints) -> Floats:
    """Log odds of an event in the held-out rows, from a logistic regression on the others."""
    weights = logistic(features[train], event[train], penalty=(1e-9, *[1.0] * features.shape[1]))
    odds: Floats = weights[0] + features[held] @ weights[1:]
    return odds


def by_signal(table: Table) -> Score:
    """The signal itself as the score; problems without one come last."""
    bits = np.where(np.isfinite(table.bits[:, 0]), table.bits[:, 0], np.inf)
    return lambda _, held: bits[held]


def by_correctness(table: Table, features: Floats) -> Score:
    """The log odds that step 1 is wrong as the score."""
    wrong = ~table.correct[:, 0]

    def score(train: Ints, held: Ints) -> Floats:
        return _odds(features, wrong, train, held)

    return score


def by_gain(table: Table, features: Floats) -> Score:
    """The expected gain of extending as the score: probability that it helps minus probability that it hurts."""
    first, last = table.correct[:, 0], table.correct[:, -1]

    def score(train: Ints, held: Ints) -> Floats:
        helps, hurts = ~first & last, first & ~last
        chances = [1 / (1 + np.exp(-np.clip(_odds(features, event, train, held), -30, 30))) for event in (helps, hurts)]
        return chances[0] - chances[1]

    return score


def flattered(table: Table, score: Score, *, max_loss: float = MAX_LOSS) -> Bools:
    """Which problems are stopped if score and threshold are fitted on these very problems."""
    everyone = np.arange(len(table))
    scores = score(everyone, everyone)
    threshold = cut(scores, table.correct[:, 0], table.correct[:, -1], max_loss=max_loss)
    if threshold is None:
        return np.zeros(len(table), dtype=bool)
    return (scores <= threshold) & np.isfinite(table.bits[:, 0])


def by_cross_validation(table: Table, score: Score, *, max_loss: float = MAX_LOSS) -> Judged:
    """A score's figures in nested cross-validation, over several divisions into folds, and in sample."""
    seen = flattered(table, score, max_loss=max_loss)
    first, last = table.correct[:, 0].astype(float), table.correct[:, -1].astype(float)
    divided = [nested(table, score, max_loss=max_loss, seed=100 * seed) for seed in range(SEEDS)]
    shares = [float(stops.mean()) for stops in divided]
    return judged(table, divided[0])._replace(
        folds=(min(shares), max(shares)),
        in_sample=float(seen.mean()),
        in_sample_change=float(((first - last) * seen).mean()),
    )


def fitted_on_correctness(table: Table, method: str, *, seed: int = 0) -> Bools:
    """Which problems one of the paper's thresholds stops, fitted on step-1 correctness in the other folds."""
    outer = folds(len(table), OUTER, seed=seed)
    stops = np.zeros(len(table), dtype=bool)
    for number in range(OUTER):
        threshold = fit(method, table.rows(outer != number).examples()).threshold
        if threshold is not None:
            with np.errstate(invalid="ignore"):
                stops[outer == number] = table.bits[outer == number, 0] <= threshold
    return stops


def recommended(traces: Sequence[Trace], *, max_loss: float = MAX_LOSS, seed: int = 0) -> Bools:
    """Which problems the library's recommended gate stops, fitted on the other folds."""
    outer = folds(len(traces), OUTER, seed=seed)
    stops = np.zeros(len(traces), dtype=bool)
    for number in range(OUTER):
        train = [traces[int(row)] for row in np.flatnonzero(outer != number)]
        held = [traces[int(row)] for row in np.flatnonzero(outer == number)]
        gate = recommend(train, max_loss=max_loss, seed=seed, decides=("first",))
        settings = replace(SETTINGS, threshold=gate.settings.threshold)
        stops[outer == number] = table_of(held, SETTINGS.signal).stops(settings) == 0
    return stops


def ways(traces: Sequence[Trace], *, max_loss: float = MAX_LOSS) -> Mapping[str, Judged]:
    """The paper's thresholds and those fitted on the gain, on a pair."""
    table = table_of(traces, SETTINGS.signal)
    rich = inputs(table, length=True, category=True)
    figures = {f"paper: {method}": judged(table, fitted_on_correctness(table, method)) for method in PAPERS}
    figures["recommended (signal alone)"] = judged(table, recommended(traces, max_loss=max_loss))
    scores = {
        "gain: signal alone": by_signal(table),
        "gain: signal, length": by_gain(table, inputs(table, length=True, category=False)),
        "gain: signal, category": by_gain(table, inputs(table, length=False, category=True)),
        "gain: signal, length, category": by_gain(table, rich),
        "gain: the same, crossed": by_gain(table, inputs(table, length=True, category=True, crossed=True)),
        "P(step 1 wrong): the same inputs": by_correctness(table, rich),
    }
    return figures | {name: by_cross_validation(table, score, max_loss=max_loss) for name, score in scores.items()}


def show(records: Records) -> object:
    """Print both kinds of threshold for every pair of one model without and with thinking."""
    print(
        f"\n== Fitted on the gain: the target is at most {100 * MAX_LOSS:g} lost point; nested cross-validation with"
        f" {OUTER} outer\nand {INNER} inner folds. `folds` is the range over {SEEDS} divisions; `in sample` fits and"
        "\nevaluates on the same questions"
    )
    out: dict[str, object] = {}
    for pair in [pair for pair in pairs(records) if pair.effort]:
        traces = paired(records, *pair)
        if sum(trace.steps[0].uncertainty is not None for trace in traces) < FEWEST:
            print(f"\n{pair.name}: left out, fewer than {FEWEST} answers with a signal")
            continue
        figures = ways(traces)
        print(f"\n{pair.name}")
        rows = [
            [
                name,
                f"{percent(outcome.stopped)} [{100 * outcome.stopped_ci[0]:.1f}, {100 * outcome.stopped_ci[1]:.1f}]",
                "–" if outcome.folds is None else f"{100 * outcome.folds[0]:.1f} to {100 * outcome.folds[1]:.1f}",
                percent(outcome.saving_vs_last),
                points(outcome.change),
                percent(outcome.harm, digits=2),
                "–"
                if outcome.in_sample is None
                else f"{percent(outcome.in_sample)} ({100 * (outcome.in_sample_change or 0):+.1f})",
            ]
            for name, outcome in figures.items()
        ]
        head = ["way", "stopped", "folds", "saving vs step 2", "change (points)", "harm", "in sample (change)"]
        show_table(head, rows)
        out[pair.name] = {
            name: outcome._asdict() | {"change": outcome.change._asdict()} for name, outcome in figures.items()
        }
    return out
