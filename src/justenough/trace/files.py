"""Reads and writes files of traces, exchange JSONL and Parquet, without loss."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from justenough.errors import InputError, TraceFormatError
from justenough.files import Json, is_stdout, lines_of, written_whole
from justenough.trace.batches import Batch, batch_of
from justenough.trace.exchange import trace_from_json, trace_to_json
from justenough.trace.frames import arrow_table, pandas_frame, polars_frame
from justenough.trace.parquet import Part, parquet_objects, parquet_parts
from justenough.trace.types import Trace
from justenough.trace.writing import write_parquet

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


class BadLine(NamedTuple):
    """A line that could not be read, and why."""

    line: int
    """Number of the line, from 1."""
    reason: str
    """Why the line could not be read."""


class LoadResult(NamedTuple):
    """The traces of a file and the lines that could not be read."""

    traces: list[Trace]
    """In the order of the file."""
    bad: list[BadLine]
    """Lines that were left out, with the reason."""

    def to_arrow(self) -> pa.Table:
        """A `pyarrow.Table` with one row for each step: `number` counts from 1, `bits` is the step's signal."""
        return arrow_table(self.traces)

    def to_pandas(self) -> pd.DataFrame:
        """The rows of `to_arrow` as a `pandas.DataFrame`; raises `MissingExtra` if pandas is not installed."""
        return pandas_frame(self.traces)

    def to_polars(self) -> pl.DataFrame:
        """The rows of `to_arrow` as a `polars.DataFrame`; raises `MissingExtra` if Polars is not installed."""
        return polars_frame(self.traces)


@dataclass(slots=True)
class _Tally:
    """What one loop over a file counts."""

    count: int = 0
    passed_over: int = 0
    bad: list[BadLine] = field(default_factory=list)


class TraceFile:
    """The traces of a file that may be larger than memory: each loop reads the file again, batch by batch."""

    def __init__(self, path: Path | str, *, skip_bad: bool = False, left_out: Collection[str] = frozenset()) -> None:
        self.path = Path(path)
        self.skip_bad = skip_bad
        self.left_out = frozenset(left_out)
        """Hashed ids of problems that are left out."""
        self.bad: list[BadLine] = []
        """The lines that the last loop could not read; shared with the files that `without` returns."""
        self.passed_over = 0
        """Number of traces of the left-out problems in the last loop."""

    def __iter__(self) -> Iterator[Trace]:
        """The traces one by one. Raises `TraceFormatError` at the first bad line, unless `skip_bad` counts it."""
        return self._traces(arrays=True)

    def _batches(self) -> Iterator[Batch | Trace]:
        """Like a loop over the traces, but whole batches as columns, where nothing in a batch needs objects."""
        if not is_parquet(self.path):
            yield from self
            return
        tally, line = _Tally(), 1
        for part in parquet_parts(self.path):
            if (batch := self._batch(part)) is None:
                yield from self._read(enumerate(part.objects(part.rows), line), tally)
            else:
                tally.count += len(part.rows)
                tally.passed_over += len(part.rows) - len(batch)
                if len(batch):
                    yield batch
            line += len(part.rows)
        self._end(tally)

    def _batch(self, part: Part) -> Batch | None:
        """The rows of a part that are not left out; None if they must be read as objects."""
        try:
            first = trace_from_json(part.objects(part.rows.slice(0, 1))[0])
        except TraceFormatError:
            return None
        rows, batch = part.rows, batch_of(part.rows, first)
        if batch is not None and self.left_out:
            rows = rows.filter([hashed_id not in self.left_out for hashed_id in batch.hashed_ids])
            batch = batch_of(rows, first)
        if batch is not None:
            batch.traces = lambda: map(trace_from_json, part.objects(rows))
        return batch

    def _traces(self, *, arrays: bool) -> Iterator[Trace]:
        tally = _Tally()
        yield from self._read(_values(self.path, arrays=arrays), tally)
        self._end(tally)

    def _read(self, values: Iterable[tuple[int, Json | TraceFormatError]], tally: _Tally) -> Iterator[Trace]:
        for line, value in values:
            try:
                if isinstance(value, TraceFormatError):
                    raise value
                trace = trace_from_json(value)
            except TraceFormatError as error:
                if not self.skip_bad:
                    raise TraceFormatError(error.reason, path=str(self.path), line=line, hint=error.hint) from error
                tally.bad.append(BadLine(line, error.reason))
                continue
            tally.count += 1
            if self.left_out and trace.hashed_id in self.left_out:
                tally.passed_over += 1
            else:
                yield trace

    def _end(self, tally: _Tally) -> None:
        self.bad[:], self.passed_over = tally.bad, tally.passed_over
        if not tally.count and not tally.bad:
            raise TraceFormatError("the file holds no trace", path=str(self.path), hint="collect some first")

    def read(self) -> LoadResult:
        """All traces at once, each with its own tuples of numbers."""
        return LoadResult(list(self.plain()), self.bad)

    def plain(self) -> Iterator[Trace]:
        """Like a loop over the traces, but each has its own tuples of numbers."""
        return self._traces(arrays=False)

    def without(self, hashed_ids: Collection[str]) -> TraceFile:
        """The same file without some problems."""
        other = TraceFile(self.path, skip_bad=self.skip_bad, left_out=self.left_out | frozenset(hashed_ids))
        other.bad = self.bad
        return other

    def to_arrow(self) -> pa.Table:
        """A `pyarrow.Table` with one row for each step: `number` counts from 1, `bits` is the step's signal."""
        return arrow_table(self)

    def to_pandas(self) -> pd.DataFrame:
        """The rows of `to_arrow` as a `pandas.DataFrame`; raises `MissingExtra` if pandas is not installed."""
        return pandas_frame(self)

    def to_polars(self) -> pl.DataFrame:
        """The rows of `to_arrow` as a `polars.DataFrame`; raises `MissingExtra` if Polars is not installed."""
        return polars_frame(self)


Traces = Sequence[Trace] | TraceFile
"""Traces that can be read more than once."""


def items_of(traces: Traces) -> Iterable[Batch | Trace]:
    """The traces, or whole batches of them where they are read from a file."""
    return traces._batches() if isinstance(traces, TraceFile) else traces


def models_of(item: Batch | Trace) -> Sequence[str]:
    """The models of a trace, or of the traces of a batch."""
    return item.models if isinstance(item, Batch) else (item.model,)


def first_of(traces: Traces) -> Trace:
    """The first trace; raises `InputError` if there is none."""
    for trace in traces:
        return trace
    raise InputError("there is no trace", hint="collect some first")


def read_traces(path: Path | str, *, skip_bad: bool = False) -> LoadResult:
    """All traces of a Parquet or JSONL file.

    Raises `TraceFormatError` with file, line and reason at the first bad line, unless `skip_bad` counts it and goes on.
    """
    return TraceFile(path, skip_bad=skip_bad).read()


def is_parquet(path: Path) -> bool:
    """Whether a file of traces is Parquet, by its first bytes; raises `InputError` if the file does not exist."""
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint="give a Parquet or JSONL file of traces")
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _values(path: Path, *, arrays: bool) -> Iterator[tuple[int, Json | TraceFormatError]]:
    """The exchange object of each line or row, with its number; an error for a line that is not JSON."""
    if is_parquet(path):
        yield from enumerate(parquet_objects(path, arrays=arrays), 1)
        return
    with path.open("rb") as file:
        for line, raw in enumerate(lines_of(file, path), 1):
            if raw.strip():
                try:
                    yield line, cast("Json", json.loads(raw))
                # Besides bad JSON and bad UTF-8, Python refuses whole numbers of thousands of digits.
                except (ValueError, RecursionError) as error:
                    yield line, TraceFormatError(f"no JSON: {error}")


def write_traces(traces: Iterable[Trace], path: Path | str) -> int:
    """Write traces as JSONL if the name ends in `.jsonl` or is standard output, else as Parquet; returns how many.

    The file appears whole or not at all. Raises `InputError` if the folder cannot be written.
    """
    path = Path(path)
    write = _write_lines if path.suffix in (".jsonl", ".ndjson") or is_stdout(path) else write_parquet
    try:
        with written_whole(path) as temporary:
            return write(traces, temporary)
    except ValueError as error:
        raise InputError(
            f"cannot write {path}: {error}", hint="a text or number that the format cannot hold"
        ) from error


def _write_lines(traces: Iterable[Trace], path: Path) -> int:
    count = 0
    # Half a surrogate pair becomes its JSON escape.
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for trace in traces:
            file.write(json.dumps(trace_to_json(trace), ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count
