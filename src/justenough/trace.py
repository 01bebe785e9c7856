"""What one problem's run produced, step by step: `Token`, `Probe`, `Step`, `Trace`, and their JSON objects.

A step carries its signal in one of four forms, the richest first: `top_logprobs`, `entropies`, the mean `entropy`, or a
stand-in `uncertainty` that the trace's `signal.kind` names. Unknown keys are kept in `extra` and written back.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Final, Literal, cast

import numpy as np

from justenough.entropy import MOST_BITS, ROUNDING, TAILS, entropy_of, token_entropy
from justenough.errors import JustEnoughError, LogprobsError, TraceFormatError
from justenough.signals import MIN_COVERAGE, Logits, Signal, coverage, pool

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Shape = Literal["sequential", "streaming"]

SHAPES: Final[tuple[Shape, ...]] = ("sequential", "streaming")
_NOTHING: Final[Mapping[str, Json]] = MappingProxyType({})
_HALF: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One generated token: its text and its top-k natural log-probabilities, or its entropy in bits where that is
    ready."""

    text: str
    top_logprobs: tuple[float, ...] | None = None
    entropy: float | None = None
    logprob: float | None = None
    """Natural log-probability of the token itself."""

    def bits(self, signal: Signal) -> float | None:
        """Entropy in bits under a signal; None where the token came without, or the signal is no entropy.

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
    """The answer elicited at the end of a streaming step, and what that cost."""

    answer: str | None
    correct: bool | None
    tokens: int
    text: str | None = None
    entropies: tuple[float, ...] | None = None
    """Bits of each of its tokens, shape (T,)."""
    logprobs: tuple[float, ...] | None = None
    """Natural log-probability of each of its tokens, shape (T,)."""


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
    model: str | None = None
    prompt_tokens: int | None = None
    latency_s: float | None = None
    probe: Probe | None = None
    entropies: tuple[float, ...] | None = None
    """Bits of each token that came with log-probabilities, shape (T,)."""
    top_logprobs: tuple[tuple[float, ...], ...] | None = None
    """Natural log-probabilities, shape (T, k)."""
    entropy: float | None = None
    """Mean bits, where only that was recorded."""
    uncertainty: float | None = None
    """A stand-in scalar, higher = less sure."""
    logprobs: tuple[float, ...] | None = None
    """Natural log-probability of each chosen token, shape (T,)."""
    token_texts: tuple[str, ...] | None = None
    """Text of each token, shape (T,), so that a report can shade them."""
    extra: Mapping[str, Json] = field(default_factory=lambda: _NOTHING)

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
        """Tokens with log-probabilities; None where only a scalar is recorded."""
        if self.top_logprobs is not None:
            return len(self.top_logprobs)
        return len(self.entropies) if self.entropies is not None else None

    def coverage(self) -> float | None:
        """Entries over tokens, at most 1; None where only a scalar is recorded."""
        return None if self.entries is None else coverage(self.entries, self.tokens)

    def token_bits(self, signal: Signal) -> tuple[float, ...] | None:
        """Bits of each token (T,); None where only a scalar, or nothing, is recorded."""
        if self.top_logprobs is not None and self.top_logprobs:
            width = max(len(row) for row in self.top_logprobs)
            narrow = min(len(row) for row in self.top_logprobs)
            if signal.top_k is not None and narrow < signal.top_k:
                raise LogprobsError(
                    f"a token has {narrow} log-probabilities, the signal takes {signal.top_k}",
                    hint=f"collect with top_logprobs={signal.top_k}, or take a signal of top_k {narrow}",
                )
            if signal.top_k is None and narrow < width:
                # One by one, as tokens are fed: sums over rows of another width round otherwise.
                return tuple(entropy_of(row, tail=signal.tail) for row in self.top_logprobs)
            block = np.full((len(self.top_logprobs), width), -np.inf)
            for index, row in enumerate(self.top_logprobs):
                block[index, : len(row)] = row
            return tuple(token_entropy(block, tail=signal.tail, top_k=signal.top_k).tolist())
        return self.entropies

    def bits(self, signal: Signal) -> float | None:
        """The step's uncertainty under a signal; None where nothing usable is recorded (no stop is taken on it)."""
        if signal.kind != "entropy":
            return self.uncertainty
        bits = self.token_bits(signal)
        if bits:
            return pool(bits, signal.pooling)
        return self.entropy if signal.pooling == "mean" else None

    def usable_bits(self, signal: Signal) -> float | None:
        """`bits`, but None also where fewer than 95 % of the tokens came with log-probabilities."""
        covered = self.coverage()
        return None if covered is not None and covered < MIN_COVERAGE else self.bits(signal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One problem's run: what was asked, how, and the steps."""

    id: str
    model: str
    steps: tuple[Step, ...]
    task: str = ""
    family: str | None = None
    group: str | None = None
    """Difficulty level, category or the like: separation is also measured within it."""
    shape: Shape = "sequential"
    problem: str | None = None
    target: str | None = None
    seed: int | None = None
    settings: str | None = None
    """Digest of all that shaped the run."""
    signal: Signal = field(default_factory=Signal)
    extra: Mapping[str, Json] = field(default_factory=lambda: _NOTHING)

    @property
    def hashed_id(self) -> str:
        """First 16 hex digits of SHA-256 over task and id: names a problem without showing it."""
        return hashlib.sha256(f"{self.task}\0{self.id}".encode()).hexdigest()[:16]

    @property
    def tokens(self) -> int:
        """Tokens of all steps; of a streaming trace with the last step's probe, by which it is answered."""
        return self.tokens_to(len(self.steps))

    def tokens_to(self, step: int) -> int:
        """Completion tokens really generated by a run that stops after `step` (1-based).

        Streaming: the segments so far and the elicitation there. Sequential: the completions so far, probes included.
        """
        steps = self.steps[:step]
        if self.shape == "streaming":
            probe = steps[-1].probe
            return sum(part.tokens for part in steps) + (probe.tokens if probe is not None else 0)
        return sum(part.total_tokens for part in steps)


_STEP_KEYS: Final = tuple(f.name for f in fields(Step) if f.name != "extra")
_TRACE_KEYS: Final = tuple(f.name for f in fields(Trace) if f.name != "extra")
_SIGNAL_KEYS: Final = tuple(f.name for f in fields(Signal))


class _Reader:
    """Reads one JSON object's keys, naming the key in every complaint."""

    def __init__(self, value: Json, where: str) -> None:
        if not isinstance(value, dict):
            raise TraceFormatError(
                f"{where.rstrip('.') or 'it'} is no object", hint="see the exchange format in the docs"
            )
        self.value = value
        self.where = where

    def _get(self, key: str, kind: type | tuple[type, ...], name: str) -> Json:
        found = self.value.get(key)
        if found is None:
            return None
        if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
            raise TraceFormatError(f"{self.where}{key} is {found!r}, expected {name}")
        return found

    def text(self, key: str) -> str | None:
        found = self.value.get(key)
        # Answers and ids of other tools are often numbers.
        if isinstance(found, int | float) and not isinstance(found, bool):
            return str(found)
        text = cast("str | None", self._get(key, str, "text"))
        return None if text is None else _whole_characters(text)

    def flag(self, key: str) -> bool | None:
        return cast("bool | None", self._get(key, bool, "true or false"))

    def number(self, key: str) -> float | None:
        found = cast("int | float | None", self._get(key, (int, float), "a number"))
        if found is None:
            return None
        if not _is_finite(found):
            raise TraceFormatError(f"{self.where}{key} is {_shown(found)}, expected a finite number")
        return float(found)

    def count(self, key: str) -> int | None:
        found = self._get(key, (int, float), "a whole number")
        if found is None:
            return None
        if not isinstance(found, int | float) or not 0 <= found < 2**63 or found != int(found):
            raise TraceFormatError(f"{self.where}{key} is {_shown(found)}, expected a whole number, at least 0")
        return int(found)

    def numbers(self, key: str, *, logs: bool = False) -> tuple[float, ...] | None:
        found = self._get(key, list, "a list of numbers")
        return None if found is None else _numbers(found, f"{self.where}{key}", logs=logs)

    def texts(self, key: str) -> tuple[str, ...] | None:
        found = self._get(key, list, "a list of texts")
        if found is None:
            return None
        texts = cast("list[str]", found)
        if not all(isinstance(item, str) for item in texts):
            raise TraceFormatError(f"{self.where}{key} holds something that is no text")
        return tuple(_whole_characters(item) for item in texts)

    def rest(self, known: Iterable[str]) -> Mapping[str, Json]:
        names = set(known)
        return {key: value for key, value in self.value.items() if key not in names} or _NOTHING


def _whole_characters(text: str) -> str:
    """The text with U+FFFD for half a surrogate pair, which JSON can escape but no file encoding can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _HALF.search(text) else text


def _is_finite(value: float) -> bool:
    # Whole numbers in JSON may be larger than any float.
    return abs(value) <= sys.float_info.max


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _numbers(found: Json, where: str, *, logs: bool) -> tuple[float, ...]:
    if not isinstance(found, list):
        raise TraceFormatError(f"{where} is {found!r}, expected a list of numbers")
    out: list[float] = []
    for item in found:
        # JSON has no infinity: null stands for -inf among log-probabilities.
        value = -math.inf if logs and item is None else item
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TraceFormatError(f"{where} holds {_shown(item)}, expected numbers")
        if not (_is_finite(value) or (logs and value == -math.inf)):
            raise TraceFormatError(f"{where} holds {_shown(item)}, expected finite numbers")
        if not logs and not 0 <= value <= MOST_BITS:
            raise TraceFormatError(f"{where} holds {_shown(item)}, expected bits, at least 0")
        out.append(float(value))
    return tuple(out)


def signal_from_json(value: Json) -> Signal:
    """Read a `signal` object; raises `TraceFormatError`."""
    if value is None:
        return Signal()
    reader = _Reader(value, "signal.")
    kind, tail = reader.text("kind") or "entropy", reader.text("tail") or "renormalise"
    if tail not in TAILS:
        raise TraceFormatError(f"signal.tail is {tail!r}, expected one of {', '.join(TAILS)}")
    logits = reader.text("logits") or "unknown"
    if logits not in ("raw", "processed", "unknown"):
        raise TraceFormatError(f"signal.logits is {logits!r}, expected raw or processed")
    top_k = reader.count("top_k")
    if top_k is None and kind == "entropy" and "top_k" not in reader.value:
        top_k = 20
    return Signal(
        kind=kind,
        top_k=top_k,
        tail=tail,
        pooling=reader.text("pooling") or "mean",
        splitter=reader.text("splitter") or "completion",
        logits=cast("Logits", logits),
        temperature=reader.number("temperature"),
    )


def _step_from_json(value: Json, number: int) -> Step:
    reader = _Reader(value, f"steps[{number}].")
    tokens = reader.count("tokens")
    if tokens is None:
        raise TraceFormatError(f"steps[{number}].tokens is missing", hint="completion tokens of the step")
    if "answer" not in reader.value and reader.value.get("correct") is None:
        raise TraceFormatError(f"steps[{number}] has neither answer nor correct", hint="give one of them")
    probe = None
    if reader.value.get("probe") is not None:
        probing = _Reader(reader.value["probe"], f"steps[{number}].probe.")
        probe = Probe(
            answer=probing.text("answer"),
            correct=probing.flag("correct"),
            tokens=probing.count("tokens") or 0,
            text=probing.text("text"),
            entropies=probing.numbers("entropies"),
            logprobs=probing.numbers("logprobs", logs=True),
        )
    rows = reader.value.get("top_logprobs")
    if rows is not None and not isinstance(rows, list):
        raise TraceFormatError(f"steps[{number}].top_logprobs is {rows!r}, expected a list of lists")
    top_logprobs = None
    if isinstance(rows, list):
        top_logprobs = tuple(_numbers(row, f"steps[{number}].top_logprobs", logs=True) for row in rows)
        if any(not row or not -math.inf < max(row) <= ROUNDING for row in top_logprobs):
            raise TraceFormatError(f"steps[{number}].top_logprobs holds a row without entries or a value above 0")
    entropy = reader.number("entropy")
    if entropy is not None and entropy < 0:
        raise TraceFormatError(f"steps[{number}].entropy is {entropy!r}, expected bits, at least 0")
    return Step(
        text=reader.text("text") or "",
        answer=reader.text("answer"),
        correct=reader.flag("correct"),
        tokens=tokens,
        finish=reader.text("finish"),
        model=reader.text("model"),
        prompt_tokens=reader.count("prompt_tokens"),
        latency_s=reader.number("latency_s"),
        probe=probe,
        entropies=reader.numbers("entropies"),
        top_logprobs=top_logprobs,
        entropy=entropy,
        uncertainty=reader.number("uncertainty"),
        logprobs=reader.numbers("logprobs", logs=True),
        token_texts=reader.texts("token_texts"),
        extra=reader.rest(_STEP_KEYS),
    )


def trace_from_json(value: Json) -> Trace:
    """Read one object of the exchange format; raises `TraceFormatError` that names the key and what is expected."""
    reader = _Reader(value, "")
    identity, model, steps = reader.text("id"), reader.text("model"), reader.value.get("steps")
    if not identity:
        raise TraceFormatError("id is missing", hint="a text that names the problem")
    if model is None:
        raise TraceFormatError("model is missing", hint="the name of the model that answered")
    if not isinstance(steps, list) or not steps:
        raise TraceFormatError("steps is missing or empty", hint="a list of at least one step")
    shape = reader.text("shape") or "sequential"
    if shape not in SHAPES:
        raise TraceFormatError(f"shape is {shape!r}, expected {' or '.join(SHAPES)}")
    try:
        signal = signal_from_json(reader.value.get("signal"))
    except TraceFormatError:
        raise
    except JustEnoughError as error:
        raise TraceFormatError(f"signal: {error}") from error
    return Trace(
        id=identity,
        model=model,
        task=reader.text("task") or "",
        family=reader.text("family"),
        group=reader.text("group"),
        shape=shape,
        problem=reader.text("problem"),
        target=reader.text("target"),
        seed=reader.count("seed"),
        settings=reader.text("settings"),
        signal=signal,
        steps=tuple(_step_from_json(step, number) for number, step in enumerate(steps)),
        extra=reader.rest(_TRACE_KEYS),
    )


def _rows(step: Step) -> Json:
    if step.top_logprobs is None:
        return None
    return [[None if entry == -math.inf else entry for entry in row] for row in step.top_logprobs]


def _step_to_json(step: Step) -> dict[str, Json]:
    out: dict[str, Json] = {"text": step.text, "answer": step.answer, "correct": step.correct, "tokens": step.tokens}
    optional: dict[str, Json] = {
        "finish": step.finish,
        "model": step.model,
        "prompt_tokens": step.prompt_tokens,
        "latency_s": step.latency_s,
        "entropies": None if step.entropies is None else list(step.entropies),
        "top_logprobs": _rows(step),
        "entropy": step.entropy,
        "uncertainty": step.uncertainty,
        "logprobs": _finite(step.logprobs),
        "token_texts": None if step.token_texts is None else list(step.token_texts),
    }
    if step.probe is not None:
        out["probe"] = _probe_to_json(step.probe)
    return out | {key: value for key, value in optional.items() if value is not None} | dict(step.extra)


def _probe_to_json(probe: Probe) -> Json:
    optional: dict[str, Json] = {
        "text": probe.text,
        "entropies": None if probe.entropies is None else list(probe.entropies),
        "logprobs": _finite(probe.logprobs),
    }
    out: dict[str, Json] = {"answer": probe.answer, "correct": probe.correct, "tokens": probe.tokens}
    return out | {key: value for key, value in optional.items() if value is not None}


def _finite(logprobs: Sequence[float] | None) -> Json:
    return None if logprobs is None else [None if value == -math.inf else value for value in logprobs]


def trace_to_json(trace: Trace) -> dict[str, Json]:
    """The exchange object of a trace; `trace_from_json` reads it back without loss."""
    optional: dict[str, Json] = {
        "family": trace.family,
        "group": trace.group,
        "problem": trace.problem,
        "target": trace.target,
        "seed": trace.seed,
        "settings": trace.settings,
    }
    head: dict[str, Json] = {"id": trace.id, "task": trace.task, "model": trace.model, "shape": trace.shape}
    return (
        head
        | {key: value for key, value in optional.items() if value is not None}
        | {"signal": cast("dict[str, Json]", trace.signal.to_json())}
        | {"steps": [_step_to_json(step) for step in trace.steps]}
        | dict(trace.extra)
    )


def data_fingerprint(traces: Iterable[Trace]) -> str:
    """SHA-256 over the exchange objects, whatever their order: names the very data that a result was made from."""
    digests = sorted(
        hashlib.sha256(json.dumps(trace_to_json(trace), sort_keys=True).encode()).digest() for trace in traces
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()
