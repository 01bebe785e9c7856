"""Traces as columns: what replaying a threshold needs, and the gate's decision on all problems at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.evaluation.costs import Costs, Price, costs_of, latency_of
from justenough.gate import GateSettings
from justenough.labelled import groups_of
from justenough.signals import Signal
from justenough.thresholds import Examples
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

    def examples(self) -> Examples:
        """Step 1 with its grading, of problems with a usable signal."""
        usable = np.isfinite(self.bits[:, 0])
        final = self.correct[usable, -1] if self.steps > 1 else None
        return Examples(entropy=self.bits[usable, 0], correct=self.correct[usable, 0], final=final)

    def stops(self, settings: GateSettings) -> Ints:
        """The column (0-based) at which the gate stops each problem, shape (n,); a test holds it equal to `Gate`."""
        if settings.threshold is None:
            return np.full(len(self), self._end(settings))
        row: Ints = self.stops_each(settings, np.array([settings.threshold]))[0]
        return row

    def stops_each(self, settings: GateSettings, thresholds: Floats) -> Ints:
        """`stops` at each of the thresholds (m,) in place of the settings' own, shape (m, n)."""
        with np.errstate(invalid="ignore"):
            confident = self.bits <= thresholds[:, None, None]
        enough = self.generated >= settings.min_tokens
        if settings.decide == "first":
            stopping = confident & enough
            stopping[:, :, 1:] = False
        else:
            in_a_row = np.zeros(confident.shape[:2], dtype=np.int64)
            stopping = np.zeros_like(confident)
            for step in range(self.steps):
                in_a_row = np.where(confident[:, :, step], in_a_row + 1, 0)
                stopping[:, :, step] = (in_a_row >= settings.patience) & enough[:, step]
        end = self._end(settings)
        first = np.where(stopping.any(axis=2), stopping.argmax(axis=2), end)
        return np.minimum(first, end)

    def _end(self, settings: GateSettings) -> int:
        return min(settings.max_steps, self.steps) - 1


def table_of(traces: Sequence[Trace], signal: Signal, *, prices: Mapping[str, Price] | None = None) -> Table:
    """The columns of traces under a signal; raises `InputError` where a step is neither graded nor unanswered."""
    if not traces:
        raise InputError("there is no trace", hint="collect some first")
    n, steps = len(traces), max(len(trace.steps) for trace in traces)
    bits = np.full((n, steps), np.nan)
    correct, unanswered = np.zeros((n, steps), dtype=bool), np.zeros((n, steps), dtype=bool)
    spent, generated = np.zeros((n, steps)), np.zeros((n, steps))
    last_only = np.zeros(n)
    for row, trace in enumerate(traces):
        total = 0
        for column in range(steps):
            number = min(column, len(trace.steps) - 1)
            step = trace.steps[number]
            if column == number:
                value = step.usable_bits(signal)
                if value is not None:
                    bits[row, column] = value
                total += step.tokens
            if step.correct is None and step.answer is not None:
                raise InputError(
                    f"{trace.id}: step {number + 1} has an answer that is not graded", hint="collect with targets"
                )
            correct[row, column] = step.is_correct
            unanswered[row, column] = step.is_unanswered
            spent[row, column] = trace.tokens_to(number + 1)
            generated[row, column] = total
        last_only[row] = trace.steps[-1].total_tokens
    groups = groups_of(traces)
    return Table(
        signal=signal,
        bits=bits,
        correct=correct,
        unanswered=unanswered,
        spent=spent,
        generated=generated,
        last_only=last_only,
        groups=None if groups is None else tuple(groups),
        costs=None if prices is None else costs_of(traces, prices, steps=steps),
        latency=latency_of(traces, steps=steps),
    )
