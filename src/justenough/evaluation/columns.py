"""Traces to columns, one trace after the other: what is kept of each is a handful of numbers a step."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.evaluation.costs import Costs, Price, costs_of
from justenough.signal.signal import Signal
from justenough.trace import Trace

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Kind = TypeVar("Kind", np.float64, np.int64, np.int8)


class Columns:
    """Gathers steps into flat columns and pads them to (n, K); a problem with fewer steps repeats its last."""

    def __init__(self, signals: Sequence[Signal], *, prices: Mapping[str, Price] | None = None) -> None:
        self.signals = signals
        self.prices = prices
        self.per_token = True
        """Whether every first step came with token entropies."""
        self.measurable = [True] * len(signals)
        """Of each signal: whether every first step holds what its pooling needs."""
        self._lengths, self._streaming = array("q"), array("b")
        self._bits = [array("d") for _ in signals]
        self._tokens, self._probes = array("q"), array("q")
        self._correct, self._unanswered = array("b"), array("b")
        self._seconds, self._timed = array("d"), True
        self._groups: list[str] = []
        self._names: dict[str, str] = {}
        self._grouped = False
        self._money, self._last, self._output, self._looks = array("d"), array("d"), array("d"), array("d")

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def steps(self) -> int:
        """K."""
        return max(self._lengths)

    def add(self, trace: Trace) -> None:
        """Take a trace; raises `InputError` where a step is neither graded nor unanswered."""
        for number, step in enumerate(trace.steps, 1):
            if step.correct is None and step.answer is not None:
                raise InputError(
                    f"{trace.id}: step {number} has an answer that is not graded", hint="collect with targets"
                )
            for place, bits in enumerate(step.values(self.signals)):
                self._bits[place].append(math.nan if bits is None else bits)
                if bits is None and number == 1 and step.lacks(self.signals[place]) is not None:
                    self.measurable[place] = False
            self._tokens.append(step.tokens)
            self._probes.append(step.total_tokens - step.tokens)
            self._correct.append(step.is_correct)
            self._unanswered.append(step.is_unanswered)
            self._seconds.append(step.latency_s or 0.0)
            self._timed = self._timed and step.latency_s is not None
        self._lengths.append(len(trace.steps))
        self._streaming.append(trace.shape == "streaming")
        self.per_token = self.per_token and bool(trace.steps[0].entries)
        self._grouped = self._grouped or trace.group is not None
        name = f"{trace.family or ''}/{trace.group or ''}"
        # One text for each group, not for each problem.
        self._groups.append(self._names.setdefault(name, name))
        if self.prices is not None:
            costs = costs_of([trace], self.prices, steps=len(trace.steps))
            self._money.frombytes(costs.money.tobytes())
            self._last.append(costs.last[0])
            self._output.append(costs.output[0])
            self._looks.frombytes(costs.looks.tobytes())

    @property
    def groups(self) -> tuple[str, ...] | None:
        """Of each problem, within families where both are recorded; None where there are none."""
        return tuple(self._groups) if self._grouped else None

    def bits(self, signal: int) -> Floats:
        """Of the signal at that place, (n, K): NaN where there is none, and beyond a problem's last step."""
        bits = self._padded(np.frombuffer(self._bits[signal]))
        bits[~self._recorded] = np.nan
        return bits

    def correct(self) -> Bools:
        """(n, K)"""
        return self._padded(np.frombuffer(self._correct, dtype=np.int8)) > 0

    def unanswered(self) -> Bools:
        """(n, K)"""
        return self._padded(np.frombuffer(self._unanswered, dtype=np.int8)) > 0

    def generated(self) -> Floats:
        """(n, K): tokens of the steps up to this one, without the elicitation there."""
        return self._summed(np.frombuffer(self._tokens, dtype=np.int64)).astype(np.float64)

    def spent(self) -> Floats:
        """(n, K): tokens of a run that stops after the step; a streaming one elicits its answer only there."""
        tokens, probes = np.frombuffer(self._tokens, dtype=np.int64), np.frombuffer(self._probes, dtype=np.int64)
        streaming = np.frombuffer(self._streaming, dtype=np.int8)[:, None] > 0
        spent = np.where(streaming, self._summed(tokens) + self._padded(probes), self._summed(tokens + probes))
        return spent.astype(np.float64)

    def last_only(self) -> Floats:
        """(n,): tokens of the last step alone."""
        tokens, probes = np.frombuffer(self._tokens, dtype=np.int64), np.frombuffer(self._probes, dtype=np.int64)
        return (tokens + probes)[self._places[:, -1]].astype(np.float64)

    def latency(self) -> Floats | None:
        """(n, K): seconds of a run that stops after the step; None where not all are recorded."""
        return self._summed(np.frombuffer(self._seconds)) if self._timed else None

    def costs(self) -> Costs | None:
        """Where prices are known."""
        if self.prices is None:
            return None
        return Costs(
            money=self._padded(np.frombuffer(self._money)),
            last=np.frombuffer(self._last).copy(),
            output=np.frombuffer(self._output).copy(),
            looks=self._padded(np.frombuffer(self._looks)),
        )

    @property
    def _ends(self) -> Ints:
        """(n, 1): each problem's last column."""
        return np.frombuffer(self._lengths, dtype=np.int64)[:, None] - 1

    @property
    def _recorded(self) -> Bools:
        return np.arange(self.steps) <= self._ends

    @property
    def _places(self) -> Ints:
        """(n, K): where each cell's step lies in the flat columns."""
        lengths = np.frombuffer(self._lengths, dtype=np.int64)
        begins = np.cumsum(lengths) - lengths
        return begins[:, None] + np.minimum(np.arange(self.steps), self._ends)

    def _padded(self, flat: NDArray[Kind]) -> NDArray[Kind]:
        return flat[self._places]

    def _summed(self, flat: NDArray[Kind]) -> NDArray[Kind]:
        summed: NDArray[Kind] = np.cumsum(np.where(self._recorded, self._padded(flat), flat.dtype.type(0)), axis=1)
        return summed
