"""A batch of recorded traces as flat arrays, without Python objects for its steps.

Everything that is computed from them is bit for bit what the traces themselves give; a test compares both. A batch
that holds anything unusual, such as unknown keys, has no such form: its traces are then read one by one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from justenough.signal.entropy import Tail
from justenough.signal.pooling import Field, Measured
from justenough.signal.signal import Signal
from justenough.trace.blocks import Floats, Rows
from justenough.trace.levels import UNKNOWN, Bools, Ints, Level, Numbers, Texts
from justenough.trace.parquet import list_offsets
from justenough.trace.pooled import pooled
from justenough.trace.sums import Sums
from justenough.trace.types import SHAPES, Probe, Step, Trace, hashed

if TYPE_CHECKING:
    import pyarrow as pa


class Batch:
    """The traces of a batch under one signal, as columns."""

    def __init__(self, first: Trace, runs: Level, steps: Level, probes: Level, lengths: Ints) -> None:
        self.first, self.runs, self.steps, self.probes = first, runs, steps, probes
        self.signal: Signal = first.signal
        self.offsets: Ints = np.concatenate(([0], np.cumsum(lengths)))
        """(n + 1,): the steps of trace i are `offsets[i]` to `offsets[i + 1] - 1`."""
        self.traces: Callable[[], Iterable[Trace]] = tuple
        """Reads the traces one by one."""
        rows = steps.numbers("top_logprobs")
        self._rows = None if rows is None else Rows(rows.values)
        self._bits: dict[tuple[Tail, int | None], Sums] = {}

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def ids(self) -> list[str]:
        """(n,)"""
        return _filled(self.runs.texts("id"), "")

    @cached_property
    def tasks(self) -> list[str]:
        """(n,)"""
        return _filled(self.runs.texts("task"), "")

    @cached_property
    def models(self) -> list[str]:
        """(n,)"""
        return _filled(self.runs.texts("model"), "")

    @cached_property
    def families(self) -> list[str]:
        """(n,)"""
        return _filled(self.runs.texts("family"), "")

    @cached_property
    def shapes(self) -> list[str]:
        """(n,)"""
        return _filled(self.runs.texts("shape"), SHAPES[0])

    @cached_property
    def hashed_ids(self) -> list[str]:
        """(n,)"""
        return [hashed(task, id) for task, id in zip(self.tasks, self.ids, strict=True)]

    @cached_property
    def step_models(self) -> tuple[Ints, Texts]:
        """The model of each step (m,), as a place in the list of names."""
        (whole, names), (own, others) = self.runs.coded("model"), self.steps.coded("model")
        named = np.array(list(map(bool, others)))[own]
        return np.where(named, len(names) + own, np.repeat(whole, np.diff(self.offsets))), names + others

    @cached_property
    def entries(self) -> Ints:
        """(m,): tokens with log-probabilities; -1 where only a scalar is recorded."""
        numbers = self._entries
        if numbers is None:
            return np.full(self.steps.size, UNKNOWN)
        return np.where(numbers.valid, np.diff(numbers.offsets), UNKNOWN)

    @cached_property
    def coverage(self) -> Floats:
        """(m,): as `Step.coverage`; NaN where only a scalar is recorded."""
        tokens = self.steps.counts("tokens")
        share = np.where(tokens > 0, np.minimum(1.0, self.entries / np.maximum(tokens, 1)), 0.0)
        return np.where(self.entries < 0, np.nan, share)

    @property
    def _entries(self) -> Numbers | None:
        return self.steps.numbers("top_logprobs") or self.steps.numbers("entropies")

    def kinds(self) -> Iterator[Trace]:
        """The first trace of each model and shape, without its steps."""
        kinds = dict[tuple[str, str], int]()
        for place, kind in enumerate(zip(self.models, self.shapes, strict=True)):
            kinds.setdefault(kind, place)
        for (model, _), place in kinds.items():
            shape = next(shape for shape in SHAPES if shape == self.shapes[place])
            yield replace(self.first, id=self.ids[place], model=model, shape=shape, steps=())

    def any_step(self, holds: Bools) -> Bools:
        """(n,): whether something holds (m,) at a step of the trace."""
        return np.logical_or.reduceat(holds, self.offsets[:-1])

    def measures(self, signal: Signal) -> bool:
        """Whether the steps can be measured under a signal as columns."""
        return self.has_bits(signal) if signal.kind == "entropy" else signal.combination is None

    def has_bits(self, signal: Signal) -> bool:
        """Whether `token_bits` can be computed; the error of a single trace says why not."""
        if self._rows is None or not len(self._rows.values):
            return True
        narrow = signal.top_k is not None and self._rows.values.shape[1] < signal.top_k
        return not narrow and self._rows.bits(tail=signal.tail, top_k=signal.top_k) is not None

    @property
    def rows(self) -> Floats | None:
        """(N, k): the log-probabilities of all tokens; None if there are none."""
        return None if self._rows is None else self._rows.values

    def token_bits(self, signal: Signal) -> Sums:
        """Bits of all tokens; those of step i are `ends[i]` to `ends[i + 1] - 1`."""
        key = (signal.tail, signal.top_k)
        if key not in self._bits:
            bits = None if self._rows is None else self._rows.bits(tail=signal.tail, top_k=signal.top_k)
            numbers = self.steps.numbers("entropies")
            values = np.asarray(bits) if bits is not None else np.zeros(0) if numbers is None else numbers.values
            self._bits[key] = Sums(values)
        return self._bits[key]

    @cached_property
    def ends(self) -> Ints:
        """(m + 1,): where the tokens of each step begin, and where the last ones end."""
        return np.zeros(self.steps.size + 1, dtype=np.int64) if self._entries is None else self._entries.offsets

    @cached_property
    def _parallel(self) -> tuple[list[list[float] | None], list[list[str] | None]]:
        return self.steps.lists("logprobs"), self.steps.token_texts()

    def measured(self, at: int, signal: Signal) -> Measured:
        """As `Step.measured` of a step."""
        logprobs, texts = self._parallel
        bits = self.token_bits(signal).values[self.ends[at] : self.ends[at + 1]].tolist()
        return Measured(bits, logprobs=logprobs[at], texts=texts[at])

    def bits(self, signal: Signal, at: Ints) -> Floats:
        """As `Step.bits` of the steps `at`; NaN for None."""
        if signal.kind != "entropy":
            return self.steps.reals("uncertainty")[at]
        values = self.steps.reals("entropy")[at] if signal.pooling == "mean" else np.full(len(at), np.nan)
        measured = self.entries[at] > 0
        if not measured.any():
            return values
        if signal.combination is None and any(
            field != "entropies" and field not in self.steps.columns for field in signal.needs
        ):
            return np.where(measured, np.nan, values)
        chosen = at[measured]
        numbers = pooled(self.token_bits(signal), self.ends[chosen], self.ends[chosen + 1], signal.pooling)
        if numbers is None:
            each = (signal.of(self.measured(place, signal)) for place in chosen.tolist())
            numbers = np.array([math.nan if value is None else value for value in each])
        values[measured] = numbers
        return values

    def lacks(self, signal: Signal, at: int) -> Field | None:
        """As `Step.lacks` of a step."""
        if signal.kind != "entropy" or not np.isnan(self.bits(signal, np.array([at]))[0]):
            return None
        measured = self.measured(at, signal)
        return next((field for field in signal.needs if not measured.holds(field)), None)

    def digests(self) -> list[bytes]:
        """`trace_digest` of each trace."""
        probes = self.probes.rendered({}, {"answer": "null", "correct": "null", "tokens": "0"})
        steps = self.steps.rendered({"probe": probes}, {"answer": "null", "correct": "null", "text": '""'})
        whole = [f"[{', '.join(filter(None, steps[begin:end]))}]" for begin, end in pairwise(self.offsets.tolist())]
        first = self.first
        signal = json.dumps(first.signal.to_json() | dict(first.signal_extra), sort_keys=True)
        defaults = {"task": '""', "shape": f'"{SHAPES[0]}"', "signal": signal}
        nested: dict[str, Sequence[str | None]] = {"steps": whole, "signal": [signal] * len(self)}
        if first.prompts is not None:
            prompts = json.dumps(first.prompts.to_json() | dict(first.prompts_extra), sort_keys=True)
            nested["prompts"] = [prompts] * len(self)
        return [hashlib.sha256((text or "").encode()).digest() for text in self.runs.rendered(nested, defaults)]


def _filled(texts: Texts, default: str) -> list[str]:
    return [default if text is None else text for text in texts]


def batch_of(rows: pa.RecordBatch, first: Trace) -> Batch | None:
    """A batch of rows as columns; `first` is its first trace. None if it has values that only objects can show."""
    array = rows.to_struct_array()
    runs = Level(Trace, array)
    if not runs.covered(besides=("steps", "signal", "prompts")) or not {"id", "model", "steps"} <= set(runs.columns):
        return None
    whole = runs.columns["steps"]
    if any(runs.columns[name].null_count for name in ("id", "model", "steps")):
        return None
    steps = Level(Step, whole.flatten())
    lengths = np.diff(list_offsets(whole))
    if not (
        lengths.all()
        and steps.there.all()
        and steps.covered(besides=("probe",))
        and "tokens" in steps.columns
        and not steps.columns["tokens"].null_count
        # Each step has one kind of entries.
        and not {"top_logprobs", "entropies"} <= set(steps.columns)
        and whole.type.value_type.get_field_index("answer") >= 0
        and all(_constant(runs.columns[name]) for name in ("signal", "prompts") if name in runs.columns)
    ):
        return None
    probe = steps.columns.get("probe")
    probes = Level(Probe, probe if probe is not None else _no_probes(steps.size))
    batch = Batch(first, runs, steps, probes, lengths)
    if not probes.covered() or "" in batch.ids or not set(batch.shapes) <= set(SHAPES):
        return None
    return batch


def _no_probes(size: int) -> pa.StructArray:
    import pyarrow as pa

    return pa.nulls(size, pa.struct([("answer", pa.string())]))


def _constant(array: pa.Array) -> bool:
    """Whether all values of a column are equal."""
    import pyarrow as pa

    if array.null_count not in (0, len(array)):
        return False
    if pa.types.is_struct(array.type):
        return all(map(_constant, array.flatten()))
    return len(array.unique()) <= 1
