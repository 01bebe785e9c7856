"""Traces as columns: one flat array per quantity over all checkpoints, with the offset of each problem.

A checkpoint is a place where a run may stop: the end of a step. Problems may have different numbers of checkpoints.
Rules, fits and reports read these arrays. The traces are read once and do not stay in memory.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.signal.pooling import Field
from justenough.signal.signal import MIN_COVERAGE, Signal
from justenough.trace.batches import Batch
from justenough.trace.levels import UNKNOWN as UNKNOWN
from justenough.trace.types import Shape, Trace

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Texts = NDArray[np.object_]
Item = TypeVar("Item", bound=Batch | Trace)
Kind = TypeVar("Kind", np.float64, np.int64, np.int8, np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """n problems with m checkpoints in total; problem i has the checkpoints `offsets[i]` to `offsets[i + 1] - 1`."""

    signal: Signal
    offsets: Ints
    """(n + 1,)"""

    bits: Floats
    """(m,): the signal; NaN if it is missing, or if too few tokens have it."""
    tokens: Ints
    """(m,): tokens of the step alone, without its probe."""
    probe_tokens: Ints
    """(m,): tokens of the probe; -1 where there was no probe."""
    prompt_tokens: Ints
    """(m,): prompt tokens that the step read; -1 where unknown."""
    probe_prompt_tokens: Ints
    """(m,): prompt tokens that the probe read; -1 where unknown."""
    latency: Floats
    """(m,): seconds of the step; NaN if unknown."""
    layers: Ints
    """(m,): layers that ran for the tokens of the step, without its probe; -1 where they are not recorded."""
    depth: Ints
    """(m,): the most layers that ran for one token of the step; -1 where they are not recorded."""
    answers: Ints
    """(m,): the same code for the same answer text, over all problems; -1 where there is no answer."""
    correct: Ints
    """(m,): 1 right, 0 wrong, -1 not graded."""
    coverage: Floats
    """(m,): share of the tokens with log-probabilities; NaN if only one number per step is recorded."""
    step_models: Ints
    """(m,): the model of the step, as an index into `model_names`."""
    model_names: tuple[str, ...]
    answer_texts: tuple[str, ...]
    """The text of each answer code."""

    ids: Texts
    """(n,)"""
    hashed_ids: Texts
    """(n,)"""
    seeds: Ints
    """(n,): -1 where none is recorded."""
    tasks: Texts
    """(n,)"""
    families: Texts
    """(n,): empty if none is recorded."""
    groups: Texts
    """(n,): difficulty level or category; None if none is recorded."""
    models: Texts
    """(n,)"""
    streaming: Bools
    """(n,): whether the problem's shape is `streaming`."""
    per_token: bool
    """Whether every first step has token entropies, so that other poolings can be computed."""
    lacking: Field | None
    """The field that the signal's pooling needs and some first step does not have; None if all first steps have it."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> Ints:
        """(n,): checkpoints of each problem."""
        return np.diff(self.offsets)

    @property
    def steps(self) -> int:
        """K, the largest number of checkpoints."""
        return int(self.lengths.max())

    @property
    def shape(self) -> Shape:
        """The shape of the first problem."""
        return "streaming" if self.streaming[0] else "sequential"

    @property
    def first(self) -> Ints:
        """(n,): the index of each problem's first checkpoint."""
        return self.offsets[:-1]

    def last(self, max_steps: int | None = None) -> Ints:
        """(n,): the index of each problem's last checkpoint in a run of at most `max_steps`."""
        lengths = self.lengths if max_steps is None else np.minimum(self.lengths, max_steps)
        return self.offsets[:-1] + lengths - 1

    @property
    def right(self) -> Bools:
        """(m,): whether the answer is right; no answer counts as wrong."""
        return self.correct > 0

    @property
    def unanswered(self) -> Bools:
        """(m,)"""
        return (self.answers < 0) & (self.correct < 0)

    @property
    def graded(self) -> Bools:
        """(m,): whether the answer is graded; no answer counts as graded."""
        return (self.correct >= 0) | (self.answers < 0)

    @property
    def problem_of(self) -> Ints:
        """(m,): the problem of each checkpoint."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def strata(self) -> list[str] | None:
        """Family and group of each problem, in which separation is also measured; None if there are no groups."""
        if all(group is None for group in self.groups):
            return None
        return [f"{family}/{group or ''}" for family, group in zip(self.families, self.groups, strict=True)]

    def require_graded(self) -> None:
        """Raise `InputError` if an answer is not graded."""
        if not len(bad := np.flatnonzero(~self.graded)):
            return
        problem = int(self.problem_of[bad[0]])
        number = int(bad[0] - self.offsets[problem]) + 1
        raise InputError(
            f"{self.ids[problem]}: step {number} has an answer that is not graded", hint="collect with targets"
        )

    def rows(self, index: Ints | Bools) -> Columns:
        """The problems at `index`, in that order."""
        chosen = np.arange(len(self))[index]
        lengths = self.lengths[chosen]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], lengths)
        flat = {name: getattr(self, name)[places] for name in _FLAT}
        each = {name: getattr(self, name)[chosen] for name in _EACH}
        return replace(self, offsets=offsets, **flat, **each)

    def padded(self, flat: NDArray[Kind], *, steps: int | None = None) -> NDArray[Kind]:
        """A flat column (m,) as (n, K): a problem with fewer checkpoints repeats its last one."""
        return flat[self._places(steps or self.steps)]

    def summed(self, flat: NDArray[Kind], *, steps: int | None = None) -> NDArray[Kind]:
        """Running sums of a flat column (m,) in each problem, as (n, K); constant after its last checkpoint."""
        padded = self.padded(flat, steps=steps)
        recorded = self.recorded(steps=steps)
        sums: NDArray[Kind] = np.cumsum(np.where(recorded, padded, flat.dtype.type(0)), axis=1)
        return sums

    def before(self, flat: NDArray[Kind]) -> NDArray[Kind]:
        """(n, K): the sum within each problem of a flat column (m,) over the checkpoints before this one."""
        return self.padded((self.summed(flat) - self.padded(flat))[self.recorded()])

    def recorded(self, *, steps: int | None = None) -> Bools:
        """(n, K): whether the problem has that checkpoint."""
        return np.arange(steps or self.steps) < self.lengths[:, None]

    def padded_bits(self, *, steps: int | None = None) -> Floats:
        """(n, K): the signal; NaN if it is missing, and after a problem's last checkpoint."""
        return np.where(self.recorded(steps=steps), self.padded(self.bits, steps=steps), np.nan)

    def spent(self, *, steps: int | None = None) -> Ints:
        """(n, K): tokens of a run that stops at the checkpoint. A streaming run is probed only there."""
        probes = np.maximum(self.probe_tokens, 0)
        once = self.summed(self.tokens, steps=steps) + self.padded(probes, steps=steps)
        return np.where(self.streaming[:, None], once, self.summed(self.tokens + probes, steps=steps))

    def _places(self, steps: int) -> Ints:
        return self.offsets[:-1, None] + np.minimum(np.arange(steps), self.lengths[:, None] - 1)


_EACH: Final = ("ids", "hashed_ids", "seeds", "tasks", "families", "groups", "models", "streaming")
_FLAT: Final = (
    "bits",
    "tokens",
    "probe_tokens",
    "prompt_tokens",
    "probe_prompt_tokens",
    "latency",
    "layers",
    "depth",
    "answers",
    "correct",
    "coverage",
    "step_models",
)
_REAL: Final = ("latency", "coverage")


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
            name: array("d" if name in _REAL else "q") for name in _FLAT if name != "bits"
        }
        self._each: dict[str, list[object]] = {name: [] for name in _EACH}
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
                missing = math.nan if name in _REAL else UNKNOWN
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
            "answers": _coded(self._answers, steps.texts("answer")),
            "correct": steps.counts("correct"),
            "step_models": _coded(self._models, batch.step_models),
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
            offsets=np.array(self._offsets, dtype=np.int64),
            bits=np.array(self._bits[0], dtype=np.float64),
            model_names=tuple(self._models),
            answer_texts=tuple(self._answers),
            per_token=self._per_token,
            lacking=self._lacking[0],
            **{name: np.array(values) for name, values in self._flat.items()},
            **{name: np.array(values, dtype=kinds.get(name, np.object_)) for name, values in self._each.items()},
        )
        return tuple(
            replace(first, signal=signal, bits=np.array(self._bits[place], dtype=np.float64), lacking=lacking)
            for place, (signal, lacking) in enumerate(zip(self.signals, self._lacking, strict=True))
        )


def _coded(codes: dict[str, int], texts: Sequence[str | None]) -> Ints:
    """The code of each text, new ones in the order in which they appear."""
    return np.array([UNKNOWN if text is None else codes.setdefault(text, len(codes)) for text in texts])
