"""Turns traces into columns, in one pass and without keeping the traces."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, TypeVar

import numpy as np

from justenough.errors import InputError
from justenough.signal.pooling import Field
from justenough.signal.signal import MIN_COVERAGE, Signal
from justenough.trace.batches import Batch
from justenough.trace.columns import EACH, FLAT, UNKNOWN, Columns, Ints
from justenough.trace.types import Trace

Item = TypeVar("Item", bound=Batch | Trace)
REAL: Final = ("latency", "coverage")


def columns_of(
    traces: Iterable[Batch | Trace], signal: Signal | None = None, *, measure: Literal["first", "every"] = "every"
) -> Columns:
    """The columns of traces under a signal, by default that of the first trace; `measure` chooses the steps."""
    return columns_under(traces, None if signal is None else [signal], measure=measure)[0]


def columns_under(
    traces: Iterable[Batch | Trace], signals: Sequence[Signal] | None, *, measure: Literal["first", "every"] = "every"
) -> tuple[Columns, ...]:
    """Columns under each of the signals, in one pass. They share everything except `bits`. Raises `InputError` if there
    is no trace.
    """
    builder: _Builder | None = None
    for item in traces:
        builder = builder or _Builder(signals or [item.signal], first_only=measure == "first")
        if isinstance(item, Trace):
            builder.add(item)
        elif all(map(item.measures, builder.signals)):
            builder.add_batch(item)
        else:
            for trace in item.traces():
                builder.add(trace)
    if builder is None:
        raise InputError("there is no trace", hint="collect some first")
    return builder.columns()


class _Builder:
    """Appends one trace after the other to flat arrays."""

    def __init__(self, signals: Sequence[Signal], *, first_only: bool) -> None:
        self.signals, self._first_only = signals, first_only
        self._offsets = array("q", [0])
        self._bits = [array("d") for _ in signals]
        self._lacking: list[Field | None] = [None] * len(signals)
        self._flat: dict[str, array[Any]] = {
            name: array("d" if name in REAL else "q") for name in FLAT if name != "bits"
        }
        self._each: dict[str, list[object]] = {name: [] for name in EACH}
        self._answers: dict[str, int] = {}
        self._models: dict[str, int] = {}
        self._per_token = True

    def add(self, trace: Trace) -> None:
        for number, step in enumerate(trace.steps):
            self._measure(trace, number)
            probe = step.probe
            row = {
                "tokens": step.tokens,
                "probe_tokens": UNKNOWN if probe is None else probe.tokens,
                "prompt_tokens": step.prompt_tokens,
                "probe_prompt_tokens": None if probe is None else probe.prompt_tokens,
                "layers": step.count("layers"),
                "depth": step.count("depth"),
                "answers": None if step.answer is None else self._answers.setdefault(step.answer, len(self._answers)),
                "correct": None if step.correct is None else int(step.correct),
                "step_models": self._models.setdefault(step.model or trace.model, len(self._models)),
                "latency": step.latency_s,
                "coverage": step.coverage(),
            }
            for name, value in row.items():
                missing = math.nan if name in REAL else UNKNOWN
                self._flat[name].append(missing if value is None else value)
        self._offsets.append(self._offsets[-1] + len(trace.steps))
        self._per_token = self._per_token and bool(trace.steps[0].entries)
        each = {
            "ids": trace.id,
            "hashed_ids": trace.hashed_id,
            "seeds": UNKNOWN if trace.seed is None else trace.seed,
            # One text object for all problems that share it.
            "tasks": sys.intern(trace.task),
            "families": sys.intern(trace.family or ""),
            "groups": None if trace.group is None else sys.intern(trace.group),
            "models": sys.intern(trace.model),
            "streaming": trace.shape == "streaming",
        }
        for key, item in each.items():
            self._each[key].append(item)

    def add_batch(self, batch: Batch) -> None:
        """Like `add` for each trace of the batch."""
        steps, probes, runs = batch.steps, batch.probes, batch.runs
        none = np.full(steps.size, UNKNOWN)
        first = batch.offsets[:-1]
        at = first if self._first_only else np.arange(steps.size)
        at = at[~(batch.coverage[at] < MIN_COVERAGE)]
        for place, signal in enumerate(self.signals):
            bits = np.full(steps.size, np.nan)
            bits[at] = batch.bits(signal, at)
            self._bits[place].frombytes(bits.tobytes())
            for missing in first[np.isnan(bits[first])].tolist() if self._lacking[place] is None else ():
                self._lacking[place] = batch.lacks(signal, missing)
                if self._lacking[place] is not None:
                    break
        flat = {
            "tokens": steps.counts("tokens"),
            # A probe that does not count its tokens has none.
            "probe_tokens": np.where(probes.there, np.maximum(probes.counts("tokens"), 0), UNKNOWN),
            "prompt_tokens": steps.counts("prompt_tokens"),
            "probe_prompt_tokens": probes.counts("prompt_tokens"),
            "layers": none,
            "depth": none,
            "answers": _coded(self._answers, *steps.coded("answer")),
            "correct": steps.counts("correct"),
            "step_models": _coded(self._models, *batch.step_models),
            "latency": steps.reals("latency_s"),
            "coverage": batch.coverage,
        }
        for name, values in flat.items():
            self._flat[name].frombytes(values.tobytes())
        self._offsets.frombytes((batch.offsets[1:] + self._offsets[-1]).tobytes())
        self._per_token = self._per_token and bool((batch.entries[first] > 0).all())
        each: dict[str, Iterable[object]] = {
            "ids": batch.ids,
            "hashed_ids": batch.hashed_ids,
            "seeds": runs.counts("seed").tolist(),
            "tasks": map(sys.intern, batch.tasks),
            "families": map(sys.intern, batch.families),
            "groups": (None if group is None else sys.intern(group) for group in runs.texts("group")),
            "models": map(sys.intern, batch.models),
            "streaming": (shape == "streaming" for shape in batch.shapes),
        }
        for name, items in each.items():
            self._each[name].extend(items)

    def _measure(self, trace: Trace, number: int) -> None:
        step = trace.steps[number]
        skipped = number > 0 and self._first_only
        values = [None] * len(self.signals) if skipped else step.values(self.signals)
        for place, bits in enumerate(values):
            self._bits[place].append(math.nan if bits is None else bits)
            if bits is None and number == 0 and self._lacking[place] is None:
                self._lacking[place] = step.lacks(self.signals[place])

    def columns(self) -> tuple[Columns, ...]:
        kinds = {"seeds": np.int64, "streaming": np.bool_}
        first = Columns(
            signal=self.signals[0],
            offsets=np.frombuffer(self._offsets, dtype=np.int64),
            bits=np.frombuffer(self._bits[0]),
            model_names=tuple(self._models),
            answer_texts=tuple(self._answers),
            per_token=self._per_token,
            lacking=self._lacking[0],
            **{name: np.frombuffer(values, dtype=values.typecode) for name, values in self._flat.items()},
            **{name: np.array(values, dtype=kinds.get(name, np.object_)) for name, values in self._each.items()},
        )
        return tuple(
            replace(first, signal=signal, bits=np.frombuffer(self._bits[place]), lacking=lacking)
            for place, (signal, lacking) in enumerate(zip(self.signals, self._lacking, strict=True))
        )


def _coded(codes: dict[str, int], places: Ints, texts: Sequence[str | None]) -> Ints:
    """The code of each text, new ones in the order in which they appear."""
    used, first = np.unique(places, return_index=True)
    values = np.full(len(texts), UNKNOWN)
    for place in used[np.argsort(first)].tolist():
        if (text := texts[place]) is not None:
            values[place] = codes.setdefault(text, len(codes))
    return values[places]
