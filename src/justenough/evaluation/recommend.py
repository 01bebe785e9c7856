"""The project's recommended gate: fitted on what extending would have gained, not on whether step 1 is right.

"Is step 1 right" asks too much: stopping at a wrong answer costs nothing where all steps end wrong too. So the
threshold is the largest at which the answers lost by stopping, net of those saved from over-thinking, stay within
`max_loss` on the labelled problems; which pooling of the entropies and which `decide` to take it on is chosen by
cross-validation on the same problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.errors import NotEnoughExamples
from justenough.evaluation.table import Table, tables_of
from justenough.gate import DECIDES, Decide, GateSettings
from justenough.signal.pooling import POOLINGS
from justenough.signal.signal import Signal
from justenough.trace import Shape
from justenough.trace.files import Traces, first_of

MINIMUM: Final = 100
"""With fewer labelled problems nothing is recommended."""
MAX_LOSS: Final = 0.01
FOLDS: Final = 5
REPEATS: Final = 4


class Candidate(NamedTuple):
    """A candidate with its cross-validated figures."""

    pooling: str
    decide: Decide
    saving: float
    """Cross-validated saving, as a fraction of the tokens of all steps."""
    change: float
    """Cross-validated change in accuracy, as a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A gate, the labels behind it and every candidate's cross-validated figures, best first."""

    settings: GateSettings
    """The recommended gate."""
    n: int
    max_loss: float
    candidates: tuple[Candidate, ...]
    """Every candidate, the best first."""


def gain_threshold(table: Table, settings: GateSettings, *, max_loss: float) -> float | None:
    """The largest threshold up to which (answers lost - answers saved + 1) / n stays within `max_loss`; None if none.

    The added 1 guards against luck with few labels (Laplace's rule).
    """
    candidates = np.unique(table.bits[np.isfinite(table.bits)])
    if settings.decide == "first":
        candidates = np.unique(table.bits[np.isfinite(table.bits[:, 0]), 0])
    if len(candidates) > 400:
        candidates = np.quantile(candidates, np.linspace(0, 1, 400), method="lower")
    over = np.flatnonzero(lost_at(table, settings, candidates) + 1 > max_loss * len(table))
    fine = candidates[: over[0]] if len(over) else candidates
    return float(fine[-1]) if len(fine) else None


def lost_at(table: Table, settings: GateSettings, thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Answers lost less answers saved by a gate at each of the thresholds (m,), all of them from one sort.

    As the threshold rises past a problem's lowest value so far, its stop moves to that value's step. The settings must
    ask for no patience and no minimum of tokens.
    """
    end = min(settings.max_steps, table.steps) - 1
    right = table.correct.astype(np.int64)
    stopped = right[:, end].copy()
    values: list[NDArray[np.float64]] = []
    changes: list[NDArray[np.int64]] = []
    bits = np.where(np.isfinite(table.bits), table.bits, np.inf)
    lowest = np.minimum.accumulate(bits, axis=1)
    for step in range(0 if settings.decide == "first" else end, -1, -1):
        moving = bits[:, step] < (lowest[:, step - 1] if step else np.inf)
        values.append(bits[moving, step])
        changes.append((stopped - right[:, step])[moving])
        stopped[moving] = right[moving, step]
    moved, change = np.concatenate(values), np.concatenate(changes)
    order = np.argsort(moved)
    lost = np.concatenate(([0], np.cumsum(change[order])))
    base = int(right[:, -1].sum() - right[:, end].sum())
    total: NDArray[np.int64] = base + lost[np.searchsorted(moved[order], thresholds, side="right")]
    return total


def recommend(
    traces: Traces,
    *,
    max_loss: float = MAX_LOSS,
    seed: int = 0,
    poolings: Sequence[str] = tuple(POOLINGS),
    decides: Sequence[Decide] = DECIDES,
) -> Recommendation:
    """Choose pooling, `decide` and threshold on traces with all steps recorded.

    Among candidates whose cross-validated loss is within `max_loss`, the one that saves most; where there is none, a
    gate that never stops. Raises `NotEnoughExamples` with fewer than 100 problems, or without later steps.
    """
    first = first_of(traces)
    tables = allowed(tables_of(traces, candidates(first.signal, poolings=poolings)))
    return recommend_from(tables, shape=first.shape, max_loss=max_loss, seed=seed, decides=decides)


def candidates(recorded: Signal, *, poolings: Sequence[str] = tuple(POOLINGS)) -> list[Signal]:
    """The signals that a gate on such traces may use: each pooling of the token entropies, or the stand-in."""
    if recorded.kind != "entropy":
        return [recorded]
    return [replace(recorded, pooling=pooling, combination=None) for pooling in poolings]


def allowed(tables: Sequence[Table]) -> tuple[Table, ...]:
    """The tables of candidates for which the traces have all fields."""
    return tuple(
        table
        for table in tables
        if table.signal.kind != "entropy" or table.signal.pooling == "mean" or (table.per_token and table.measurable)
    )


def recommend_from(
    tables: Sequence[Table],
    *,
    shape: Shape,
    max_loss: float = MAX_LOSS,
    seed: int = 0,
    decides: Sequence[Decide] = DECIDES,
) -> Recommendation:
    """`recommend` from tables of the same problems under several poolings."""
    n, steps = (len(tables[0]), tables[0].steps) if tables else (0, 0)
    if n < MINIMUM:
        raise NotEnoughExamples(
            f"a recommendation takes {MINIMUM} labelled problems, {n} are there",
            needed=MINIMUM - n,
            hint="with fewer, calibrate the entropy mean",
        )
    if steps < 2:
        raise NotEnoughExamples("the traces hold one step only", needed=0, hint="collect with --steps 2 or more")
    options: list[tuple[Candidate, GateSettings, Table]] = []
    for table in tables:
        # A fold needs only these columns; the others would be copied for nothing.
        bare = replace(table, groups=None, costs=None, latency=None)
        for decide in decides:
            settings = GateSettings(signal=table.signal, shape=shape, decide=decide, max_steps=steps)
            saving, change = _validated(bare, settings, max_loss=max_loss, seed=seed)
            options.append((Candidate(table.signal.pooling, decide, saving, change), settings, bare))
    options.sort(key=lambda option: (-(option[0].change >= -max_loss), -option[0].saving))
    best, settings, table = options[0]
    threshold = gain_threshold(table, settings, max_loss=max_loss) if best.change >= -max_loss else None
    return Recommendation(
        settings=replace(settings, threshold=threshold),
        n=n,
        max_loss=max_loss,
        candidates=tuple(option[0] for option in options),
    )


def _validated(table: Table, settings: GateSettings, *, max_loss: float, seed: int) -> tuple[float, float]:
    """Cross-validated saving and change in accuracy."""
    tokens, changes = np.zeros(len(table)), np.zeros(len(table))
    final = table.correct[:, -1].astype(np.float64)
    for repeat in range(REPEATS):
        fold = _folds(len(table), seed=seed, repeat=repeat)
        for number in range(FOLDS):
            held = fold == number
            threshold = gain_threshold(table.rows(~held), settings, max_loss=max_loss)
            kept = table.rows(held)
            stops = kept.stops(replace(settings, threshold=threshold))
            rows = np.arange(len(kept))
            tokens[held] += kept.spent[rows, stops] / REPEATS
            changes[held] += (kept.correct[rows, stops] - final[held]) / REPEATS
    return float(1 - tokens.sum() / table.spent[:, -1].sum()), float(changes.mean())


def _folds(n: int, *, seed: int, repeat: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, repeat)).permutation(n) % FOLDS
