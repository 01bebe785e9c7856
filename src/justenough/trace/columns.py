"""Traces as columns: one flat array per quantity over all checkpoints, with the offset of each problem.

A checkpoint is a place where a run may stop: the end of a step. Problems may have different numbers of checkpoints.
Rules, fits and reports read these arrays. The traces are read once and do not stay in memory.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.signal.pooling import Field
from justenough.signal.signal import Signal
from justenough.trace.levels import UNKNOWN as UNKNOWN
from justenough.trace.types import Shape

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Texts = NDArray[np.object_]
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
        # One text object for all problems that share it.
        return [sys.intern(f"{family}/{group or ''}") for family, group in zip(self.families, self.groups, strict=True)]

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
        flat = {name: getattr(self, name)[places] for name in FLAT}
        each = {name: getattr(self, name)[chosen] for name in EACH}
        return replace(self, offsets=offsets, **flat, **each)

    def padded(self, flat: NDArray[Kind], *, steps: int | None = None) -> NDArray[Kind]:
        """A flat column (m,) as (n, K): a problem with fewer checkpoints repeats its last one."""
        if steps in (None, self.steps) and len(flat) == len(self) * self.steps:
            return flat.reshape(len(self), -1)
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


EACH: Final = ("ids", "hashed_ids", "seeds", "tasks", "families", "groups", "models", "streaming")
FLAT: Final = (
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
