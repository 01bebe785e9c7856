"""The dense view of the columns: what replaying a threshold needs, and the gate's decision on all problems at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from justenough.calibration.certified import Checkpoints
from justenough.calibration.thresholds import Examples
from justenough.evaluation.costs import Costs, Price, costs_of
from justenough.gate import GateSettings
from justenough.signal.scorer import Scorer
from justenough.signal.signal import Signal
from justenough.trace import Trace
from justenough.trace.batches import Batch
from justenough.trace.building import columns_under
from justenough.trace.columns import Columns

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """n problems of up to K steps; a problem with fewer steps repeats its last one, so column K means "all steps"."""

    signal: Signal
    bits: Floats
    """(n, K): the step's signal; NaN where it is missing, or where too few tokens have it."""
    correct: Bools
    """(n, K)"""
    unanswered: Bools
    """(n, K)"""
    spent: Floats
    """(n, K): tokens of a run that stops after the step."""
    generated: Floats
    """(n, K): tokens of the steps up to this one, without the last elicitation, as the gate counts them."""
    last_only: Floats
    """(n,): tokens of the last step alone."""
    lengths: Ints
    """(n,): steps of each problem."""
    probes: Floats | None = None
    """(n, K): tokens of all probes before the step; None unless the signal is read off them."""
    groups: tuple[str, ...] | None = None
    problems: tuple[str, ...] | None = None
    """(n,): the problem of each row; None where no problem has two rows."""
    costs: Costs | None = None
    """None where there are no prices."""
    latency: Floats | None = None
    """(n, K): seconds of a run that stops after the step; None where a step has no time."""
    layers: Floats | None = None
    """(n, K): layers that ran for the steps up to this one, without probes; None where a step does not record them."""
    whole_layers: Floats | None = None
    """(n,): layers of all steps if each token runs through the whole network."""
    per_token: bool = True
    """Whether every first step has token entropies, so that other poolings can be computed."""
    measurable: bool = True
    """Whether every first step has what the signal's pooling needs."""

    def __len__(self) -> int:
        return len(self.bits)

    @property
    def steps(self) -> int:
        """K."""
        return int(self.bits.shape[1])

    def rows(self, index: Ints | Bools) -> Table:
        """The problems at `index`."""

        places = np.arange(len(self))[index].tolist()

        def part(column: object) -> object:
            if isinstance(column, tuple):
                return tuple(column[place] for place in places)
            return column[index] if isinstance(column, np.ndarray) else column

        parts = {field.name: part(getattr(self, field.name)) for field in fields(self)}
        # The names are those of the fields.
        return Table(**parts | {"costs": None if self.costs is None else self.costs.rows(index)})  # type: ignore[arg-type]

    def examples(self, index: Ints | None = None) -> Examples:
        """Step 1 with its grading, of problems with a usable signal: of all, or of those at `index`."""
        index = np.arange(len(self)) if index is None else index
        usable = index[np.isfinite(self.bits[index, 0])]
        final = self.correct[usable, -1] if self.steps > 1 else None
        return Examples(entropy=self.bits[usable, 0], correct=self.correct[usable, 0], final=final)

    def scores(self, scorer: Scorer | None) -> Floats:
        """(n, K): the scores of a decider, or the signal where there is none; NaN where the gate does not decide."""
        if scorer is None:
            return self.bits
        tokens = np.diff(self.generated, axis=1, prepend=0.0)
        starts = np.arange(len(self)) * self.steps
        return scorer.scores(self.bits.ravel(), tokens.ravel(), starts).reshape(self.bits.shape)

    def checkpoints(self, settings: GateSettings) -> Checkpoints:
        """Where the gate may stop each problem at some threshold, and what that costs."""
        scored = self.scores(settings.decider)
        scores = scored.copy()
        for back in range(1, settings.patience):
            scores[:, back:] = np.maximum(scores[:, back:], scored[:, :-back])
            scores[:, :back] = np.nan
        deciding = np.arange(self.steps) < (1 if settings.decide == "first" else settings.max_steps)
        scores[~deciding | (self.generated < settings.min_tokens)] = np.nan
        final = self.correct[:, [min(settings.max_steps, self.steps) - 1]]
        return Checkpoints(
            scores=scores.ravel(),
            harms=(~self.correct & final).ravel(),
            rescues=(self.correct & ~final).ravel(),
            starts=np.arange(len(self)) * self.steps,
        )

    def stops(self, settings: GateSettings) -> Ints:
        """The column (from 0) at which the gate stops each problem, shape (n,)."""
        end = min(settings.max_steps, self.steps) - 1
        if settings.threshold is None:
            return np.full(len(self), end)
        with np.errstate(invalid="ignore"):
            confident = self.scores(settings.decider) <= settings.threshold
            if settings.outlook is not None and settings.give_up is not None and not settings.flag_hopeless:
                confident |= self.scores(settings.outlook) <= settings.give_up
        in_a_row, stopping = np.zeros(len(self), dtype=np.int64), np.zeros_like(confident)
        for step in range(self.steps if settings.decide == "every" else 1):
            in_a_row = np.where(confident[:, step], in_a_row + 1, 0)
            stopping[:, step] = (in_a_row >= settings.patience) & (self.generated[:, step] >= settings.min_tokens)
        first = np.where(stopping.any(axis=1), stopping.argmax(axis=1), end)
        return np.minimum(first, end)

    def probed(self, stops: Ints, settings: GateSettings) -> Ints:
        """How many columns before its stop the gate has probed, shape (n,); 0 if its signal is not read off probes."""
        if self.probes is None or settings.threshold is None:
            return np.zeros_like(stops)
        return np.minimum(stops, 1) if settings.decide == "first" else stops


def parts_of(tables: Sequence[Table], index: Ints | Bools) -> list[Table]:
    """The problems at `index` of tables that differ in their signals only, which share all other columns."""
    first = tables[0].rows(index)
    return [
        replace(first, signal=table.signal, bits=table.bits[index], measurable=table.measurable) for table in tables
    ]


def table_of(traces: Iterable[Batch | Trace], signal: Signal, *, prices: Mapping[str, Price] | None = None) -> Table:
    """The columns of traces under a signal; raises `InputError` if an answer is not graded."""
    return tables_of(traces, [signal], prices=prices)[0]


def tables_of(
    traces: Iterable[Batch | Trace], signals: Sequence[Signal], *, prices: Mapping[str, Price] | None = None
) -> tuple[Table, ...]:
    """A table under each signal; the traces are read once. Raises `InputError` if an answer is not graded."""
    return tables_from(columns_under(traces, signals), prices=prices)


def tables_from(measured: Sequence[Columns], *, prices: Mapping[str, Price] | None = None) -> tuple[Table, ...]:
    """`tables_of` the traces of these columns."""
    columns = measured[0]
    columns.require_graded()
    strata = columns.strata()
    probe = np.maximum(columns.probe_tokens, 0)
    layered = bool((columns.layers >= 0).all() and (columns.depth >= 0).all())
    # A prompt runs through all layers, so the deepest token of a model has the depth of its network.
    depths = np.zeros(len(columns.model_names), dtype=np.int64)
    np.maximum.at(depths, columns.step_models, columns.depth)
    whole = depths[columns.step_models] * columns.tokens
    first = Table(
        signal=columns.signal,
        bits=columns.padded_bits(),
        correct=columns.padded(columns.right),
        unanswered=columns.padded(columns.unanswered),
        spent=columns.spent().astype(np.float64),
        generated=columns.summed(columns.tokens).astype(np.float64),
        last_only=(columns.tokens + probe)[columns.last()].astype(np.float64),
        lengths=columns.lengths,
        probes=columns.before(np.where(columns.streaming[columns.problem_of], probe, 0).astype(np.float64))
        if columns.signal.probed
        else None,
        groups=None if strata is None else tuple(strata),
        problems=tuple(columns.hashed_ids) if len(set(columns.hashed_ids)) < len(columns) else None,
        costs=None if prices is None else costs_of(columns, prices),
        latency=None if np.isnan(columns.latency).any() else columns.summed(columns.latency),
        layers=columns.summed(columns.layers).astype(np.float64) if layered else None,
        whole_layers=columns.summed(whole)[:, -1].astype(np.float64) if layered else None,
        per_token=columns.per_token,
    )
    return tuple(
        replace(first, signal=each.signal, bits=each.padded_bits(), measurable=each.lacking is None)
        for each in measured
    )
