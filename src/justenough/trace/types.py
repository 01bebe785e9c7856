"""The types of a run: tokens, probes, steps and traces. They are independent of models, HTTP and thresholds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from justenough.errors import LogprobsError
from justenough.files import Json as Json
from justenough.prompts import Prompts
from justenough.signal.entropy import Tail, entropy_of, token_entropy
from justenough.signal.pooling import Field, Measured
from justenough.signal.signal import MIN_COVERAGE, Signal, coverage
from justenough.trace.blocks import Block

Shape = Literal["sequential", "streaming"]

SHAPES: Final[tuple[Shape, ...]] = ("sequential", "streaming")
NOTHING: Final[Mapping[str, Json]] = MappingProxyType({})


def hashed(task: str, id: str) -> str:
    """First 16 hex digits of SHA-256 over a problem's task and id."""
    return hashlib.sha256(f"{task}\0{id}".encode()).hexdigest()[:16]


class Token(NamedTuple):
    """One generated token: its text, and its top-k natural log-probabilities or its entropy in bits."""

    text: str
    """The text of the token."""
    top_logprobs: Sequence[float] | None = None
    """Natural log-probabilities of the top k, shape (k,)."""
    entropy: float | None = None
    """In bits, if it is already known."""
    logprob: float | None = None
    """Natural log-probability of the token itself."""
    confidence: float | None = None
    """`-mean(top-k natural log-probabilities)`, if it is already known."""
    discarded: int = 0
    """Tokens that were generated to choose this one and thrown away: a decoder's look-ahead."""
    layers: int | None = None
    """Number of layers that the model ran for this token, if it can exit early."""

    def surety(self, top_k: int | None) -> float | None:
        """`-mean(top-k natural log-probabilities)`, higher = surer; None if it is unknown or not finite."""
        if self.top_logprobs is None:
            return self.confidence
        largest = sorted(self.top_logprobs, reverse=True)[:top_k]
        mean = -math.fsum(largest) / len(largest) if largest else math.inf
        return max(0.0, mean) if math.isfinite(mean) else None

    def bits(self, signal: Signal) -> float | None:
        """Entropy in bits under a signal; None if the token has no log-probabilities, or the signal is not an entropy.

        Raises `LogprobsError` for fewer entries than the signal's top k: their entropy would be of another kind.
        """
        if signal.kind != "entropy":
            return None
        if self.top_logprobs is None:
            return self.entropy
        if signal.top_k is not None and len(self.top_logprobs) < signal.top_k:
            raise LogprobsError(
                f"the token {self.text!r} has {len(self.top_logprobs)} log-probabilities, the signal takes"
                f" {signal.top_k}",
                hint=f"ask for top_logprobs={signal.top_k} and raise the server's limit (vLLM: --max-logprobs)",
            )
        return entropy_of(self.top_logprobs, tail=signal.tail, top_k=signal.top_k)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The answer that was elicited at the end of a streaming step, and its cost."""

    answer: str | None
    correct: bool | None
    tokens: int
    prompt_tokens: int | None = None
    """Tokens that the model read again to give it: the prompt and the thought so far."""
    text: str | None = None
    entropies: Sequence[float] | None = None
    """Bits of each of its tokens, shape (T,)."""
    logprobs: Sequence[float] | None = None
    """Natural log-probability of each of its tokens, shape (T,)."""
    token_texts: tuple[str, ...] | None = None
    """Text of each of its tokens, shape (T,): separates the answer from the cue before it."""
    extra: Mapping[str, Json] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of reasoning and the answer that it led to."""

    text: str = ""
    answer: str | None = None
    """None: unanswered."""
    correct: bool | None = None
    tokens: int
    """Completion tokens that the model generated in this step."""
    finish: str | None = None
    """Why the completion ended: `stop`, `length` or another word of the server."""
    model: str | None = None
    """The model, if it is not the trace's."""
    prompt_tokens: int | None = None
    """Tokens of the prompt that the model read."""
    latency_s: float | None = None
    """Duration of the step in seconds."""
    probe: Probe | None = None
    """The answer that was elicited at the end of a streaming step."""
    entropies: Sequence[float] | None = None
    """Bits of each token that came with log-probabilities, shape (T,)."""
    top_logprobs: Sequence[Sequence[float]] | None = None
    """Natural log-probabilities, shape (T, k)."""
    entropy: float | None = None
    """Mean bits, if only the mean was recorded."""
    uncertainty: float | None = None
    """A stand-in scalar, higher = less sure."""
    logprobs: Sequence[float] | None = None
    """Natural log-probability of each chosen token, shape (T,)."""
    token_texts: tuple[str, ...] | None = None
    """Text of each token, shape (T,): reports shade it, and the pooling `answer-span` finds the answer in it."""
    confidences: Sequence[float] | None = None
    """`-mean(top-k natural log-probabilities)` of each token, shape (T,): the confidence of DeepConf."""
    extra: Mapping[str, Json] = field(default_factory=lambda: NOTHING)

    @property
    def is_correct(self) -> bool:
        """Whether the step's answer is right; unanswered counts as wrong."""
        return bool(self.correct)

    @property
    def is_unanswered(self) -> bool:
        """Whether the step led to no answer that could be read."""
        return self.answer is None and self.correct is None

    @property
    def total_tokens(self) -> int:
        """The step's tokens and its probe's."""
        return self.tokens + (self.probe.tokens if self.probe is not None else 0)

    @property
    def entries(self) -> int | None:
        """Tokens with log-probabilities; None if only a scalar is recorded."""
        if self.top_logprobs is not None:
            return len(self.top_logprobs)
        return len(self.entropies) if self.entropies is not None else None

    @property
    def discarded(self) -> int:
        """Tokens that a decoder's look-ahead generated and discarded; they are part of `tokens`."""
        value = self.count("discarded") or 0
        return value if value <= self.tokens else 0

    def count(self, key: str) -> int | None:
        """The count under this key of `extra`; None if there is none."""
        value = self.extra.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

    def coverage(self) -> float | None:
        """Entries divided by tokens that were not discarded, at most 1; None if only a scalar is recorded."""
        entries = self.entries
        return None if entries is None else coverage(entries, self.tokens - self.discarded)

    def token_bits(self, signal: Signal) -> Sequence[float] | None:
        """Bits of each token (T,); None if only a scalar, or nothing, is recorded."""
        if self.top_logprobs is not None and self.top_logprobs:
            block = self.top_logprobs if isinstance(self.top_logprobs, Block) else None
            widths = {len(row) for row in self.top_logprobs} if block is None else {block.width}
            narrow = min(widths)
            if signal.top_k is not None and narrow < signal.top_k:
                raise LogprobsError(
                    f"a token has {narrow} log-probabilities, the signal takes {signal.top_k}",
                    hint=f"collect with top_logprobs={signal.top_k}, or take a signal of top_k {narrow}",
                )
            if block is not None:
                return block.bits(tail=signal.tail, top_k=signal.top_k)
            if len(widths) > 1:
                # One by one, as tokens are fed: padding changes the order in which a row's entries are summed.
                return tuple(entropy_of(row, tail=signal.tail, top_k=signal.top_k) for row in self.top_logprobs)
            return tuple(token_entropy(self.top_logprobs, tail=signal.tail, top_k=signal.top_k).tolist())
        return self.entropies

    def measured(self, signal: Signal) -> Measured:
        """The input of the poolings: the same values that the gate collects from the same tokens."""
        if signal.kind != "entropy":
            return Measured((), scalar=self.uncertainty, tokens=self.tokens)
        return Measured(self.token_bits(signal) or (), logprobs=self.logprobs, texts=self.token_texts)

    def lacks(self, signal: Signal) -> Field | None:
        """The field that the signal's pooling needs and the step does not have; None if it has all."""
        if signal.kind != "entropy" or self.bits(signal) is not None:
            return None
        measured = self.measured(signal)
        return next((field for field in signal.needs if not measured.holds(field)), None)

    def bits(self, signal: Signal) -> float | None:
        """The step's uncertainty under a signal; None if nothing usable is recorded (the run then goes on)."""
        return self._value(self.measured(signal), signal)

    def usable_bits(self, signal: Signal) -> float | None:
        """`bits`, but None also where fewer than 95 % of the tokens came with log-probabilities."""
        return self.values((signal,))[0]

    def values(self, signals: Sequence[Signal]) -> list[float | None]:
        """`usable_bits` under each of the signals; token entropies that several signals pool are computed once."""
        covered = self.coverage()
        if covered is not None and covered < MIN_COVERAGE:
            return [None] * len(signals)
        inputs: dict[tuple[str, int | None, Tail], Measured] = {}
        values: list[float | None] = []
        for signal in signals:
            key = (signal.kind, signal.top_k, signal.tail)
            if key not in inputs:
                inputs[key] = self.measured(signal)
            values.append(self._value(inputs[key], signal))
        return values

    def _value(self, measured: Measured, signal: Signal) -> float | None:
        if signal.kind != "entropy":
            return self.uncertainty if signal.combination is None else signal.of(measured)
        if measured.entropies:
            return signal.of(measured)
        return self.entropy if signal.pooling == "mean" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The run of one problem: the problem, the settings and the steps."""

    id: str
    """Unique within the task."""
    task: str = ""
    family: str | None = None
    group: str | None = None
    """Difficulty level or category; separation is also measured within it."""
    model: str
    shape: Shape = "sequential"
    problem: str | None = None
    target: str | None = None
    seed: int | None = None
    settings: str | None = None
    """Digest of all settings that shaped the run."""
    prompts: Prompts | None = None
    """The texts that the model was prompted with, if they are recorded."""
    prompts_extra: Mapping[str, Json] = field(default_factory=lambda: NOTHING)
    """Unknown keys of the prompts' object."""
    signal: Signal = field(default_factory=Signal)
    signal_extra: Mapping[str, Json] = field(default_factory=lambda: NOTHING)
    """Unknown keys of the signal's object."""
    steps: tuple[Step, ...]
    """At least one step."""
    extra: Mapping[str, Json] = field(default_factory=lambda: NOTHING)

    @property
    def hashed_id(self) -> str:
        """Identifies the problem without its text."""
        return hashed(self.task, self.id)

    @property
    def tokens(self) -> int:
        """Tokens of all steps; in a streaming trace with the probe of the last step, which gives the answer."""
        return self.tokens_to(len(self.steps))

    def tokens_to(self, step: int) -> int:
        """Completion tokens that a run generates if it stops after `step` (1-based).

        Streaming: the segments so far and the last probe. Sequential: the completions so far with their probes.
        """
        steps = self.steps[:step]
        if self.shape == "streaming":
            probe = steps[-1].probe
            return sum(part.tokens for part in steps) + (probe.tokens if probe is not None else 0)
        return sum(part.total_tokens for part in steps)
