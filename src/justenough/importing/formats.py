"""The import formats by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from justenough.errors import InputError
from justenough.importing.inspectlog import read_inspect
from justenough.importing.openai import read_openai
from justenough.importing.options import ImportOptions
from justenough.importing.records import read_records
from justenough.trace import Trace
from justenough.trace.files import BadLine, LoadResult, TraceFile


def _exchange(path: Path, options: ImportOptions) -> Iterator[Trace | BadLine]:
    options.refuse("justenough", takes=())
    file = TraceFile(path, skip_bad=True)
    yield from file.plain()
    yield from file.bad


FORMATS: Final[Mapping[str, Callable[[Path, ImportOptions], Iterator[Trace | BadLine]]]] = MappingProxyType(
    {"justenough": _exchange, "openai": read_openai, "inspect": read_inspect, "records": read_records}
)
"""Name → reader."""


def import_file(path: Path | str, *, format: str, options: ImportOptions | None = None) -> LoadResult:
    """All traces of a file that another tool wrote, and its bad lines; arguments and errors as for `imported`."""
    items = list(imported(path, format=format, options=options))
    traces = [item for item in items if isinstance(item, Trace)]
    return LoadResult(traces, sorted(item for item in items if isinstance(item, BadLine)))


def imported(path: Path | str, *, format: str, options: ImportOptions | None = None) -> Iterator[Trace | BadLine]:
    """The traces and the bad lines of a file that another tool wrote, one after the other.

    `format` is `justenough`, `openai`, `inspect` or `records`. Line numbers count the elements of a JSON array, or the
    samples of an Inspect log. Raises `InputError` if the file cannot be read at all, if the format is unknown, and for
    options that the format does not know.
    """
    path = Path(path)
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}", hint=f"one of {', '.join(FORMATS)}")
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint="give a file of recorded runs")
    return FORMATS[format](path, options or ImportOptions())
