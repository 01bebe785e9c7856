"""Labelled traces: which can be measured, which are drawn, and what they say as examples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Final, Literal, NamedTuple

import numpy as np

from justenough.combination import MINIMUM, fit_combination
from justenough.errors import InputError, ModelMismatch, NotEnoughExamples, SignalMismatch
from justenough.signals import COMBINATION, Signal
from justenough.thresholds import Examples
from justenough.trace import Trace

Labels = Literal["graded", "agreement"]

REST: Final = 10
"""Labels that a combination's threshold takes beside those of its weights."""


def usable_traces(traces: Sequence[Trace], signal: Signal) -> tuple[list[Trace], list[str]]:
    """Traces of one model, shape and signal whose first step can be measured; warnings for those left out."""
    models = sorted({trace.model for trace in traces})
    if len(models) > 1:
        raise ModelMismatch(f"the traces are of {len(models)} models: {', '.join(models)}", hint="calibrate each apart")
    if len({trace.shape for trace in traces}) > 1:
        raise SignalMismatch("the traces mix sequential and streaming steps", hint="calibrate each apart")
    for trace in traces:
        # A pooling may be chosen afresh, a tail where the log-probabilities are there; what was recorded must be alike.
        recorded = trace.signal.pooled_as(signal)
        if trace.steps[0].top_logprobs is not None:
            recorded = replace(recorded, tail=signal.tail)
        signal.require(recorded, what=f"the steps of {trace.id}")
    usable = [trace for trace in traces if trace.steps[0].usable_bits(signal) is not None]
    warnings: list[str] = []
    if left := len(traces) - len(usable):
        warnings.append(f"{left} of {len(traces)} problems lack a usable signal at step 1 and were left out")
    if not usable:
        if (field := lacking(traces, signal)) is not None:
            raise InputError(
                f"the pooling {signal.pooling} needs {field}, which no step holds", hint="collect anew, or take another"
            )
        raise NotEnoughExamples(
            "no trace has a usable signal at step 1", needed=1, hint="collect with top_logprobs; see diagnose"
        )
    return usable, warnings


def lacking(traces: Sequence[Trace], signal: Signal) -> str | None:
    """The field that the signal's pooling needs and a first step does not hold; None where all hold it."""
    return next((field for trace in traces if (field := trace.steps[0].lacks(signal)) is not None), None)


class Combined(NamedTuple):
    """A signal with fitted weights, and the traces that those have not seen."""

    signal: Signal
    rest: list[Trace]
    weights_from: int


def combined(traces: Sequence[Trace], signal: Signal, *, labels: Labels, seed: int, max_steps: int) -> Combined:
    """Fit a combination's weights on half of the traces, 100 at least, and leave the others to fit a threshold on: a
    threshold or certificate from scores that have seen their own labels would flatter.

    Raises `NotEnoughExamples` with fewer than 110 traces, or 10 right or wrong ones for the weights.
    """
    if len(traces) < MINIMUM + REST:
        raise NotEnoughExamples(
            f"a combination takes {MINIMUM} labels for its weights and {REST} others for the threshold; there are"
            f" {len(traces)}",
            needed=MINIMUM + REST - len(traces),
            hint="with fewer, take one pooling: --pooling mean",
        )
    count = max(MINIMUM, len(traces) // 2)
    order = Random(seed).sample(list(traces), len(traces))
    first = [trace.steps[0].measured(signal) for trace in order[:count]]
    correct = examples_of(order[:count], signal, labels=labels, max_steps=max_steps).correct
    fitted = fit_combination(first, correct)
    return Combined(replace(signal, pooling=COMBINATION, combination=fitted), order[count:], count)


def draw(traces: Iterable[Trace], n: int | None, *, seed: int) -> list[Trace]:
    """`n` traces drawn by `seed`, whatever their order in the file; `NotEnoughExamples` where there are fewer."""
    ordered = sorted(traces, key=lambda trace: (trace.hashed_id, -1 if trace.seed is None else trace.seed))
    if n is None:
        return ordered
    if n < 1:
        raise InputError(f"n is {n}", hint="at least 1; the paper takes 5 to 10")
    if n > len(ordered):
        raise NotEnoughExamples(
            f"{n} examples are asked for, {len(ordered)} are there", needed=n - len(ordered), hint="lower -n"
        )
    return Random(seed).sample(ordered, n)


def examples_of(
    traces: Sequence[Trace], signal: Signal, *, labels: Labels = "graded", max_steps: int | None = None
) -> Examples:
    """Step-1 signals and labels of traces with a usable first step; unanswered counts as wrong.

    The last step is that of a run of `max_steps`; its labels are absent where a trace has one step or is not graded.
    """
    if max_steps is not None and max_steps < 1:
        raise InputError(f"max_steps is {max_steps}", hint="at least 1")
    bits = [trace.steps[0].usable_bits(signal) for trace in traces]
    entropy = np.array([math.nan if value is None else value for value in bits], dtype=np.float64)
    whole = min(len(trace.steps) for trace in traces) > 1
    if labels == "agreement":
        if not whole:
            raise InputError("label-free calibration needs the last step", hint="collect with --steps 2 or more")
        agreed = [
            trace.steps[0].answer is not None and trace.steps[0].answer == trace.steps[:max_steps][-1].answer
            for trace in traces
        ]
        # Where the last answer stands in for the truth, it is right by definition.
        return Examples(entropy=entropy, correct=np.array(agreed), final=np.ones(len(traces), dtype=bool))
    if any(trace.steps[0].correct is None and trace.steps[0].answer is not None for trace in traces):
        raise InputError(
            "a first step is not graded", hint="give targets to the tasks, or calibrate label-free (--labels agreement)"
        )
    correct = np.array([trace.steps[0].is_correct for trace in traces])
    last = [trace.steps[:max_steps][-1] for trace in traces]
    # An answer that nobody graded must not pass for wrong: harm would then look smaller than it is.
    graded = whole and all(step.correct is not None or step.answer is None for step in last)
    final = np.array([step.is_correct for step in last]) if graded else None
    return Examples(entropy=entropy, correct=correct, final=final)


def groups_of(traces: Sequence[Trace]) -> list[str] | None:
    """Difficulty levels or categories, within families where both are recorded; None where there are none."""
    if all(trace.group is None for trace in traces):
        return None
    return [f"{trace.family or ''}/{trace.group or ''}" for trace in traces]
