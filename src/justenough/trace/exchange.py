"""Traces as JSON objects of the exchange format, both ways without loss; every complaint names the key."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError, JustEnoughError, TraceFormatError
from justenough.prompts import KEYS, prompts_from_json
from justenough.signal.combination import combination_from_json
from justenough.signal.entropy import MOST_BITS, ROUNDING, TAILS
from justenough.signal.signal import Logits, Signal
from justenough.trace.blocks import Block
from justenough.trace.types import NOTHING, SHAPES, Json, Probe, Step, Trace

MOST_SECONDS: Final = 1e9
"""Thirty years: a latency above it is an error, and sums below it cannot overflow."""

_HALF: Final = re.compile("[\ud800-\udfff]")
_PROBE_KEYS: Final = tuple(f.name for f in fields(Probe) if f.name != "extra")
_SIGNAL_KEYS: Final = tuple(f.name for f in fields(Signal))
_STEP_KEYS: Final = tuple(f.name for f in fields(Step) if f.name != "extra")
_TRACE_KEYS: Final = tuple(f.name for f in fields(Trace) if f.name not in ("extra", "signal_extra", "prompts_extra"))


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

    def seconds(self, key: str) -> float | None:
        found = self.number(key)
        if found is not None and not 0 <= found <= MOST_SECONDS:
            raise TraceFormatError(f"{self.where}{key} is {_shown(found)}, expected seconds, at least 0")
        return found

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
        return {key: value for key, value in self.value.items() if key not in names} or NOTHING


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
    combination = reader.value.get("combination")
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
        combination=None if combination is None else combination_from_json(combination),
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
            prompt_tokens=probing.count("prompt_tokens"),
            text=probing.text("text"),
            entropies=probing.numbers("entropies"),
            logprobs=probing.numbers("logprobs", logs=True),
            token_texts=probing.texts("token_texts"),
            extra=probing.rest(_PROBE_KEYS),
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
        latency_s=reader.seconds("latency_s"),
        probe=probe,
        entropies=reader.numbers("entropies"),
        top_logprobs=top_logprobs,
        entropy=entropy,
        uncertainty=reader.number("uncertainty"),
        logprobs=reader.numbers("logprobs", logs=True),
        token_texts=reader.texts("token_texts"),
        confidences=reader.numbers("confidences"),
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
    asked = reader.value.get("prompts")
    try:
        prompts = None if asked is None else prompts_from_json(asked)
    except InputError as error:
        raise TraceFormatError(str(error)) from error
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
        prompts=prompts,
        prompts_extra=_Reader(asked or {}, "prompts.").rest(KEYS),
        signal=signal,
        signal_extra=_Reader(reader.value.get("signal") or {}, "signal.").rest(_SIGNAL_KEYS),
        steps=tuple(_step_from_json(step, number) for number, step in enumerate(steps)),
        extra=reader.rest(_TRACE_KEYS),
    )


Numbers = Callable[[Sequence[float] | NDArray[np.float64]], Json]
"""How a list of numbers, one for each token or entry, enters an object."""


def _plain(numbers: Sequence[float] | NDArray[np.float64]) -> Json:
    return [None if value == -math.inf else value for value in numbers]


def _digested(numbers: Sequence[float] | NDArray[np.float64]) -> Json:
    return hashlib.sha256(np.asarray(numbers, dtype="<f8").tobytes()).hexdigest()


def _rows(rows: Sequence[Sequence[float]], numbers: Numbers) -> Json:
    if numbers is _plain:
        return [_plain(row) for row in rows]
    if isinstance(rows, Block):
        flat, widths = rows.values.ravel(), np.full(len(rows), float(rows.values.shape[1]))
        return [numbers(flat), numbers(widths)]
    return [numbers([value for row in rows for value in row]), numbers([len(row) for row in rows])]


def _step_to_json(step: Step, numbers: Numbers) -> dict[str, Json]:
    out: dict[str, Json] = {"text": step.text, "answer": step.answer, "correct": step.correct, "tokens": step.tokens}
    optional: dict[str, Json] = {
        "finish": step.finish,
        "model": step.model,
        "prompt_tokens": step.prompt_tokens,
        "latency_s": step.latency_s,
        "entropies": None if step.entropies is None else numbers(step.entropies),
        "top_logprobs": None if step.top_logprobs is None else _rows(step.top_logprobs, numbers),
        "entropy": step.entropy,
        "uncertainty": step.uncertainty,
        "logprobs": None if step.logprobs is None else numbers(step.logprobs),
        "token_texts": None if step.token_texts is None else list(step.token_texts),
        "confidences": None if step.confidences is None else numbers(step.confidences),
    }
    if step.probe is not None:
        out["probe"] = _probe_to_json(step.probe, numbers)
    return out | {key: value for key, value in optional.items() if value is not None} | dict(step.extra)


def _probe_to_json(probe: Probe, numbers: Numbers) -> Json:
    optional: dict[str, Json] = {
        "prompt_tokens": probe.prompt_tokens,
        "text": probe.text,
        "entropies": None if probe.entropies is None else numbers(probe.entropies),
        "logprobs": None if probe.logprobs is None else numbers(probe.logprobs),
        "token_texts": None if probe.token_texts is None else list(probe.token_texts),
    }
    out: dict[str, Json] = {"answer": probe.answer, "correct": probe.correct, "tokens": probe.tokens}
    return out | {key: value for key, value in optional.items() if value is not None} | dict(probe.extra)


def trace_to_json(trace: Trace) -> dict[str, Json]:
    """The exchange object of a trace; `trace_from_json` reads it back without loss."""
    return _trace_object(trace, _plain)


def _trace_object(trace: Trace, numbers: Numbers) -> dict[str, Json]:
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
        | ({} if trace.prompts is None else {"prompts": trace.prompts.to_json() | dict(trace.prompts_extra)})
        | {"signal": trace.signal.to_json() | dict(trace.signal_extra)}
        | {"steps": [_step_to_json(step, numbers) for step in trace.steps]}
        | dict(trace.extra)
    )


def data_fingerprint(traces: Iterable[Trace]) -> str:
    """SHA-256 over the traces, whatever their order: names the very data that a result was made from."""
    return fingerprint_of([trace_digest(trace) for trace in traces])


def fingerprint_of(digests: Iterable[bytes]) -> str:
    """The fingerprint of traces from the digest of each."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def trace_digest(trace: Trace) -> bytes:
    """SHA-256 over a trace's exchange object, in which each list of numbers is the SHA-256 of its float64 bytes."""
    return hashlib.sha256(json.dumps(_trace_object(trace, _digested), sort_keys=True).encode()).digest()
