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

from justenough.calibration import DECIDES, Decide
from justenough.errors import NotEnoughExamples
from justenough.evaluation.table import Table, table_of
from justenough.gate import GateSettings
from justenough.labelled import lacking
from justenough.poolings import POOLINGS
from justenough.trace import Trace

MINIMUM: Final = 100
"""Labelled problems below which nothing is recommended."""
MAX_LOSS: Final = 0.01
FOLDS: Final = 5
REPEATS: Final = 4
_AT_ONCE: Final = 1_000_000
"""Decisions taken in one block of thresholds: bounds the memory."""


class Validated(NamedTuple):
    """A candidate with its cross-validated figures."""

    pooling: str
    decide: Decide
    saving: float
    change: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A gate, the labels behind it and every candidate's cross-validated figures, best first."""

    settings: GateSettings
    n: int
    max_loss: float
    candidates: tuple[Validated, ...]


def gain_threshold(table: Table, settings: GateSettings, *, max_loss: float) -> float | None:
    """The largest threshold up to which (answers lost - answers saved + 1) / n stays within `max_loss`; None if none.

    The 1 added keeps a run of luck in few labels from passing for harmlessness (Laplace's rule).
    """
    candidates = np.unique(table.bits[np.isfinite(table.bits)])
    if settings.decide == "first":
        candidates = np.unique(table.bits[np.isfinite(table.bits[:, 0]), 0])
    if len(candidates) > 400:
        candidates = np.quantile(candidates, np.linspace(0, 1, 400), method="lower")
    rows, final = np.arange(len(table)), table.correct[:, -1]
    if settings.decide == "first" and not settings.min_tokens:
        return _first_threshold(table, candidates, max_loss=max_loss)
    found: float | None = None
    for some in np.array_split(candidates, max(1, len(candidates) * table.bits.size // _AT_ONCE)):
        stops = table.stops_each(settings, some)
        lost = int(final.sum()) - table.correct[rows, stops].sum(axis=1)
        within = lost + 1 <= max_loss * len(table)
        passing = len(some) if within.all() else int(within.argmin())
        if passing:
            found = float(some[passing - 1])
        if passing < len(some):
            break
    return found


def _first_threshold(table: Table, candidates: NDArray[np.float64], *, max_loss: float) -> float | None:
    """The same where step 1 alone decides: the losses at all candidates are one running sum."""
    usable = np.flatnonzero(np.isfinite(table.bits[:, 0]))
    order = usable[np.argsort(table.bits[usable, 0])]
    lost = np.concatenate(([0], np.cumsum(table.correct[order, -1].astype(int) - table.correct[order, 0])))
    stopped = np.searchsorted(table.bits[order, 0], candidates, side="right")
    over = np.flatnonzero(lost[stopped] + 1 > max_loss * len(table))
    fine = candidates[: over[0]] if len(over) else candidates
    return float(fine[-1]) if len(fine) else None


def recommend(
    traces: Sequence[Trace],
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
    if len(traces) < MINIMUM:
        raise NotEnoughExamples(
            f"a recommendation takes {MINIMUM} labelled problems, {len(traces)} are there",
            needed=MINIMUM - len(traces),
            hint="with fewer, calibrate the entropy mean",
        )
    if max(len(trace.steps) for trace in traces) < 2:
        raise NotEnoughExamples("the traces hold one step only", needed=0, hint="collect with --steps 2 or more")
    base = traces[0].signal
    shape, steps = traces[0].shape, max(len(trace.steps) for trace in traces)
    options: list[tuple[Validated, GateSettings, Table]] = []
    for pooling in poolings if _per_token(traces) else ("mean",):
        signal = replace(base, pooling=pooling, combination=None) if base.kind == "entropy" else base
        if lacking(traces, signal) is not None:
            continue
        table = table_of(traces, signal)
        for decide in decides:
            settings = GateSettings(signal=signal, shape=shape, decide=decide, max_steps=steps)
            saving, change = _validated(table, settings, max_loss=max_loss, seed=seed)
            options.append((Validated(pooling, decide, saving, change), settings, table))
    options.sort(key=lambda option: (-(option[0].change >= -max_loss), -option[0].saving))
    best, settings, table = options[0]
    threshold = gain_threshold(table, settings, max_loss=max_loss) if best.change >= -max_loss else None
    return Recommendation(
        settings=replace(settings, threshold=threshold),
        n=len(traces),
        max_loss=max_loss,
        candidates=tuple(option[0] for option in options),
    )


def _per_token(traces: Sequence[Trace]) -> bool:
    return traces[0].signal.kind == "entropy" and all(trace.steps[0].entries for trace in traces)


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
