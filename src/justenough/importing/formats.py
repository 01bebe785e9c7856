"""The import formats by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from justenough.errors import InputError
from justenough.importing import exchange
from justenough.importing.evaluations import RESULTS, Results, read_results
from justenough.importing.inspectlog import is_one_log, looks_like_log, read_inspect
from justenough.importing.logs import envelopes, langfuse, langsmith
from justenough.importing.members import objects
from justenough.importing.opening import opened, standard_input
from justenough.importing.options import ImportOptions
from justenough.importing.recordings import read_recordings
from justenough.importing.records import is_table, read_records
from justenough.importing.replies import Numbered
from justenough.importing.runs import runs_of_one_model
from justenough.importing.servers import SERVERS, Form, openai
from justenough.importing.streams import values_of
from justenough.signal.steps import splitter
from justenough.trace import Json, Trace
from justenough.trace.files import BadLine, LoadResult
from justenough.wire.chunks import error_message

AUTO: Final = "auto"
"""The name that means: recognise the format from the file."""
_SAMPLES: Final = 100
"""Number of a file's first values that are read to recognise its format."""


class Format(NamedTuple):
    """How files of one format are recognised and read."""

    looks_like: Callable[[dict[str, Json]], bool]
    """Whether a JSON value is a record of this format."""
    read: Callable[[Path, ImportOptions], Iterator[Numbered | BadLine]]


def _replies(name: str, form: Form) -> Format:
    def read(path: Path, options: ImportOptions) -> Iterator[Numbered | BadLine]:
        options.refuse(name, takes=("tasks", "split"))
        return read_recordings(path, options, form)

    return Format(form.looks_like, read)


def _results(name: str, results: Results) -> Format:
    def read(path: Path, options: ImportOptions) -> Iterator[Numbered | BadLine]:
        options.refuse(name, takes=())
        return read_results(path, options, results)

    return Format(results.looks_like, read)


def _is_openai(value: dict[str, Json]) -> bool:
    return openai.looks_like(value) or ("custom_id" in value and envelopes.looks_like(value))


_OPENAI: Final = Form(
    _is_openai, lambda value: openai.read(value) if openai.looks_like(value) else envelopes.read(value)
)
FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        "justenough": Format(exchange.looks_like, exchange.read_exchange),
        "langsmith": _replies("langsmith", Form(langsmith.looks_like, langsmith.read)),
        "langfuse": _replies("langfuse", Form(langfuse.looks_like, langfuse.read)),
        "inspect": Format(looks_like_log, read_inspect),
        **{name: _results(name, results) for name, results in RESULTS.items()},
        "openai": _replies("openai", _OPENAI),
        **{name: _replies(name, form) for name, form in SERVERS.items() if name != "openai"},
        "log": _replies("log", Form(envelopes.looks_like, envelopes.read)),
        "records": Format(lambda value: False, read_records),
    }
)
"""Name → format, in the order in which a record is compared with them."""


def import_file(path: Path | str, *, format: str = AUTO, options: ImportOptions | None = None) -> LoadResult:
    """All traces of a file that another tool wrote, and its bad lines; arguments and errors as for `imported`."""
    items = list(imported(path, format=format, options=options))
    traces = [item for item in items if isinstance(item, Trace)]
    return LoadResult(traces, sorted(item for item in items if isinstance(item, BadLine)))


def imported(
    path: Path | str, *, format: str = AUTO, options: ImportOptions | None = None
) -> Iterator[Trace | BadLine]:
    """The traces and the bad lines of a file that another tool wrote, one after the other.

    `path` may be `-` for standard input; `.gz` and `.zst` files are decompressed. `format` is a name in `FORMATS`, or
    `auto` for the format that the file looks like. Line numbers count the elements of a JSON array, or the samples of
    an Inspect log. Raises `InputError` if the file cannot be read at all, if it has several models and `options.model`
    chooses none of them, if the format is unknown, and for options that the format does not know.
    """
    path, options = Path(path), options or ImportOptions()
    if format != AUTO and format not in FORMATS:
        raise InputError(f"unknown format {format!r}", hint=f"one of {', '.join((AUTO, *FORMATS))}")
    if options.split is not None:
        splitter(options.split)
    if str(path) != "-" and not path.is_file():
        raise InputError(f"there is no file {path}", hint="give a file of recorded runs")
    return _imported(path, format, options)


def _imported(path: Path, format: str, options: ImportOptions) -> Iterator[Trace | BadLine]:
    with standard_input() if str(path) == "-" else nullcontext(path) as file:
        with opened(file) as raw:
            if raw.peek(1).startswith(b"\x80"):
                raise InputError(f"{file} is a pickle, which can run code", hint="write its content as JSON lines")
        name = recognised(file) if format == AUTO else format
        if name not in FORMATS:
            raise InputError(f"{file}: {name}", hint=f"give --format, one of {', '.join(FORMATS)}")
        any_trace = False
        for item in runs_of_one_model(FORMATS[name].read(file, options), path=file, options=options):
            any_trace = any_trace or isinstance(item, Trace)
            yield item
        if not any_trace and format != AUTO and (looks := recognised(file)) != name and looks in FORMATS:
            raise InputError(f"{file} is not of the format {name}; it looks like {looks}", hint=f"--format {looks}")


def recognised(path: Path) -> str:
    """The name of the format that a file looks like, or what it holds instead of records."""
    with opened(path) as file:
        begin = file.peek(512)[:512]
    if begin.startswith(b"PK"):
        return "inspect"
    if is_table(path):
        return "records"
    if begin.startswith(b"PAR1"):
        return "justenough"
    if not begin.strip():
        return "the file is empty"
    # A log of Inspect is one value, which may be very large.
    if is_one_log(path):
        return "inspect"
    keys: list[str] = []
    for item in islice(values_of(path), _SAMPLES):
        value = None if isinstance(item, BadLine) else item.value
        for record in objects(value if isinstance(value, list) else [value]):
            if (name := next((name for name, each in FORMATS.items() if each.looks_like(record)), None)) is not None:
                return name
            if (words := error_message(record)) is not None:
                return f"a server's error, not a reply: {words}"
            keys = keys or list(record)[:8]
    return f"no record of a known format: its keys are {', '.join(keys)}" if keys else "no record of a known format"
