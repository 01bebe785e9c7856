"""Traces in Parquet files: the columns, and how a batch of rows becomes exchange objects and back.

The numbers of all steps of a batch stay in shared arrays, without a Python object for each. A text that occurs often is
one object. So a file that is small on disk cannot fill the memory with repeated texts; repeated numbers are counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from justenough.errors import TraceFormatError
from justenough.files import Json
from justenough.signal.entropy import MOST_BITS, ROUNDING
from justenough.signal.signal import Signal
from justenough.trace.blocks import Block, Floats, Rows, view
from justenough.trace.exchange import FIELDS, KINDS, trace_to_json
from justenough.trace.types import Probe, Step, Trace

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Column = Sequence[Any]

_BATCH: Final = 1000
"""Largest number of traces in a batch."""
_BATCH_BYTES: Final = 64_000_000
"""Approximate size of a batch in memory."""
_GROUP_NUMBERS: Final = 2_000_000
"""Number of log-probabilities that completes a row group before it has `_BATCH` traces."""
_SMALL: Final = 128_000_000
"""Bytes of a decoded row group that are always accepted."""
_MOST_GROWTH: Final = 100
"""How many times larger than on disk a decoded row group may be. Recorded numbers hardly shrink at all."""
_NESTED: Final[Mapping[str, type[Step | Probe | Signal]]] = {"steps": Step, "probe": Probe, "signal": Signal}


def trace_schema() -> pa.Schema:
    """The columns of a Parquet file of traces: those of the exchange format, with unknown keys as JSON in `extra`."""
    import pyarrow as pa

    return pa.schema(_struct_fields(Trace))


def _struct_fields(kind: type) -> list[tuple[str, pa.DataType]]:
    # The weights of a combination are rare: they are in `extra`, not in a column of their own.
    return [(name, _arrow_type(name)) for name in (*FIELDS[kind], "extra") if name != "combination"]


def _arrow_type(name: str) -> pa.DataType:
    import pyarrow as pa

    if name in _NESTED:
        struct = pa.struct(_struct_fields(_NESTED[name]))
        return pa.list_(struct) if name == "steps" else struct
    if name not in KINDS:
        return pa.string()
    arrow = pa.type_for_alias(KINDS[name].arrow)
    for _ in range(KINDS[name].depth):
        arrow = pa.list_(arrow)
    return arrow


def write_parquet(traces: Iterable[Trace], path: Path) -> int:
    """Write traces in row groups of a limited size; returns how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = trace_schema()
    count = numbers = 0
    rows: list[dict[str, Json]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for trace in traces:
            rows.append(_row(trace))
            count += 1
            numbers += sum(sum(map(len, step.top_logprobs or ())) for step in trace.steps)
            if len(rows) == _BATCH or numbers >= _GROUP_NUMBERS:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows, numbers = [], 0
        if rows or not count:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return count


def _row(trace: Trace) -> dict[str, Json]:
    row = trace_to_json(trace)
    _pack(row, trace.extra)
    row["prompts"] = json.dumps(row["prompts"]) if "prompts" in row else None
    signal = cast("dict[str, Json]", row["signal"])
    fitted = {"combination": signal["combination"]} if "combination" in signal else {}
    _pack(signal, {**trace.signal_extra, **fitted})
    for step, packed in zip(trace.steps, cast("list[dict[str, Json]]", row["steps"]), strict=True):
        _pack(packed, step.extra)
        if step.probe is not None:
            _pack(cast("dict[str, Json]", packed["probe"]), step.probe.extra)
    return row


def _pack(row: dict[str, Json], extra: Mapping[str, Json]) -> None:
    """Move the unknown keys into the column `extra`."""
    for key in extra:
        row.pop(key)
    row["extra"] = json.dumps(dict(extra)) if extra else None


def parquet_objects(path: Path, *, arrays: bool) -> Iterator[Json]:
    """The exchange object of each row; with `arrays` the numbers of its steps are views of a batch's arrays.

    Raises `TraceFormatError` for a file that cannot be read, or that is far larger in memory than on disk.
    """
    import pyarrow as pa

    try:
        for batch in parquet_batches(path):
            names = batch.schema.names
            columns = [_column(name, batch.column(name), arrays=arrays) for name in names]
            for row in zip(*columns, strict=True):
                fields = _present(dict(zip(names, row, strict=True)))
                if isinstance(prompts := fields.get("prompts"), str):
                    fields["prompts"] = _json(prompts)
                yield fields
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TraceFormatError(f"cannot be read as Parquet: {error}", path=str(path), hint="collect again") from error


def parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Batches of a Parquet file of traces that are small in memory, even if each trace is long."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        leaves = [file.schema.column(number) for number in range(len(file.schema))]
        missing = {"id", "model", "steps"} - set(file.schema_arrow.names)
    if missing:
        raise TraceFormatError(
            f"has no column {', '.join(sorted(missing))}",
            path=str(path),
            hint="is it a file of traces? `justenough import` reads other formats",
        )
    texts = [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING"]
    # With `pre_buffer`, Arrow would keep the whole file in memory.
    with pq.ParquetFile(path, pre_buffer=False, read_dictionary=texts) as file:
        widest = max((_row_bytes(file.metadata.row_group(n), path) for n in range(file.num_row_groups)), default=1.0)
        yield from file.iter_batches(batch_size=max(1, min(_BATCH, int(_BATCH_BYTES / max(widest, 1.0)))))


def _row_bytes(group: pq.RowGroupMetaData, path: Path) -> float:
    """Mean size of a row in memory; raises `TraceFormatError` if the whole row group is out of proportion."""
    columns = [group.column(number) for number in range(group.num_columns)]
    decoded = 8 * sum(column.num_values for column in columns)
    on_disk = sum(column.total_compressed_size for column in columns)
    if decoded > max(_SMALL, _MOST_GROWTH * on_disk):
        raise TraceFormatError(
            f"{on_disk} bytes on disk would take {decoded} bytes of memory",
            path=str(path),
            hint=f"more than {_MOST_GROWTH} times as much is refused: no recorded traces are like that",
        )
    return float(max(decoded, group.total_byte_size) / max(group.num_rows, 1))


def _column(name: str, array: pa.Array, *, arrays: bool) -> Column:
    """The values of a column as Python objects; None where a value is null."""
    import pyarrow as pa

    kind = array.type
    if pa.types.is_dictionary(kind):
        texts = array.dictionary.to_pylist()
        return [None if index is None else texts[index] for index in array.indices.to_pylist()]
    if name not in _NESTED and name not in KINDS:
        return cast("Column", array.to_pylist())
    if pa.types.is_list(kind):
        if arrays and name in KINDS and (numbers := _numbers(name, array)) is not None:
            return numbers
        return _lists(array, _column(name, array.flatten(), arrays=arrays and name not in KINDS))
    if pa.types.is_struct(kind) and name in _NESTED:
        columns = [
            _column(field.name, child, arrays=arrays) for field, child in zip(kind, array.flatten(), strict=True)
        ]
        names = [field.name for field in kind]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)] or [{}] * len(array)
        # In a signal, a null means something: a stand-in has no top k.
        objects = [row | _unknown_keys(row.pop("extra", None)) if name == "signal" else _present(row) for row in rows]
        if name == "steps":
            for step in objects:
                step.setdefault("answer", None)
        return [value if valid else None for value, valid in zip(objects, array.is_valid().to_pylist(), strict=True)]
    return cast("Column", array.to_pylist())


def _lists(array: pa.ListArray, items: Column) -> Column:
    """The items of the flattened array as one list for each row."""
    bounds = pairwise(_offsets(array))
    return [
        items[begin:end] if valid else None
        for (begin, end), valid in zip(bounds, array.is_valid().to_pylist(), strict=True)
    ]


def _offsets(array: pa.ListArray) -> list[int]:
    """Where each list begins in `flatten()`, and where the last one ends."""
    lengths = np.asarray(array.value_lengths().fill_null(0).to_numpy(), dtype=np.int64)
    offsets: list[int] = np.concatenate(([0], np.cumsum(lengths))).tolist()
    return offsets


def _numbers(name: str, array: pa.ListArray) -> Column | None:
    """Views of the numbers of each row, if all of them are valid and rows of log-probabilities have one width.

    None otherwise: the numbers are then read one by one, and the error names the number and its place.
    """
    import pyarrow as pa

    logs, rows = "logprobs" in name, None
    inner = array.flatten()
    if KINDS[name].depth == 2 and pa.types.is_list(inner.type):
        rows, inner = inner, inner.flatten()
    if not pa.types.is_float64(inner.type) or (inner.null_count and not logs):
        return None
    # Null stands for -inf.
    values: Floats = np.asarray((inner.fill_null(-np.inf) if inner.null_count else inner).to_numpy())
    if rows is not None:
        widths = np.unique(rows.value_lengths().to_numpy(zero_copy_only=False)).tolist() or [1]
        if rows.null_count or len(widths) > 1 or widths == [0]:
            return None
        values = values.reshape(-1, widths[0])
        largest = values.max(axis=1, initial=-np.inf)
        valid = not np.isnan(values).any() and bool(((largest > -np.inf) & (largest <= ROUNDING)).all())
        shared = Rows(values)
    elif logs:
        valid = bool((values < np.inf).all())
    else:
        valid = bool(((values >= 0) & (values <= MOST_BITS)).all())
    if not valid:
        return None
    flat = view(values.ravel())
    return [
        None if not there else flat[begin:end] if rows is None else Block(shared, begin, end)
        for (begin, end), there in zip(pairwise(_offsets(array)), array.is_valid().to_pylist(), strict=True)
    ]


def _present(row: dict[str, Json]) -> dict[str, Json]:
    """The values that are not null, and the unknown keys from the column `extra`."""
    unknown = _unknown_keys(row.pop("extra", None))
    return {key: value for key, value in row.items() if value is not None} | unknown


def _unknown_keys(extra: Json) -> dict[str, Json]:
    """The unknown keys that an `extra` column holds as JSON."""
    if not isinstance(extra, str):
        return {}
    unknown = _json(extra)
    # Another tool may have a column of that name.
    return unknown if isinstance(unknown, dict) else {"extra": extra}


def _json(text: str) -> Json:
    """The JSON value of a column; the text itself if it is not JSON."""
    try:
        return cast("Json", json.loads(text))
    except (ValueError, RecursionError):
        return text
