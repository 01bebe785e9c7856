"""The import formats by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from justenough.errors import InputError
from justenough.importing.inspectlog import read_inspect
from justenough.importing.openai import read_openai
from justenough.importing.records import read_records
from justenough.importing.wanted import Wanted
from justenough.trace.files import LoadResult, read_traces


def _exchange(path: Path, wanted: Wanted) -> LoadResult:
    wanted.refuse("justenough", takes=())
    return read_traces(path, skip_bad=True)


FORMATS: Final[Mapping[str, Callable[[Path, Wanted], LoadResult]]] = MappingProxyType(
    {"justenough": _exchange, "openai": read_openai, "inspect": read_inspect, "records": read_records}
)
"""Name → reader."""


def import_traces(path: Path, format: str, wanted: Wanted) -> LoadResult:
    """The traces of a file in a format of `FORMATS`, and its bad lines.

    For a JSON array or an Inspect log, the numbers of bad lines count elements or samples. Raises `InputError` for a
    file that cannot be read at all, an unknown format, and choices that do not apply to the format.
    """
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}", hint=f"one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint="give a file of recorded runs")
    return FORMATS[format](path, wanted)
