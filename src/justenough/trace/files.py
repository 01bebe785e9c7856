"""Reads and writes files of traces, exchange JSONL and Parquet, without loss."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from justenough.errors import InputError, TraceFormatError
from justenough.files import written_whole
from justenough.trace import Json, Trace, trace_from_json, trace_to_json
from justenough.trace.frames import arrow_table, pandas_frame, polars_frame

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

_BATCH: Final = 1000
"""Traces in a batch, at most."""
_BATCH_BYTES: Final = 64_000_000
"""Of a batch in memory, about."""
_GROUP_NUMBERS: Final = 2_000_000
"""Log-probabilities after which a row group is full, however few its traces."""
_TRACE_TEXTS: Final = ("id", "task", "family", "group", "model", "shape", "problem", "target", "settings", "prompts")


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


def read_traces(path: Path | str, *, skip_bad: bool = False) -> LoadResult:
    """All traces of a Parquet or JSONL file.

    Raises `TraceFormatError` with file, line and reason at the first bad line, unless `skip_bad` counts it and goes on.
    """
    traces: list[Trace] = []
    bad: list[BadLine] = []
    for item in iter_traces(path):
        if isinstance(item, Trace):
            traces.append(item)
        elif skip_bad:
            bad.append(BadLine(item.line or 0, item.reason))
        else:
            raise item
    if not traces and not bad:
        raise TraceFormatError("the file holds no trace", path=str(path), hint="collect some first")
    return LoadResult(traces, bad)


def iter_traces(path: Path | str) -> Iterator[Trace | TraceFormatError]:
    """The traces of a file one by one, with an error in the place of a line that cannot be read."""
    path = Path(path)
    yield from _parquet_rows(path) if is_parquet(path) else _json_lines(path)


def is_parquet(path: Path) -> bool:
    """Whether a file of traces is Parquet, by its first bytes; raises `InputError` where there is none."""
    if not path.is_file():
        raise InputError(f"there is no file {path}", hint="give a Parquet or JSONL file of traces")
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _json_lines(path: Path) -> Iterator[Trace | TraceFormatError]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                value = json.loads(raw)
            # Besides bad JSON and bad UTF-8, Python refuses whole numbers of thousands of digits.
            except (ValueError, RecursionError) as error:
                yield TraceFormatError(f"no JSON: {error}", path=str(path), line=number)
                continue
            yield _trace_or_error(value, path, number)


def _trace_or_error(value: Json, path: Path, number: int) -> Trace | TraceFormatError:
    try:
        return trace_from_json(value)
    except TraceFormatError as error:
        return TraceFormatError(error.reason, path=str(path), line=number, hint=error.hint)


def _parquet_rows(path: Path) -> Iterator[Trace | TraceFormatError]:
    number = 1
    for batch in parquet_batches(path):
        yield from rows_of(batch, path, first=number)
        number += batch.num_rows


def rows_of(batch: pa.RecordBatch, path: Path, *, first: int) -> Iterator[Trace | TraceFormatError]:
    """The traces of a batch, one by one; `first` is the number of its first row in the file."""
    for number, row in enumerate(batch.to_pylist(), first):
        yield _trace_or_error(row_to_json(row), path, number)


def parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Batches of a Parquet file of traces that are small in memory, however long a trace is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # What is buffered ahead is held to the end: the whole file.
        file = pq.ParquetFile(path, pre_buffer=False)
        missing = {"id", "model", "steps"} - set(file.schema_arrow.names)
        if missing:
            raise TraceFormatError(
                f"has no column {', '.join(sorted(missing))}",
                path=str(path),
                hint="is it a file of traces? `justenough import` reads other formats",
            )
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        widest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1.0)
        yield from file.iter_batches(batch_size=max(1, min(_BATCH, int(_BATCH_BYTES / max(widest, 1.0)))))
    except (pa.ArrowException, OSError) as error:
        raise TraceFormatError(f"cannot be read as Parquet: {error}", path=str(path), hint="collect again") from error


def row_to_json(row: dict[str, Json]) -> Json:
    """An Arrow row as an exchange object: absent where null, unknown keys out of their `extra` column."""
    out = _present(row)
    if isinstance(asked := row.get("prompts"), str):
        out["prompts"] = prompts_of(asked)
    signal = row.get("signal")
    if isinstance(signal, dict):
        # A null means something here: top_k is null for a stand-in.
        out["signal"] = {key: value for key, value in signal.items() if key != "extra"} | unknown_keys(
            signal.get("extra")
        )
    steps = row.get("steps")
    if isinstance(steps, list):
        out["steps"] = [_step_row(step) for step in steps]
    return out


def prompts_of(column: str) -> Json:
    """The prompts' object, of which a column holds the JSON; other text as it stands."""
    try:
        return cast("Json", json.loads(column))
    except ValueError:
        return column


def _step_row(step: Json) -> Json:
    if not isinstance(step, dict):
        return step
    out = _present(step)
    out.setdefault("answer", None)
    probe = step.get("probe")
    if isinstance(probe, dict):
        out["probe"] = _present(probe)
    return out


def _present(row: dict[str, Json]) -> dict[str, Json]:
    present: dict[str, Json] = {key: value for key, value in row.items() if value is not None and key != "extra"}
    return present | unknown_keys(row.get("extra"))


def unknown_keys(extra: object) -> dict[str, Json]:
    """The unknown keys that an `extra` column holds as JSON."""
    if not isinstance(extra, str):
        return {}
    try:
        unknown = json.loads(extra)
    except ValueError:
        # Another tool's column of that name.
        unknown = None
    return unknown if isinstance(unknown, dict) else {"extra": extra}


def write_traces(traces: Iterable[Trace], path: Path | str) -> int:
    """Write traces as JSONL where the name ends in `.jsonl`, else as Parquet; returns how many.

    The file appears whole or not at all. Raises `InputError` where the folder cannot be written.
    """
    path = Path(path)
    write = _write_lines if path.suffix in (".jsonl", ".ndjson") else _write_parquet
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


def _write_parquet(traces: Iterable[Trace], path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = trace_schema()
    count = numbers = 0
    rows: list[dict[str, Json]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for trace in traces:
            rows.append(_trace_row(trace))
            count += 1
            numbers += sum(sum(map(len, step.top_logprobs or ())) for step in trace.steps)
            if len(rows) == _BATCH or numbers >= _GROUP_NUMBERS:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows, numbers = [], 0
        if rows or not count:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return count


def _trace_row(trace: Trace) -> dict[str, Json]:
    row = trace_to_json(trace)
    _pack(row, trace.extra)
    row["prompts"] = json.dumps(row["prompts"]) if "prompts" in row else None
    signal = cast("dict[str, Json]", row["signal"])
    # A combination is a file's exception: no column is spent on it.
    fitted = {"combination": signal["combination"]} if "combination" in signal else {}
    _pack(signal, {**trace.signal_extra, **fitted})
    steps = cast("list[dict[str, Json]]", row["steps"])
    for step, packed in zip(trace.steps, steps, strict=True):
        _pack(packed, step.extra)
        if step.probe is not None:
            _pack(cast("dict[str, Json]", packed["probe"]), step.probe.extra)
    return row


def _pack(row: dict[str, Json], extra: Mapping[str, Json]) -> None:
    """Put unknown keys into the one column that there is for them."""
    for key in extra:
        row.pop(key)
    row["extra"] = json.dumps(dict(extra)) if extra else None


def trace_schema() -> pa.Schema:
    """The columns of a Parquet file of traces: the exchange format's, the prompts and unknown keys as JSON."""
    import pyarrow as pa

    floats = pa.list_(pa.float64())
    probe = pa.struct(
        [
            ("answer", pa.string()),
            ("correct", pa.bool_()),
            ("tokens", pa.int64()),
            ("prompt_tokens", pa.int64()),
            ("text", pa.string()),
            ("entropies", floats),
            ("logprobs", floats),
            ("token_texts", pa.list_(pa.string())),
            ("extra", pa.string()),
        ]
    )
    step = pa.struct(
        [
            ("text", pa.string()),
            ("answer", pa.string()),
            ("correct", pa.bool_()),
            ("tokens", pa.int64()),
            ("finish", pa.string()),
            ("model", pa.string()),
            ("prompt_tokens", pa.int64()),
            ("latency_s", pa.float64()),
            ("probe", probe),
            ("entropies", floats),
            ("top_logprobs", pa.list_(floats)),
            ("entropy", pa.float64()),
            ("uncertainty", pa.float64()),
            ("logprobs", floats),
            ("token_texts", pa.list_(pa.string())),
            ("confidences", floats),
            ("extra", pa.string()),
        ]
    )
    signal = pa.struct(
        [
            ("kind", pa.string()),
            ("top_k", pa.int64()),
            ("tail", pa.string()),
            ("pooling", pa.string()),
            ("splitter", pa.string()),
            ("logits", pa.string()),
            ("temperature", pa.float64()),
            ("extra", pa.string()),
        ]
    )
    texts = [(name, pa.string()) for name in _TRACE_TEXTS]
    rest = [("seed", pa.int64()), ("signal", signal), ("steps", pa.list_(step)), ("extra", pa.string())]
    return pa.schema(texts + rest)
