"""Gain-aware stopping: fitted on what extending gains, with further inputs, by nested cross-validation.

The outer folds judge, the inner ones choose the threshold: no problem is judged by a score or threshold that saw it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from benchmarks.recorded.data import PAPERS, Bools, Floats, Ints, fit
from benchmarks.recorded.pairs import SETTINGS
from justenough.evaluation import Table, recommend
from justenough.evaluation.table import table_of
from justenough.stats import Estimate, paired_bootstrap
from justenough.trace import Trace

OUTER: Final = 5
INNER: Final = 5
MAX_LOSS: Final = 0.01
FEWEST: Final = 125
"""Problems below which four outer folds are fewer than a recommendation takes."""

Score = Callable[[Ints, Ints], Floats]
"""Fit on the first rows, give the second rows' scores: lower is stopped first."""


class Judged(NamedTuple):
    """A way of stopping, on problems that it was not fitted on."""

    stopped: float
    change: Estimate
    saving_vs_last: float
    harm: float


def judged(table: Table, stops: Bools, *, resamples: int = 1000) -> Judged:
    """The figures of stopping these problems at step 1."""
    first, last = table.correct[:, 0], table.correct[:, -1]
    tokens = table.spent[:, 0] + np.where(stops, 0.0, table.last_only)
    return Judged(
        stopped=float(stops.mean()),
        change=paired_bootstrap(np.where(stops, first.astype(float) - last, 0.0), resamples=resamples),
        saving_vs_last=float(1 - tokens.sum() / table.last_only.sum()),
        harm=float((stops & ~first & last).mean()),
    )


def folds(n: int, count: int, *, seed: int) -> Ints:
    """The fold of each of n rows."""
    return np.random.default_rng(seed).permutation(n) % count


def cut(scores: Floats, first: Bools, last: Bools, *, max_loss: float) -> float | None:
    """The largest score up to which (answers lost - answers saved + 1) / n stays within `max_loss`, as in the library's
    gain-aware gate, ties entering together; None where there is none."""
    order = np.argsort(scores, kind="stable")
    lost = np.cumsum((last.astype(int) - first.astype(int))[order])
    ends = np.r_[scores[order][1:] != scores[order][:-1], True]
    over = np.flatnonzero(ends & (lost + 1 > max_loss * len(scores)))
    fine = np.flatnonzero(ends)
    fine = fine[fine < over[0]] if len(over) else fine
    return float(scores[order][fine[-1]]) if len(fine) else None


def nested(table: Table, score: Score, *, max_loss: float = MAX_LOSS, seed: int = 0) -> Bools:
    """Who is stopped: scores of the outer fold from the others, the threshold from inner folds of the others."""
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
    # Without a signal nothing is stopped, whatever the other inputs say.
    return stops & np.isfinite(table.bits[:, 0])


def logistic(features: Floats, labels: Bools, *, ridge: float = 1.0) -> Floats:
    """Coefficients (p,) of a ridge-penalised logistic regression by Newton's method; the first is not penalised."""
    p = features.shape[1]
    penalty = np.eye(p) * ridge
    penalty[0, 0] = 1e-9
    weights = np.zeros(p)
    for _ in range(30):
        odds = 1 / (1 + np.exp(-np.clip(features @ weights, -30, 30)))
        gradient = features.T @ (labels - odds) - penalty @ weights
        hessian = (features * (odds * (1 - odds))[:, None]).T @ features + penalty
        step = np.linalg.solve(hessian, gradient)
        weights = weights + step
        if float(np.abs(step).max()) < 1e-8:
            break
    return weights


def inputs(table: Table, *, length: bool, category: bool) -> Floats:
    """(n, p): a constant, the signal and its square, the logarithm of step 1's length, the category; standardised."""
    bits = table.bits[:, 0]
    signal = np.where(np.isfinite(bits), bits, np.nanmax(bits))
    columns = [signal, signal**2]
    if length:
        tokens = np.log1p(table.spent[:, 0])
        columns += [tokens, tokens**2, tokens * signal]
    if category:
        groups = np.array(table.groups or [""] * len(table))
        columns += [(groups == group).astype(float) for group in np.unique(groups)]
    made = np.stack(columns, axis=1)
    spread = made.std(axis=0)
    return np.concatenate(
        (np.ones((len(made), 1)), (made - made.mean(axis=0)) / np.where(spread > 0, spread, 1)), axis=1
    )


def by_signal(table: Table) -> Score:
    """The signal itself; problems without one come last."""
    bits = np.where(np.isfinite(table.bits[:, 0]), table.bits[:, 0], np.inf)
    return lambda _, held: bits[held]


def by_correctness(table: Table, features: Floats) -> Score:
    """The probability that step 1 is wrong."""
    wrong = ~table.correct[:, 0]

    def score(train: Ints, held: Ints) -> Floats:
        return features[held] @ logistic(features[train], wrong[train])

    return score


def by_gain(table: Table, features: Floats) -> Score:
    """The expected gain of extending: the probability that it helps less the probability that it hurts."""
    first, last = table.correct[:, 0], table.correct[:, -1]

    def score(train: Ints, held: Ints) -> Floats:
        helps, hurts = ~first & last, first & ~last
        chances = [
            1 / (1 + np.exp(-np.clip(features[held] @ logistic(features[train], event[train]), -30, 30)))
            for event in (helps, hurts)
        ]
        return chances[0] - chances[1]

    return score


def fitted_on_correctness(table: Table, method: str, *, seed: int = 0) -> Bools:
    """Who one of the paper's thresholds stops, fitted on the other folds' step-1 correctness."""
    outer = folds(len(table), OUTER, seed=seed)
    stops = np.zeros(len(table), dtype=bool)
    for number in range(OUTER):
        threshold = fit(method, table.rows(outer != number).examples()).threshold
        if threshold is not None:
            with np.errstate(invalid="ignore"):
                stops[outer == number] = table.bits[outer == number, 0] <= threshold
    return stops


def recommended(traces: Sequence[Trace], *, max_loss: float = MAX_LOSS, seed: int = 0) -> Bools:
    """Who the library's recommended gate stops, fitted on the other folds."""
    outer = folds(len(traces), OUTER, seed=seed)
    stops = np.zeros(len(traces), dtype=bool)
    for number in range(OUTER):
        train = [traces[int(row)] for row in np.flatnonzero(outer != number)]
        held = [traces[int(row)] for row in np.flatnonzero(outer == number)]
        made = recommend(train, max_loss=max_loss, seed=seed, decides=("first",))
        settings = replace(SETTINGS, threshold=made.settings.threshold)
        stops[outer == number] = table_of(held, SETTINGS.signal).stops(settings) == 0
    return stops


def ways(traces: Sequence[Trace], *, max_loss: float = MAX_LOSS) -> Mapping[str, Judged]:
    """The paper's thresholds and the gain-aware ones on a pair."""
    table = table_of(traces, SETTINGS.signal)
    rich = inputs(table, length=True, category=True)
    found = {f"paper: {method}": judged(table, fitted_on_correctness(table, method)) for method in PAPERS}
    found["recommended (signal alone)"] = judged(table, recommended(traces, max_loss=max_loss))
    scores = {
        "gain: signal alone": by_signal(table),
        "gain: signal, length": by_gain(table, inputs(table, length=True, category=False)),
        "gain: signal, length, category": by_gain(table, rich),
        "P(step 1 wrong): the same inputs": by_correctness(table, rich),
    }
    found |= {name: judged(table, nested(table, score, max_loss=max_loss)) for name, score in scores.items()}
    return found
