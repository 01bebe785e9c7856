"""Traces as JSON objects of the exchange format, both ways without loss. Every error names the key."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple, cast

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from justenough.errors import InputError, TraceFormatError
from justenough.files import Json, is_shallow, read_as, shown
from justenough.prompts import KEYS, Prompts, prompts_from_json
from justenough.signal.combination import combination_from_json
from justenough.signal.entropy import MOST_BITS, ROUNDING
from justenough.signal.signal import Signal
from justenough.trace.blocks import Block
from justenough.trace.types import NOTHING, SHAPES, Probe, Step, Trace

MOST_SECONDS: Final = 1e9
"""Thirty years: a latency above it is an error, and sums below it cannot overflow."""

_ARRAYS: Final = (memoryview, Block)
_HALF: Final = re.compile("[\ud800-\udfff]")
_LARGEST: Final = sys.float_info.max
MOST_UNCERTAINTY: Final = 1e100
"""A number beyond it is an error, and sums of squares below it cannot overflow."""


class Kind(NamedTuple):
    """The type of a field: in JSON, and in Parquet."""

    json: Any
    """A type that msgspec converts to."""
    arrow: str
    """Name of the Arrow type, or of the type inside the lists."""
    depth: int = 0
    """How many lists are around it."""
    plain: tuple[type, float, float] | None = None
    """Type and bounds of a field that is one number."""


def _one(kind: type, least: float, most: float, *, arrow: str) -> Kind:
    return Kind(Annotated[kind, Meta(ge=least, le=most)], arrow, 0, (kind, least, most))


# JSON has no infinity: null stands for -inf among log-probabilities.
_Log = Annotated[float, Meta(le=_LARGEST)] | None
_COUNT: Final = _one(int, 0, 2**63 - 1, arrow="int64")
_NUMBER: Final = _one(float, -MOST_UNCERTAINTY, MOST_UNCERTAINTY, arrow="double")
_BITS: Final = Kind(tuple[Annotated[float, Meta(ge=0, le=MOST_BITS)], ...], "double", 1)
KINDS: Final[Mapping[str, Kind]] = {
    "tokens": _COUNT,
    "prompt_tokens": _COUNT,
    "seed": _COUNT,
    "top_k": _COUNT,
    "correct": Kind(bool, "bool", 0, (bool, 0, 1)),
    "temperature": _NUMBER,
    "uncertainty": _NUMBER,
    "latency_s": _one(float, 0, MOST_SECONDS, arrow="double"),
    "entropy": _one(float, 0, MOST_BITS, arrow="double"),
    "entropies": _BITS,
    "confidences": _BITS,
    "logprobs": Kind(tuple[_Log, ...], "double", 1),
    "top_logprobs": Kind(tuple[tuple[_Log, ...], ...], "double", 2),
    "token_texts": Kind(tuple[str, ...], "string", 1),
}
"""Kinds of the fields by name; all other fields are text, or objects of their own."""
FIELDS: Final[Mapping[type, tuple[str, ...]]] = {
    kind: tuple(name for name in kind.__dataclass_fields__ if "extra" not in name)
    for kind in (Trace, Step, Probe, Signal)
}
"""Names of the fields of each type of object."""


_PLAIN: Final = {(name, kind.plain[0]): kind.plain[1:] for name, kind in KINDS.items() if kind.plain is not None}


def _members(value: Json, kind: type[Trace | Step | Probe | Signal], where: str) -> dict[str, Any]:
    """The fields of an object that are there, and its unknown keys as `extra`."""
    if not isinstance(value, dict):
        raise TraceFormatError(f"{where.rstrip('.') or 'it'} is no object", hint="see the exchange format in the docs")
    names = FIELDS[kind]
    members: dict[str, Any] = {}
    extra: dict[str, Json] = {}
    for key, item in value.items():
        if key not in names:
            if not is_shallow(item):
                raise TraceFormatError(f"{where}{key} is nested too deeply", hint="leave the key out")
            extra[key] = item
        elif item is not None:
            members[key] = _read(item, key, where)
    members["extra"] = extra or NOTHING
    return members


def _read(value: Any, key: str, where: str) -> object:
    if (bounds := _PLAIN.get((key, type(value)))) is not None:
        # Most values are right; only the others need an error with their place.
        if bounds[0] <= value <= bounds[1]:
            return value
    # The arrays of a Parquet file were checked as a whole.
    elif type(value) in _ARRAYS or (type(value) is str and key in _TEXTS and value.isascii()):
        return value
    if (reader := _READERS.get(key)) is not None:
        return reader(value, f"{where}{key}")
    if (kind := KINDS.get(key)) is None:
        return _text(value, f"{where}{key}")
    if kind is _COUNT and isinstance(value, float) and value.is_integer():
        value = int(value)
    read = _converted(value, kind, f"{where}{key}")
    if key == "logprobs":
        return _filled(read)
    if key == "token_texts":
        return tuple(map(_whole_characters, read)) if _HALF.search("".join(read)) else read
    return read


def _converted(value: Any, kind: Kind, where: str) -> Any:
    try:
        return read_as(value, kind.json, where=where)
    except InputError as error:
        raise TraceFormatError(str(error)) from error


def _text(value: Json, where: str) -> str:
    if isinstance(value, str):
        return _whole_characters(value)
    # Answers and ids of other tools are often numbers.
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise TraceFormatError(f"{where} is {shown(value)}, expected text")


def _whole_characters(text: str) -> str:
    """The text with U+FFFD for half a surrogate pair, which JSON can escape but no file encoding can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if _HALF.search(text) else text


def _filled(row: Iterable[float | None]) -> tuple[float, ...]:
    return tuple(-math.inf if value is None else value for value in row)


def _rows(value: Json, where: str) -> tuple[tuple[float, ...], ...]:
    rows = tuple(map(_filled, _converted(value, KINDS["top_logprobs"], where)))
    if any(not row or not -math.inf < max(row) <= ROUNDING for row in rows):
        raise TraceFormatError(f"{where} holds a row without entries or a value above 0")
    return rows


def _probe(value: Json, where: str) -> Probe:
    blank = {"answer": None, "correct": None, "tokens": 0}
    return Probe(**(blank | _members(value, Probe, f"{where}.")))


def _step(value: Json, where: str) -> Step:
    members = _members(value, Step, f"{where}.")
    if "tokens" not in members:
        raise TraceFormatError(f"{where}.tokens is missing", hint="completion tokens of the step")
    if "correct" not in members and "answer" not in cast("dict[str, Json]", value):
        raise TraceFormatError(f"{where} has neither answer nor correct", hint="give one of them")
    return Step(**members)


def _steps(value: Json, where: str) -> tuple[Step, ...]:
    if not isinstance(value, list) or not value:
        raise TraceFormatError(f"{where} is missing or empty", hint="a list of at least one step")
    return tuple(_step(step, f"{where}[{number}]") for number, step in enumerate(value))


def _frozen(value: Json, where: str) -> str:
    try:
        return json.dumps(value)
    except RecursionError as error:
        raise TraceFormatError(f"{where} is nested too deeply") from error


@lru_cache(maxsize=64)
def _signal(text: str) -> tuple[Signal, Mapping[str, Json]]:
    value: Json = json.loads(text)
    members = _members(value, Signal, "signal.")
    extra = members.pop("extra")
    if "top_k" not in members and (
        "top_k" in cast("dict[str, Json]", value) or members.get("kind", "entropy") != "entropy"
    ):
        members["top_k"] = None
    try:
        return Signal(**members), extra
    except InputError as error:
        raise TraceFormatError(f"signal: {error}") from error


@lru_cache(maxsize=64)
def _prompts(text: str) -> tuple[Prompts, Mapping[str, Json]]:
    value: Json = json.loads(text)
    try:
        prompts = prompts_from_json(value)
    except InputError as error:
        raise TraceFormatError(str(error)) from error
    if not is_shallow(value):
        raise TraceFormatError("prompts is nested too deeply")
    unknown = {key: item for key, item in cast("dict[str, Json]", value).items() if key not in KEYS}
    return prompts, unknown or NOTHING


_READERS: Final[Mapping[str, Callable[[Json, str], object]]] = {
    "steps": _steps,
    "probe": _probe,
    "top_logprobs": _rows,
    "combination": lambda value, where: combination_from_json(value),
    # These two are the same in all traces of a file, so each text is read once.
    "signal": lambda value, where: _signal(_frozen(value, where)),
    "prompts": lambda value, where: _prompts(_frozen(value, where)),
}
_TEXTS: Final = frozenset(name for names in FIELDS.values() for name in names if name not in {*KINDS, *_READERS})


def signal_from_json(value: Json) -> Signal:
    """Read a `signal` object; raises `TraceFormatError`."""
    return Signal() if value is None else _signal(_frozen(value, "signal"))[0]


def trace_from_json(value: Json) -> Trace:
    """Read one object of the exchange format; raises `TraceFormatError` that names the key and what is expected."""
    if isinstance(value, dict):
        if not value.keys() & {"model", "steps"} and value.keys() & {"problem", "question"}:
            raise TraceFormatError("this is a problem without a run of a model", hint="run it: justenough collect")
        if value.get("id") in (None, ""):
            raise TraceFormatError("id is missing", hint="a text that names the problem")
        if value.get("model") is None:
            raise TraceFormatError("model is missing", hint="the name of the model that answered")
        if value.get("steps") is None:
            raise TraceFormatError("steps is missing or empty", hint="a list of at least one step")
    members = _members(value, Trace, "")
    if (shape := members.get("shape", SHAPES[0])) not in SHAPES:
        raise TraceFormatError(f"shape is {shape!r}, expected {' or '.join(SHAPES)}")
    for key in ("signal", "prompts"):
        if key in members:
            members[key], members[f"{key}_extra"] = members[key]
    return Trace(**members)


Numbers = Callable[[Sequence[float] | NDArray[np.float64]], Json]
"""How a list of numbers, one for each token or entry, enters an object."""


def _plain(numbers: Sequence[float] | NDArray[np.float64]) -> Json:
    return [None if value == -math.inf else value for value in numbers]


def _digested(numbers: Sequence[float] | NDArray[np.float64]) -> Json:
    return hashlib.sha256(np.asarray(numbers, dtype="<f8").tobytes()).hexdigest()


def _rows_to_json(rows: Sequence[Sequence[float]], numbers: Numbers) -> Json:
    if numbers is _plain:
        return [_plain(row) for row in rows]
    if isinstance(rows, Block):
        flat, widths = rows.values.ravel(), np.full(len(rows), float(rows.values.shape[1]))
        return [numbers(flat), numbers(widths)]
    return [numbers([value for row in rows for value in row]), numbers([len(row) for row in rows])]


def trace_to_json(trace: Trace) -> dict[str, Json]:
    """The exchange object of a trace; `trace_from_json` reads it back without loss."""
    return _object(trace, _plain)


def _object(item: Trace | Step | Probe, numbers: Numbers) -> dict[str, Json]:
    out: dict[str, Json] = {}
    for name in FIELDS[type(item)]:
        value = getattr(item, name)
        if value is None:
            if name in ("answer", "correct"):
                out[name] = None
        elif name == "steps":
            out[name] = [_object(step, numbers) for step in value]
        elif name == "probe":
            out[name] = _object(value, numbers)
        elif name in ("signal", "prompts"):
            out[name] = value.to_json() | dict(getattr(item, f"{name}_extra"))
        elif name == "top_logprobs":
            out[name] = _rows_to_json(value, numbers)
        elif name == "token_texts":
            out[name] = list(value)
        else:
            out[name] = numbers(value) if name in KINDS and KINDS[name].depth else value
    return out | dict(item.extra)


def data_fingerprint(traces: Iterable[Trace]) -> str:
    """SHA-256 over the traces in any order: it identifies the data that a result was computed from."""
    return fingerprint_of([trace_digest(trace) for trace in traces])


def fingerprint_of(digests: Iterable[bytes]) -> str:
    """The fingerprint of traces from the digest of each."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def trace_digest(trace: Trace) -> bytes:
    """SHA-256 over a trace's exchange object, in which each list of numbers is the SHA-256 of its float64 bytes."""
    return hashlib.sha256(json.dumps(_object(trace, _digested), sort_keys=True).encode()).digest()
