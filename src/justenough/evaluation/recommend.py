"""The project's recommended gate: fitted on what stopping costs, not on whether step 1 is right.

To stop at a wrong answer costs nothing if all steps end wrong too. One third of the labelled problems chooses the
pooling and the steps at which to decide. The other two thirds set the threshold, so the promise holds for new problems:
on average over such sets of labels, at most `max_loss` of them lose a right answer by stopping (conformal risk
control, arXiv 2208.02814). This is no certificate for a single set of labels; the threshold `risk` has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.errors import NotEnoughExamples
from justenough.evaluation.figures import gate_outcomes, saving_and_change
from justenough.evaluation.table import Table, parts_of, tables_of
from justenough.gate import DECIDES, Decide, GateSettings
from justenough.signal.pooling import POOLINGS
from justenough.signal.signal import Signal
from justenough.stats.drawing import generator
from justenough.trace import Shape
from justenough.trace.files import Traces, first_of, items_of

Floats = NDArray[np.float64]

MINIMUM: Final = 100
"""With fewer labelled problems nothing is recommended."""
MAX_LOSS: Final = 0.01
CHOOSING: Final = 1 / 3
"""Share of the problems that choose; the others set the threshold."""


class Candidate(NamedTuple):
    """A candidate with its figures on problems that were not used to choose."""

    pooling: str
    decide: Decide
    saving: float
    """As a fraction of the tokens of all steps."""
    change: float
    """Change in accuracy, as a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A gate, the number of labels behind it, and the figures of all candidates."""

    settings: GateSettings
    """The recommended gate."""
    n: int
    """Labelled problems."""
    max_loss: float
    """Largest share of new problems that lose a right answer, on average over sets of labels."""
    candidates: tuple[Candidate, ...]
    """All candidates, the chosen one first."""


def first_harm(table: Table, decide: Decide) -> Floats:
    """For each problem (n,), the lowest threshold whose gate stops at a wrong answer although the last one is right.

    A higher threshold counts as harmful too, though it may stop earlier at a right answer: so harm can only grow.
    """
    bits = np.where(np.isfinite(table.bits), table.bits, np.inf)[:, : table.steps - 1 if decide == "every" else 1]
    lowest = np.minimum.accumulate(bits, axis=1)
    earlier = np.concatenate((np.full((len(table), 1), np.inf), lowest[:, :-1]), axis=1)
    # A threshold stops at the first step that is at or below it, so only a new lowest value is ever reached.
    harmful = (bits < earlier) & ~table.correct[:, : bits.shape[1]] & table.correct[:, -1:]
    thresholds: Floats = np.where(harmful, bits, np.inf).min(axis=1)
    return thresholds


def harmless_threshold(table: Table, decide: Decide, *, harms: int) -> float | None:
    """The largest recorded value at which at most so many problems are harmed; None if there is none."""
    if harms < 0:
        return None
    limit = np.append(np.sort(first_harm(table, decide)), np.inf)[min(harms, len(table))]
    values = table.bits[:, : table.steps if decide == "every" else 1]
    passing = values[np.isfinite(values) & (values < limit)]
    return float(passing.max()) if len(passing) else None


def recommend(
    traces: Traces,
    *,
    max_loss: float = MAX_LOSS,
    seed: int = 0,
    poolings: Sequence[str] = tuple(POOLINGS),
    decides: Sequence[Decide] = DECIDES,
) -> Recommendation:
    """Choose pooling, `decide` and threshold on traces with all steps recorded.

    A gate that never stops is the result if no threshold keeps the promise; at 1 % that takes 149 labelled problems.
    Raises `NotEnoughExamples` with fewer than 100 problems, or without later steps.
    """
    first = first_of(traces)
    tables = allowed(tables_of(items_of(traces), candidates(first.signal, poolings=poolings)))
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
    choosing = np.zeros(n, dtype=bool)
    choosing[generator(seed).permutation(n)[: math.floor(n * CHOOSING)]] = True
    options: list[tuple[float, Candidate, GateSettings]] = []
    # Other columns would be copied for nothing.
    bare = [replace(one, groups=None, costs=None, latency=None, layers=None, whole_layers=None) for one in tables]
    for table, part, rest in zip(tables, parts_of(bare, choosing), parts_of(bare, ~choosing), strict=True):
        for decide in decides:
            never = GateSettings(signal=table.signal, shape=shape, decide=decide, max_steps=steps)
            tried = harmless_threshold(part, decide, harms=math.floor(max_loss * len(part)))
            first, later = (gate_outcomes(each, replace(never, threshold=tried)) for each in (part, rest))
            candidate = Candidate(table.signal.pooling, decide, *saving_and_change(rest, later))
            threshold = harmless_threshold(rest, decide, harms=math.floor(max_loss * (len(rest) + 1)) - 1)
            options.append((saving_and_change(part, first)[0], candidate, replace(never, threshold=threshold)))
    options.sort(key=lambda option: -option[0])
    ranked = tuple(option[1] for option in options)
    return Recommendation(settings=options[0][2], n=n, max_loss=max_loss, candidates=ranked)
