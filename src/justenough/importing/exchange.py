"""The exchange format of this library, as JSON lines or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from justenough.errors import TraceFormatError
from justenough.importing.jsonfile import json_values
from justenough.importing.members import inside
from justenough.importing.options import ImportOptions
from justenough.importing.replies import Numbered, at_common_top_k, lacking
from justenough.trace import Json, trace_from_json
from justenough.trace.files import BadLine, is_parquet
from justenough.trace.parquet import parquet_objects


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is a trace."""
    return all(name in value for name in ("id", "model", "steps"))


def read_exchange(path: Path, options: ImportOptions) -> Iterator[Numbered | BadLine]:
    """The traces of the file. A trace with log-probabilities that does not state its k gets the k that all share."""
    options.refuse("justenough", takes=())
    if all(isinstance(value, BadLine) or _states_k(value[1]) for value in _values(path)):
        return _traces(path)
    return at_common_top_k(lambda: _traces(path), options)


def _values(path: Path) -> Iterator[tuple[int, Json] | BadLine]:
    return iter(enumerate(parquet_objects(path), 1)) if is_parquet(path) else json_values(path)


def _traces(path: Path) -> Iterator[Numbered | BadLine]:
    for value in _values(path):
        if isinstance(value, BadLine):
            yield value
            continue
        line, plain = value
        try:
            trace = trace_from_json(plain)
            if not _states_k(plain):
                if all(lacks := [lacking(step) for step in trace.steps]):
                    raise TraceFormatError(f"it {lacks[0]}")
                trace = replace(trace, signal=replace(trace.signal, top_k=None))
        except TraceFormatError as error:
            yield BadLine(line, error.reason)
            continue
        yield Numbered(line, trace)


def _states_k(value: Json) -> bool:
    """Whether a trace states the k of its log-probabilities, or has none."""
    signal, steps = inside(value, "signal"), inside(value, "steps")
    if isinstance(signal, dict) and ("top_k" in signal or signal.get("kind", "entropy") != "entropy"):
        return True
    return not any(inside(step, "top_logprobs") for step in steps) if isinstance(steps, list) else True
