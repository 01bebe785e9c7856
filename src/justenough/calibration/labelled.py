"""Labelled traces: which can be measured, which are drawn, and what they say as examples.

Traces are gone through once and not held: what a calibration takes of each is a row of a few values.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Final, Literal, NamedTuple

import numpy as np

from justenough.calibration.thresholds import Examples
from justenough.errors import InputError, ModelMismatch, NotEnoughExamples, SignalMismatch
from justenough.prompts import Prompts
from justenough.signal.combination import MINIMUM, NAMES, fit_rows, inputs_of
from justenough.signal.signal import COMBINATION, Signal
from justenough.trace import Shape, Trace, trace_digest

Labels = Literal["graded", "agreement"]

REST: Final = 10
"""Labels that a combination's threshold takes beside those of its weights."""


class Labelled(NamedTuple):
    """What a calibration takes of a trace whose first step can be measured."""

    hashed_id: str
    seed: int | None
    digest: bytes
    task: str
    family: str
    group: str | None
    bits: float
    """Of the first step."""
    inputs: tuple[float | None, ...]
    """Of a combination, where one is to be fitted."""
    correct: bool
    """Whether the first step is right; unanswered counts as wrong."""
    graded: bool
    """Whether that is known."""
    agrees: bool
    """Whether the first step's answer is the last one's."""
    final: bool
    """Whether the last step is right."""
    final_graded: bool
    later: bool
    """Whether there are steps after the first."""


class Gathered(NamedTuple):
    """The rows of traces of one model, shape and signal."""

    rows: list[Labelled]
    signal: Signal
    model: str
    shape: Shape
    steps: int
    """Of the longest trace."""
    prompts: Prompts | None
    """What all of them were asked; None where that is not recorded, or differs."""
    warnings: list[str]
    """Of traces that were left out."""


def gathered(
    traces: Iterable[Trace], *, signal: Signal | None = None, pooling: str | None = None, max_steps: int | None = None
) -> Gathered:
    """Rows of traces whose first step can be measured; the last step is that of a run of `max_steps`.

    The signal is by default the first trace's, with `pooling` in place of its own; for `combination` the rows hold the
    inputs that its weights are fitted on. Raises `ModelMismatch` or `SignalMismatch` for traces of several kinds and
    `NotEnoughExamples` where none can be measured.
    """
    if max_steps is not None and max_steps < 1:
        raise InputError(f"max_steps is {max_steps}", hint="at least 1")
    rows: list[Labelled] = []
    models, shapes = set[str](), set[Shape]()
    prompts: dict[str, Prompts] = {}
    differing: SignalMismatch | None = None
    lacking: str | None = None
    count = steps = 0
    for trace in traces:
        if not count:
            signal = _signal(signal or trace.signal, pooling)
        count += 1
        models.add(trace.model)
        shapes.add(trace.shape)
        if trace.prompts is not None:
            prompts.setdefault(trace.prompts.digest, trace.prompts)
        steps = max(steps, len(trace.steps))
        if signal is None or differing is not None or len(models) > 1 or len(shapes) > 1:
            continue
        try:
            _require_alike(trace, signal)
        except SignalMismatch as error:
            differing = error
            continue
        bits = trace.steps[0].usable_bits(signal)
        if bits is not None:
            rows.append(_row(trace, signal, bits, combining=pooling == COMBINATION, max_steps=max_steps))
        elif lacking is None:
            lacking = trace.steps[0].lacks(signal)
    if signal is None or not count:
        raise NotEnoughExamples("there is no trace to calibrate on", needed=1, hint="collect some first")
    if len(models) > 1:
        named = ", ".join(sorted(models))
        raise ModelMismatch(f"the traces are of {len(models)} models: {named}", hint="calibrate each apart")
    if len(shapes) > 1:
        raise SignalMismatch("the traces mix sequential and streaming steps", hint="calibrate each apart")
    if differing is not None:
        raise differing
    if not rows:
        raise _unusable(signal, lacking)
    left = count - len(rows)
    warnings = [f"{left} of {count} problems lack a usable signal at step 1 and were left out"] if left else []
    if len(prompts) > 1:
        warnings.append(f"the traces were asked with {len(prompts)} different prompts: none is stored")
    asked = next(iter(prompts.values())) if len(prompts) == 1 else None
    return Gathered(rows, signal, models.pop(), shapes.pop(), steps, asked, warnings)


def _signal(recorded: Signal, pooling: str | None) -> Signal:
    if pooling is None or pooling == COMBINATION:
        return recorded
    return replace(recorded, pooling=pooling, combination=None)


def _require_alike(trace: Trace, signal: Signal) -> None:
    # A pooling may be chosen afresh, a tail where the log-probabilities are there; what was recorded must be alike.
    recorded = trace.signal.pooled_as(signal)
    if trace.steps[0].top_logprobs is not None:
        recorded = replace(recorded, tail=signal.tail)
    signal.require(recorded, what=f"the steps of {trace.id}")


def _unusable(signal: Signal, lacking: str | None) -> InputError | NotEnoughExamples:
    if lacking is not None:
        return InputError(
            f"the pooling {signal.pooling} needs {lacking}, which no step holds", hint="collect anew, or take another"
        )
    return NotEnoughExamples(
        "no trace has a usable signal at step 1", needed=1, hint="collect with top_logprobs; see diagnose"
    )


def _row(trace: Trace, signal: Signal, bits: float, *, combining: bool, max_steps: int | None) -> Labelled:
    first, last = trace.steps[0], trace.steps[:max_steps][-1]
    return Labelled(
        hashed_id=trace.hashed_id,
        seed=trace.seed,
        digest=trace_digest(trace),
        task=sys.intern(trace.task),
        family=sys.intern(trace.family or ""),
        group=None if trace.group is None else sys.intern(trace.group),
        bits=bits,
        inputs=inputs_of(first.measured(signal)) if combining else (),
        correct=first.is_correct,
        graded=first.correct is not None or first.answer is None,
        agrees=first.answer is not None and first.answer == last.answer,
        final=last.is_correct,
        final_graded=last.correct is not None or last.answer is None,
        later=len(trace.steps) > 1,
    )


class Combined(NamedTuple):
    """A signal with fitted weights, and the rows that those have not seen, measured by it."""

    signal: Signal
    rest: list[Labelled]
    weights_from: int


def combined(rows: Sequence[Labelled], signal: Signal, *, labels: Labels, seed: int) -> Combined:
    """Fit a combination's weights on half of the rows, 100 at least, and leave the others to fit a threshold on: a
    threshold or certificate from scores that have seen their own labels would flatter.

    Raises `NotEnoughExamples` with fewer than 110 rows, or 10 right or wrong ones for the weights.
    """
    if len(rows) < MINIMUM + REST:
        raise NotEnoughExamples(
            f"a combination takes {MINIMUM} labels for its weights and {REST} others for the threshold; there are"
            f" {len(rows)}",
            needed=MINIMUM + REST - len(rows),
            hint="with fewer, take one pooling: --pooling mean",
        )
    count = max(MINIMUM, len(rows) // 2)
    order = Random(seed).sample(rows, len(rows))
    # Only what every row can give: no label is looked at.
    given = [name for place, name in enumerate(NAMES) if all(row.inputs[place] is not None for row in order)]
    graded = examples_of(order[:count], labels=labels).correct
    fitted = fit_rows([row.inputs for row in order[:count]], graded, inputs=given)
    values = [fitted.of_all(row.inputs) for row in order[count:]]
    rest = [
        row._replace(bits=math.nan if value is None else value)
        for row, value in zip(order[count:], values, strict=True)
    ]
    return Combined(replace(signal, pooling=COMBINATION, combination=fitted), rest, count)


def draw(rows: Iterable[Labelled], n: int | None, *, seed: int) -> list[Labelled]:
    """`n` rows drawn by `seed`, whatever their order in the file; `NotEnoughExamples` where there are fewer."""
    ordered = sorted(rows, key=lambda row: (row.hashed_id, -1 if row.seed is None else row.seed))
    if n is None:
        return ordered
    if n < 1:
        raise InputError(f"n is {n}", hint="at least 1; the paper takes 5 to 10")
    if n > len(ordered):
        raise NotEnoughExamples(
            f"{n} examples are asked for, {len(ordered)} are there", needed=n - len(ordered), hint="lower -n"
        )
    return Random(seed).sample(ordered, n)


def examples_of(rows: Sequence[Labelled], *, labels: Labels = "graded") -> Examples:
    """Step-1 signals and labels; the last step's labels are absent where a trace has one step or is not graded."""
    entropy = np.array([row.bits for row in rows], dtype=np.float64)
    whole = all(row.later for row in rows)
    if labels == "agreement":
        if not whole:
            raise InputError("label-free calibration needs the last step", hint="collect with --steps 2 or more")
        agreed = np.array([row.agrees for row in rows])
        # Where the last answer stands in for the truth, it is right by definition.
        return Examples(entropy=entropy, correct=agreed, final=np.ones(len(rows), dtype=bool))
    if not all(row.graded for row in rows):
        raise InputError(
            "a first step is not graded", hint="give targets to the tasks, or calibrate label-free (--labels agreement)"
        )
    # An answer that nobody graded must not pass for wrong: harm would then look smaller than it is.
    graded = whole and all(row.final_graded for row in rows)
    return Examples(
        entropy=entropy,
        correct=np.array([row.correct for row in rows]),
        final=np.array([row.final for row in rows]) if graded else None,
    )


def groups_of(rows: Sequence[Labelled]) -> list[str] | None:
    """Difficulty levels or categories, within families where both are recorded; None where there are none."""
    if all(row.group is None for row in rows):
        return None
    return [f"{row.family}/{row.group or ''}" for row in rows]
