"""Published rules that watch changes: in the lengths of runs, the answers' probability, the thought's entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final

import numpy as np

from justenough.rules.elicited import LACKING, Answers
from justenough.rules.looks import Bools, FirstPassage, Floats, Ints, Looks
from justenough.rules.quantities import LOGPROB, Quantity
from justenough.trace import Trace
from justenough.trace.batches import Batch
from justenough.trace.blocks import Block


@dataclass(frozen=True, slots=True)
class EsCot(FirstPassage):
    """Stops when a run of equal answers is suddenly longer than the one before it (ES-CoT, arXiv 2509.14004).

    Runs of equal answers have the lengths `r₁, r₂, …`. The rule stops when the latest difference of two lengths, with
    that of the run in progress, is at least `jump`, and a one-sided t-test at `level` finds it larger than the earlier
    differences. The authors take 10 and .05. The definition was read in summaries of version 1 of the publication, not
    in the publication. They do not say what holds with fewer than two earlier differences, which allow no test: here
    `jump` decides alone. Version 2 asks at words such as "wait", here at every step. Steps without an answer end a run
    and are none themselves.
    """

    jump: int = 10
    level: float = 0.05
    head: ClassVar[str] = "es-cot"
    chances: ClassVar[tuple[str, ...]] = ("level",)

    @property
    def earliest(self) -> int:
        """The first step at which it may stop: a run of one answer, then the longer run."""
        return self.jump + 2

    def holds(self, looks: Looks) -> Bools:
        """Where the run in progress is that much longer."""
        from scipy.special import stdtr

        codes, holds = looks.answers, np.zeros(looks.answers.shape, dtype=np.bool_)
        length, before = np.ones(len(codes)), np.full(len(codes), np.nan)
        count, total, squares = np.zeros((3, len(codes)))
        for step in range(1, codes.shape[1]):
            ends = codes[:, step] != codes[:, step - 1]
            run = ends & (codes[:, step - 1] >= 0)
            closed = run & np.isfinite(before)
            difference = np.where(closed, length - before, 0.0)
            count, total, squares = count + closed, total + difference, squares + difference**2
            before, length = np.where(run, length, before), np.where(ends, 1.0, length + 1)
            latest = length - before
            with np.errstate(divide="ignore", invalid="ignore"):
                mean = total / count
                error = np.sqrt(np.maximum(squares - count * mean**2, 0.0) / (count - 1) / count)
                larger = stdtr(count - 1, -(latest - mean) / error) <= self.level
            # Equal earlier differences have no error.
            tested = np.where(error > 0, larger, latest > mean)
            holds[:, step] = (latest >= self.jump) & ((count < 2) | tested)
        return holds & looks.answered


@dataclass(frozen=True, slots=True)
class CodeStop(FirstPassage):
    """Stops when the answer is likely, or when its probability has too often failed to grow (CoDE-Stop, arXiv
    2604.04930).

    c_k is the geometric mean probability of the tokens of the k-th answer. The rule stops if c_k is at least a bound
    that rises from `low` to `high` over the first `ramp` steps, or if `Σ v_i (1 + ln(T_k/T_i))` is at least
    `degeneration`: `v_i` is whether `2 c_i - c_{i-1} < .55`, `T_i` are the tokens of the thought. The final answer is
    generated again. The formula, `low` .9, `ramp` 2 and .55 were read in a summary of the publication, `high` .95 and
    `degeneration` 2 in another project's copy of the authors' settings. The authors tune `degeneration` and scale it
    with the length of the thoughts. Their program differs: it counts every fall of the probability from the third
    answer on, and leaves out the answer's first and last token.
    """

    low: float = 0.9
    degeneration: float = 2.0
    high: float = 0.95
    ramp: int = 2
    head: ClassVar[str] = "code-stop"
    chances: ClassVar[tuple[str, ...]] = ("low", "high")
    knobs: ClassVar[int] = 2
    unbounded: ClassVar[Mapping[str, float | None]] = MappingProxyType({"degeneration": math.inf})
    reads: ClassVar[tuple[Quantity, ...]] = (LOGPROB,)
    again: ClassVar[bool] = True

    def holds(self, looks: Looks) -> Bools:
        """Where the answer is that likely, or its probability that unstable."""
        sure, score = looks.once(_degeneration)
        bound = self.low + (self.high - self.low) * np.minimum(np.arange(sure.shape[1]) / self.ramp, 1.0)
        stops: Bools = (sure >= bound) | ((score >= self.degeneration) & ~np.isnan(sure))
        return stops


def _degeneration(looks: Looks) -> tuple[Floats, Floats]:
    """The probability of each answer, and how often it has failed to grow, weighted by the tokens since then."""
    sure = np.exp(looks.values[LOGPROB])
    before, latest = np.full(sure.shape, np.nan), np.full(len(sure), np.nan)
    for step, value in enumerate(sure.T):
        before[:, step], latest = latest, np.where(np.isnan(value), latest, value)
    unstable = 2 * sure - before < _UNSTABLE
    time = np.log(np.maximum(looks.seen, 1))
    return sure, (1 + time) * np.cumsum(unstable, axis=1) - np.cumsum(np.where(unstable, time, 0.0), axis=1)


_UNSTABLE: Final = 0.55


_WINDOW: Final = 8
_VOTES: Final = 5
_LEAST: Final = 64


def _plateau(trace: Trace, answers: Answers) -> Floats:
    """The largest fall of the entropy, in nats, among the tokens of each step at which the plateau has a majority."""
    bits = [step.token_bits(trace.signal) for step in trace.steps]
    rows = [_largest(step.top_logprobs or ()) for step in trace.steps]
    if trace.shape != "streaming" or any(
        one is None or len(one) != len(row) for one, row in zip(bits, rows, strict=True)
    ):
        return np.full(len(trace.steps), LACKING)
    ends = np.cumsum([0, *map(len, rows)])
    whole = np.concatenate([one for one in bits if one is not None])
    return _falls(whole, np.concatenate(rows), ends, np.array([0, len(rows)]))


def _plateaus(batch: Batch, answers: Answers) -> Floats:
    """`_plateau` of all traces of a batch of streams."""
    if batch.rows is None or batch.rows.shape[1] < 2:
        return np.full(batch.steps.size, LACKING)
    top = np.partition(batch.rows, -2, axis=1)[:, -2:]
    falls = _falls(batch.token_bits(batch.signal).values, top, batch.ends, batch.offsets)
    lacking = batch.any_step(batch.entries < 1)
    return np.where(np.repeat(lacking, np.diff(batch.offsets)), LACKING, falls)


def _falls(bits: Floats, top: Floats, ends: Ints, offsets: Ints) -> Floats:
    """The falls at the steps of several streams, from the bits (N,) and the two largest entries (N, 2) of each token.

    Step i has the tokens `ends[i]` to `ends[i + 1] - 1`, trace j the steps `offsets[j]` to `offsets[j + 1] - 1`.
    """
    entropy, margin = bits * math.log(2), top[:, 1] - top[:, 0]
    starts = ends[offsets]
    trace = np.repeat(np.arange(len(offsets) - 1), np.diff(starts))
    place = np.arange(len(entropy)) - starts[trace]
    later = np.flatnonzero(place >= _WINDOW)
    flat = np.zeros(len(entropy), dtype=np.bool_)
    flat[later] = (entropy[later] - entropy[later - _WINDOW]) / _WINDOW >= -0.005
    flat[later] &= margin[later] - margin[later - _WINDOW] <= 0.05
    tested = (place >= _WINDOW) & (np.exp(top[:, 1]) < 1)
    passed, number = np.concatenate(([0], np.cumsum(flat[tested]))), np.concatenate(([0], np.cumsum(tested)))
    begin, number = number[starts][trace], number[1:]
    first = np.maximum(number - _VOTES, begin)
    majority = (number > begin) & (2 * (passed[number] - passed[first]) >= number - first) & (place >= _LEAST - 1)
    # Where there is a majority, the trace has at least 64 tokens.
    long = np.flatnonzero(np.diff(starts) >= _WINDOW)
    level = np.full(len(starts) - 1, np.nan)
    level[long] = np.median(entropy[starts[long][:, None] + np.arange(_WINDOW)], axis=1)
    falls = np.where(majority, level[trace] - entropy, np.nan)
    largest, some = np.full(len(ends) - 1, np.nan), np.flatnonzero(np.diff(ends))
    if len(some):
        largest[some] = np.fmax.reduceat(falls, ends[some])
    return largest


def _largest(rows: Sequence[Sequence[float]]) -> Floats:
    """The two largest entries of each row, (T, 2), the largest one last; (0, 2) if a row has fewer."""
    if isinstance(rows, Block):
        return np.partition(rows.values, -2, axis=1)[:, -2:] if rows.width > 1 else np.zeros((0, 2))
    pairs = [sorted(row)[-2:] for row in rows]
    return np.array(pairs) if pairs and min(map(len, pairs)) == 2 else np.zeros((0, 2))


PLATEAU: Final = Quantity(
    "the top log-probabilities of every token of a streamed thought", _plateau, elicits=False, flat=_plateaus
)


@dataclass(frozen=True, slots=True)
class Leash(FirstPassage):
    """Stops when neither entropy nor margin of the thought's tokens improves (LEASH, arXiv 2511.04654).

    At token t, `H_t` is the entropy in nats and `M_t` the difference of the two largest log-probabilities. The plateau
    holds at t if `(H_t - H_{t-8})/8 ≥ -.005` and `M_t - M_{t-8} ≤ .05`. The rule stops at the first token from 64 on
    at which half of the last 5 plateau tests have passed and `H_t` is at least `fall` below the median of the first 8
    entropies, at the latest after `limit` tokens. A replay stops at the end of the step in which that happens.

    The formula and these numbers are the publication's, read as extracted text. It gives no value for `fall`, the
    probability from which a token is left out of the tests, or a further warm-up: here they are the neutral 0, 1 and 0.
    """

    fall: float = 0.0
    """Nats."""
    limit: int | None = 320
    """Tokens of the thought; None: no limit."""
    head: ClassVar[str] = "leash"
    unbounded: ClassVar[Mapping[str, float | None]] = MappingProxyType({"limit": None})
    reads: ClassVar[tuple[Quantity, ...]] = (PLATEAU,)
    most: ClassVar[int | None] = 0

    def holds(self, looks: Looks) -> Bools:
        """Where a plateau has been reached, or the limit."""
        reached = looks.values[PLATEAU] >= self.fall
        return reached if self.limit is None else reached | (looks.seen >= self.limit)
