"""Labelled traces: which can be measured, which are drawn, and their examples. Traces are read once and not kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from random import Random
from typing import Final, Literal, NamedTuple

import numpy as np

from justenough.calibration.certified import Checkpoints
from justenough.calibration.examples import Examples, Floats
from justenough.errors import InputError, ModelMismatch, NotEnoughExamples, SignalMismatch
from justenough.gate import Decide
from justenough.prompts import Prompts
from justenough.signal.combination import MINIMUM, NAMES, fit_rows, inputs_of
from justenough.signal.signal import COMBINATION, Signal
from justenough.stats.sequence import one_run_each
from justenough.trace import Shape, Trace, trace_digest
from justenough.trace.building import columns_of
from justenough.trace.columns import Bools, Columns, Ints

Labels = Literal["graded", "agreement", "asked"]
"""`asked`: a person judged the answers that the certificate depends on, and no others."""

REST: Final = 10
"""Labels that a combination's threshold needs beside those of its weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Runs of problems, of one model, shape and signal, that can be measured; a problem may have several runs."""

    columns: Columns
    digests: tuple[bytes, ...]
    """SHA-256 of each trace, (n,)."""
    inputs: Floats
    """Inputs of a combination at the first step, (n, p); p is 0 where no combination is to be fitted."""
    max_steps: int | None
    """Number of the step that counts as the last one; None: the last recorded step."""
    streamed: bool
    """Whether steps are parts of one thought; then a run of one step is a short thought, not one that broke off."""

    def __len__(self) -> int:
        return len(self.columns)

    @property
    def problems(self) -> int:
        """Different problems."""
        return len(set(self.columns.hashed_ids))

    @property
    def opening(self) -> Labelled:
        """The runs whose first step can be measured."""
        return self.rows(np.isfinite(self.columns.bits[self.columns.first]))

    def one_run_each(self, *, seed: int) -> Labelled:
        """One run of each problem, drawn by `seed`, whatever their order in the file."""
        if self.problems == len(self):
            return self
        columns = self.columns
        ordered = sorted(
            range(len(self)), key=lambda row: (columns.hashed_ids[row], columns.seeds[row], self.digests[row])
        )
        drawn = one_run_each(columns.hashed_ids[ordered].tolist(), seed=seed)
        return self.rows(np.sort(np.array(ordered)[drawn]))

    def rows(self, index: Ints | Bools) -> Labelled:
        """The runs at `index`, in that order."""
        return replace(
            self,
            columns=self.columns.rows(index),
            digests=tuple(self.digests[row] for row in np.arange(len(self))[index].tolist()),
            inputs=self.inputs[index],
        )


class Gathered(NamedTuple):
    """Labelled problems, and facts about all traces."""

    labelled: Labelled
    steps: int
    """Of the longest trace."""
    prompts: Prompts | None
    """The prompts of all traces; None where they are not recorded, or differ."""
    warnings: list[str]
    """About traces that were left out."""


def gathered(
    traces: Iterable[Trace],
    *,
    signal: Signal | None = None,
    pooling: str | None = None,
    max_steps: int | None = None,
    decide: Decide = "first",
) -> Gathered:
    """The traces whose first step can be measured; for `decide="every"` those with any such step.

    The signal is by default the first trace's, with `pooling` in place of its own; for `combination` the result holds
    the inputs that the weights are fitted on. Raises `ModelMismatch` or `SignalMismatch` for traces of several kinds
    and `NotEnoughExamples` where none can be measured.
    """
    if max_steps is not None and max_steps < 1:
        raise InputError(f"max_steps is {max_steps}", hint="at least 1")
    watched = iter(traces)
    if (first := next(watched, None)) is None:
        raise NotEnoughExamples("there is no trace to calibrate on", needed=1, hint="collect some first")
    signal = signal or first.signal
    if pooling is not None and pooling != COMBINATION:
        signal = replace(signal, pooling=pooling, combination=None)
    reader = _Reader(signal, combines=pooling == COMBINATION)
    columns = columns_of(reader.through(chain([first], watched)), signal, measure=decide)
    measured = np.isfinite(columns.bits)
    usable = measured[columns.first] if decide == "first" else np.logical_or.reduceat(measured, columns.first)
    if not measured[columns.first].any():
        raise _unusable(columns)
    names = len(NAMES) if pooling == COMBINATION else 0
    every = Labelled(
        columns=columns,
        digests=tuple(reader.digests),
        # An input that a step does not have is NaN.
        inputs=np.array(reader.inputs, dtype=np.float64).reshape(len(columns), names),
        max_steps=max_steps,
        streamed=first.shape == "streaming",
    )
    left = len(columns) - int(usable.sum())
    where = " at step 1" if decide == "first" else ""
    warnings = [f"{left} of {len(columns)} problems lack a usable signal{where} and were left out"] if left else []
    prompts = list(reader.prompts.values())
    if len(prompts) > 1:
        warnings.append(f"the traces were asked with {len(prompts)} different prompts: none is stored")
    return Gathered(every.rows(usable), columns.steps, prompts[0] if len(prompts) == 1 else None, warnings)


class _Reader:
    """Checks that all traces are of one kind, and notes what the columns do not hold."""

    def __init__(self, signal: Signal, *, combines: bool) -> None:
        self._signal, self._combines = signal, combines
        self.digests: list[bytes] = []
        self.inputs: list[tuple[float, ...]] = []
        self.prompts: dict[str, Prompts] = {}
        """The prompts of all traces, by digest."""

    def through(self, traces: Iterable[Trace]) -> Iterator[Trace]:
        """The same traces; raises at the end where they are of several kinds."""
        models, shapes = set[str](), set[Shape]()
        differing: SignalMismatch | None = None
        for trace in traces:
            models.add(trace.model)
            shapes.add(trace.shape)
            if trace.prompts is not None:
                self.prompts.setdefault(trace.prompts.digest, trace.prompts)
            if differing is not None or len(models) > 1 or len(shapes) > 1:
                continue
            try:
                _require_alike(trace, self._signal)
            except SignalMismatch as error:
                differing = error
                continue
            self.digests.append(trace_digest(trace))
            self.inputs.append(inputs_of(trace.steps[0].measured(self._signal)) if self._combines else ())
            yield trace
        if len(models) > 1:
            named = ", ".join(sorted(models))
            raise ModelMismatch(f"the traces are of {len(models)} models: {named}", hint="calibrate each apart")
        if len(shapes) > 1:
            raise SignalMismatch("the traces mix sequential and streaming steps", hint="calibrate each apart")
        if differing is not None:
            raise differing


def _require_alike(trace: Trace, signal: Signal) -> None:
    if trace.signal == signal:
        return
    # Pooling can be chosen later, and the tail too where log-probabilities are recorded; the rest must be equal.
    recorded = trace.signal.pooled_as(signal)
    if trace.steps[0].top_logprobs is not None:
        recorded = replace(recorded, tail=signal.tail)
    signal.require(recorded, what=f"the steps of {trace.id}", own="the calibration's")


def _unusable(columns: Columns) -> InputError | NotEnoughExamples:
    if columns.lacking is not None:
        return InputError(
            f"the pooling {columns.signal.pooling} needs {columns.lacking}, which no step holds",
            hint="collect anew, or take another",
        )
    return NotEnoughExamples(
        "no trace has a usable signal at step 1", needed=1, hint="collect with top_logprobs; see diagnose"
    )


class Combined(NamedTuple):
    """The problems that the fitted weights have not seen, measured by them, and how many the weights were fitted on."""

    rest: Labelled
    weights_from: int


def combined(labelled: Labelled, *, labels: Labels, seed: int) -> Combined:
    """Fit a combination's weights on half of the problems, 100 at least, and leave the others for the threshold.

    A threshold or certificate from scores that were fitted on the same labels would be too optimistic.
    Raises `NotEnoughExamples` with fewer than 110 problems, or 10 right or wrong ones for the weights.
    """
    n = len(labelled)
    if n < MINIMUM + REST:
        raise NotEnoughExamples(
            f"a combination takes {MINIMUM} labels for its weights and {REST} others for the threshold; there are {n}",
            needed=MINIMUM + REST - n,
            hint="with fewer, take one pooling: --pooling mean",
        )
    fitting, rest = split(labelled, max(MINIMUM, n // 2), seed=seed)
    # Only inputs that every problem has. No label is used for this choice.
    usable = [name for place, name in enumerate(NAMES) if not np.isnan(labelled.inputs[:, place]).any()]
    fitted = fit_rows(fitting.inputs, examples_of(fitting, labels=labels).correct, inputs=usable)
    values = [fitted.of_all(row) for row in rest.inputs.tolist()]
    bits = rest.columns.bits.copy()
    bits[rest.columns.first] = [math.nan if value is None else value for value in values]
    signal = replace(rest.columns.signal, pooling=COMBINATION, combination=fitted)
    return Combined(replace(rest, columns=replace(rest.columns, signal=signal, bits=bits)), len(fitting))


def split(labelled: Labelled, count: int, *, seed: int) -> tuple[Labelled, Labelled]:
    """At least `count` runs, drawn by `seed`, and the other runs; all runs of a problem are in the same part."""
    runs: dict[str, list[int]] = {}
    for row, problem in enumerate(labelled.columns.hashed_ids.tolist()):
        runs.setdefault(problem, []).append(row)
    parts: tuple[list[int], list[int]] = [], []
    for problem in Random(seed).sample(list(runs), len(runs)):
        parts[len(parts[0]) >= count].extend(runs[problem])
    first, rest = (labelled.rows(np.array(part, dtype=np.int64)) for part in parts)
    return first, rest


def draw(labelled: Labelled, n: int | None, *, seed: int) -> Labelled:
    """`n` runs drawn by `seed`, whatever their order in the file; `NotEnoughExamples` where there are fewer."""
    columns = labelled.columns
    ordered = sorted(range(len(labelled)), key=lambda row: (columns.hashed_ids[row], columns.seeds[row]))
    if n is None:
        return labelled.rows(np.array(ordered))
    if n < 1:
        raise InputError(f"n is {n}", hint="at least 1; the paper takes 5 to 10")
    if n > len(ordered):
        raise NotEnoughExamples(
            f"{n} examples are asked for, {len(ordered)} are there", needed=n - len(ordered), hint="lower -n"
        )
    return labelled.rows(np.array(Random(seed).sample(ordered, n)))


def examples_of(labelled: Labelled, *, labels: Labels = "graded") -> Examples:
    """Step-1 signals and labels; the last step's labels are absent where a trace has one step or is not graded."""
    columns = labelled.columns
    first, last = columns.first, columns.last(labelled.max_steps)
    entropy = columns.bits[first]
    longer = columns.lengths > 1
    whole = bool(longer.any() if labelled.streamed else longer.all())
    if labels == "agreement":
        if not whole:
            raise InputError("label-free calibration needs the last step", hint="collect with --steps 2 or more")
        agreed, final = _judged(labelled, labels)
        return Examples(entropy=entropy, correct=agreed[first], final=final)
    if not columns.graded[first].all():
        raise InputError(
            "a first step is not graded", hint="give targets to the tasks, or calibrate label-free (--labels agreement)"
        )
    # An answer that is not graded must not count as wrong: harm would then look smaller than it is.
    graded = whole and bool(columns.graded[last].all())
    return Examples(entropy=entropy, correct=columns.right[first], final=columns.right[last] if graded else None)


def checkpoints_of(
    labelled: Labelled,
    *,
    labels: Labels = "graded",
    decide: Decide = "every",
    min_tokens: int = 0,
    patience: int = 1,
) -> Checkpoints | None:
    """Where the gate may stop each run and what that costs; None if there is only one step."""
    columns = labelled.columns
    right, last = _judged(labelled, labels)
    if last is None:
        return None
    final = last.repeat(columns.lengths)
    scores = stopping_scores(labelled, columns.bits, decide=decide, min_tokens=min_tokens, patience=patience)
    return Checkpoints(scores=scores, harms=~right & final, rescues=right & ~final, starts=columns.first)


def stopping_scores(labelled: Labelled, score: Floats, *, decide: Decide, min_tokens: int, patience: int) -> Floats:
    """(m,): a run stops at its first checkpoint with a score at or below the threshold; NaN never stops."""
    columns = labelled.columns
    within = np.arange(len(columns.bits)) - columns.offsets[:-1].repeat(columns.lengths)
    # The highest of `patience` consecutive scores; a missing score makes it missing.
    worst = score.copy()
    for back in range(1, patience):
        earlier = np.concatenate((np.full(back, math.nan), score[:-back]))[: len(score)]
        worst = np.where(within >= back, np.maximum(worst, earlier), math.nan)
    totals = np.cumsum(columns.tokens)
    so_far = totals - (totals - columns.tokens)[columns.first].repeat(columns.lengths)
    deciding = within < (1 if decide == "first" else labelled.max_steps or math.inf)
    worst[~deciding | (so_far < min_tokens)] = math.nan
    return worst


def _judged(labelled: Labelled, labels: Labels) -> tuple[Bools, Bools | None]:
    """Whether each answer (m,) is right, and whether each last one (n,) is; None where that is not known."""
    columns = labelled.columns
    last = columns.last(labelled.max_steps)
    if (columns.lengths < 2).all():
        return columns.right, None
    if labels == "agreement":
        final = columns.answers[last].repeat(columns.lengths)
        # The last answer replaces the truth, so it is right by definition.
        return (columns.answers >= 0) & (columns.answers == final), np.ones(len(labelled), dtype=bool)
    columns.require_graded()
    return columns.right, columns.right[last]
