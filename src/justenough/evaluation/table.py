"""Traces as columns: what replaying a threshold needs, and the gate's decision on all problems at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from justenough.calibration.thresholds import Examples
from justenough.errors import InputError
from justenough.evaluation.columns import Columns
from justenough.evaluation.costs import Costs, Price
from justenough.gate import GateSettings
from justenough.signal.signal import Signal
from justenough.trace import Trace

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """n problems of up to K steps; a problem with fewer repeats its last step, so that "all steps" is column K."""

    signal: Signal
    bits: Floats
    """(n, K): the step's signal; NaN where there is none, or too little of it, to decide on."""
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
    groups: tuple[str, ...] | None
    costs: Costs | None = None
    """Where prices are known."""
    latency: Floats | None = None
    """(n, K): seconds of a run that stops after the step, where all are recorded."""
    per_token: bool = True
    """Whether every first step came with token entropies, so that they can be pooled in other ways."""
    measurable: bool = True
    """Whether every first step holds what the signal's pooling needs."""

    def __len__(self) -> int:
        return len(self.bits)

    @property
    def steps(self) -> int:
        """K."""
        return int(self.bits.shape[1])

    def rows(self, index: Ints | Bools) -> Table:
        """The problems at `index`."""
        chosen = np.arange(len(self))[index]
        return replace(
            self,
            bits=self.bits[index],
            correct=self.correct[index],
            unanswered=self.unanswered[index],
            spent=self.spent[index],
            generated=self.generated[index],
            last_only=self.last_only[index],
            costs=None,
            latency=None,
            groups=None if self.groups is None else tuple(self.groups[row] for row in chosen),
        )

    def examples(self, index: Ints | None = None) -> Examples:
        """Step 1 with its grading, of problems with a usable signal; or of those at `index`, which must have one."""
        usable = np.isfinite(self.bits[:, 0]) if index is None else index
        final = self.correct[usable, -1] if self.steps > 1 else None
        return Examples(entropy=self.bits[usable, 0], correct=self.correct[usable, 0], final=final)

    def stops(self, settings: GateSettings) -> Ints:
        """The column (0-based) at which the gate stops each problem, shape (n,); a test holds it equal to `Gate`."""
        end = min(settings.max_steps, self.steps) - 1
        if settings.threshold is None:
            return np.full(len(self), end)
        with np.errstate(invalid="ignore"):
            confident = self.bits <= settings.threshold
        if settings.decide == "first":
            stopping = confident & (self.generated >= settings.min_tokens)
            stopping[:, 1:] = False
        else:
            in_a_row = np.zeros(len(self), dtype=np.int64)
            stopping = np.zeros_like(confident)
            for step in range(self.steps):
                in_a_row = np.where(confident[:, step], in_a_row + 1, 0)
                stopping[:, step] = (in_a_row >= settings.patience) & (self.generated[:, step] >= settings.min_tokens)
        first = np.where(stopping.any(axis=1), stopping.argmax(axis=1), end)
        return np.minimum(first, end)


def table_of(traces: Iterable[Trace], signal: Signal, *, prices: Mapping[str, Price] | None = None) -> Table:
    """The columns of traces under a signal; raises `InputError` where a step is neither graded nor unanswered."""
    return tables_of(traces, [signal], prices=prices)[0]


def tables_of(
    traces: Iterable[Trace], signals: Sequence[Signal], *, prices: Mapping[str, Price] | None = None
) -> tuple[Table, ...]:
    """A table under each signal, of traces that are gone through once and not held."""
    columns = Columns(signals, prices=prices)
    for trace in traces:
        columns.add(trace)
    if not len(columns):
        raise InputError("there is no trace", hint="collect some first")
    first = Table(
        signal=signals[0],
        bits=columns.bits(0),
        correct=columns.correct(),
        unanswered=columns.unanswered(),
        spent=columns.spent(),
        generated=columns.generated(),
        last_only=columns.last_only(),
        groups=columns.groups,
        costs=columns.costs(),
        latency=columns.latency(),
        per_token=columns.per_token,
    )
    return tuple(
        replace(first, signal=signal, bits=columns.bits(place), measurable=columns.measurable[place])
        for place, signal in enumerate(signals)
    )
