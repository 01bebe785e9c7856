"""Results of evaluation tools that keep a number for each answer instead of log-probabilities."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from justenough.errors import TraceFormatError
from justenough.importing.evaluations import deepconf, lmeval
from justenough.importing.jsonfile import json_values
from justenough.importing.options import ImportOptions
from justenough.importing.replies import Numbered, checked
from justenough.trace import Json, Trace
from justenough.trace.files import BadLine

_SAMPLES_OF: Final = re.compile(r"samples_(.+?)(?:_\d{4}-\d\d-\d\dT.*)?$")
"""The task in the name of a file by lm-evaluation-harness."""


class _Read(Protocol):
    def __call__(self, value: dict[str, Json], *, model: str | None, task: str) -> list[Trace]:
        """The traces of a record."""


class Results(NamedTuple):
    """How one kind of record is recognised and read."""

    looks_like: Callable[[dict[str, Json]], bool]
    read: _Read


RESULTS: Final[Mapping[str, Results]] = MappingProxyType(
    {
        "deepconf": Results(deepconf.looks_like, deepconf.read),
        "lm-eval": Results(lmeval.looks_like, lmeval.read),
    }
)
"""Name → results of one tool."""


def read_results(path: Path, options: ImportOptions, results: Results) -> Iterator[Numbered | BadLine]:
    """The traces of a file; their task is named after it."""
    stem = path.name.partition(".json")[0]
    task = match[1] if (match := _SAMPLES_OF.match(stem)) else stem
    for item in json_values(path):
        if isinstance(item, BadLine):
            yield item
            continue
        try:
            if not isinstance(item.value, dict) or not results.looks_like(item.value):
                raise TraceFormatError("is not of this format")
            traces = [checked(trace) for trace in results.read(item.value, model=options.chosen, task=task)]
            if not all(trace.model for trace in traces):
                raise TraceFormatError("names no model: give --model NAME")
        except TraceFormatError as error:
            yield BadLine(item.number, error.reason)
            continue
        yield from (Numbered(item.number, trace) for trace in traces)
