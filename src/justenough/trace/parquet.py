"""Reads traces from Parquet files: how a batch of rows becomes exchange objects.

The numbers of all steps of a batch stay in shared arrays, without a Python object for each. A text that occurs often
in a batch is one object. A file whose values would take far more memory than the file on disk is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np

from justenough.errors import TraceFormatError
from justenough.files import Json
from justenough.signal.entropy import MOST_BITS, ROUNDING
from justenough.trace.blocks import Block, Floats, Rows, view
from justenough.trace.exchange import FIELDS, KINDS
from justenough.trace.types import Trace
from justenough.trace.writing import NESTED

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

Column = Sequence[Any]

_BATCH: Final = 1000
"""Largest number of traces in a batch."""
_BATCH_BYTES: Final = 64_000_000
"""Approximate size of a batch in memory."""
_SMALL: Final = 32_000_000
"""Decoded bytes that are always accepted."""
_MOST_GROWTH: Final = 100
"""How many times larger than on disk a decoded file may be. Recorded numbers hardly shrink at all."""
_OBJECT_BYTES: Final = 200
"""Approximate size of a trace or step without its values."""
_JSON_BYTES: Final = 20
"""Largest size of parsed JSON for each character."""
_KEY_BYTES: Final = 4
"""Approximate size of a copy of its keys for each character."""
_REQUIRED: Final = ("id", "model", "steps")


def parquet_objects(
    path: Path, *, arrays: bool = False, required: Sequence[str] = _REQUIRED, optional: Sequence[str] = ()
) -> Iterator[dict[str, Json]]:
    """Each row as an object; with `arrays` the numbers of its steps are views of a batch's arrays.

    With `optional`, only the named columns are read. Raises `TraceFormatError` for a file that cannot be read, that
    lacks a required column, or that is far larger in memory than on disk.
    """
    for part in parquet_parts(path, arrays=arrays, required=required, optional=optional):
        yield from part.objects(part.rows)


class Part(NamedTuple):
    """A batch of rows, and the function that reads rows as objects."""

    rows: pa.RecordBatch
    objects: Callable[[pa.RecordBatch], list[dict[str, Json]]]


def parquet_parts(
    path: Path, *, arrays: bool = True, required: Sequence[str] = _REQUIRED, optional: Sequence[str] = ()
) -> Iterator[Part]:
    """The batches of a file; raises `TraceFormatError` as `parquet_objects` does."""
    memory = _Memory(str(path), path.stat().st_size)

    def objects(rows: pa.RecordBatch) -> list[dict[str, Json]]:
        with _readable(path):
            return _Batch(memory, arrays=arrays).objects(rows.to_struct_array(), FIELDS[Trace])

    with _readable(path):
        for rows in parquet_batches(path, memory, required=required, optional=optional):
            yield Part(rows, objects)


def table_objects(table: pa.Table) -> Iterator[dict[str, Json]]:
    """Each row of a table in memory as an object, like the rows of a file; raises `TraceFormatError` likewise."""
    memory = _Memory("the table", table.nbytes)
    with _readable("the table"):
        for rows in table.to_batches():
            yield from _Batch(memory, arrays=True).objects(rows.to_struct_array(), FIELDS[Trace])


@contextmanager
def _readable(path: Path | str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TraceFormatError(f"cannot be read as Parquet: {error}", path=str(path), hint="is it complete?") from error


class _Memory:
    """Estimates the memory that the values of a file take, and refuses a file that takes far more than on disk."""

    def __init__(self, path: str, disk: int) -> None:
        self._path, self._disk, self._used = path, disk, 0

    def take(self, size: int) -> None:
        """Count further bytes; raises `TraceFormatError` above the limit."""
        self._used += size
        if self._used > max(_SMALL, _MOST_GROWTH * self._disk):
            raise TraceFormatError(
                f"{self._disk} bytes on disk would take {self._used} bytes of memory",
                path=self._path,
                hint=f"more than {_MOST_GROWTH} times as much is refused: no recorded traces are like that",
            )


def parquet_batches(
    path: Path, memory: _Memory | None = None, *, required: Sequence[str] = _REQUIRED, optional: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """Batches of a Parquet file that are small in memory, even if each trace is long."""
    import pyarrow.parquet as pq

    # Arrow takes a relative name with a colon for an address.
    path = path.absolute()
    with pq.ParquetFile(path) as file:
        leaves = [file.schema.column(number) for number in range(len(file.schema))]
        names = file.schema_arrow.names
    if missing := [name for name in required if name not in names]:
        raise TraceFormatError(
            f"has no column {', '.join(missing)}",
            path=str(path),
            hint=f"expected {', '.join((*required, *optional))}; `justenough import` reads other formats",
        )
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    columns = [name for name in (*required, *optional) if name in names] if optional else None
    # With `pre_buffer`, Arrow would keep the whole file in memory.
    with pq.ParquetFile(path, pre_buffer=False, read_dictionary=texts) as file:
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        sizes = [_decoded(group, leaves) for group in groups]
        (memory or _Memory(str(path), path.stat().st_size)).take(sum(sizes))
        # Arrow cannot join the nested texts of two row groups into one batch.
        for number, (group, size) in enumerate(zip(groups, sizes, strict=True)):
            rows = min(_BATCH, _BATCH_BYTES * group.num_rows // max(size, 1))
            yield from file.iter_batches(batch_size=max(1, rows), row_groups=[number], columns=columns)


def _decoded(group: pq.RowGroupMetaData, leaves: Sequence[pq.ColumnSchema]) -> int:
    """Bytes that the values of a row group take."""
    size, steps = 0, 0
    for number, leaf in enumerate(leaves):
        column = group.column(number)
        width = leaf.length if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" else 8
        size += max(width, 8) * column.num_values
        if leaf.physical_type == "BYTE_ARRAY":
            size += column.total_uncompressed_size
        if leaf.max_repetition_level == 1:
            steps = max(steps, column.num_values)
    return int(size + _OBJECT_BYTES * (group.num_rows + steps))


class _Batch:
    """Reads the values of one batch as Python objects; a text or JSON text that occurs often is read once."""

    def __init__(self, memory: _Memory, *, arrays: bool) -> None:
        self._memory, self._arrays = memory, arrays
        self._parsed: dict[str, Json] = {}

    def objects(self, array: pa.StructArray, known_fields: Collection[str]) -> list[dict[str, Json]]:
        """One object for each row, in which the keys from `extra` are keys of their own."""
        rows = self._rows(array)
        unknown = [field.name for field in array.type if field.name not in known_fields and field.name != "extra"]
        for row in rows:
            for name in unknown:
                if row[name] is None:
                    del row[name]
            if (extra := row.pop("extra", None)) is not None:
                row |= self._unknown_keys(extra)
        return rows

    def _rows(self, array: pa.StructArray) -> list[dict[str, Json]]:
        names = [field.name for field in array.type]
        columns = [self._values(name, child) for name, child in zip(names, array.flatten(), strict=True)]
        rows: list[dict[str, Json]] = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        return rows or [{} for _ in range(len(array))]

    def _values(self, name: str, array: pa.Array) -> Column:
        """The values of a column; None where a value is null."""
        import pyarrow as pa

        kind = array.type
        if pa.types.is_dictionary(kind):
            texts = self._values(name, array.dictionary)
            return [None if index is None else texts[index] for index in array.indices.to_pylist()]
        if pa.types.is_struct(kind):
            objects = self.objects(array, FIELDS[NESTED[name]]) if name in NESTED else self._rows(array)
            if name == "steps" and kind.get_field_index("answer") < 0:
                for step in objects:
                    step.setdefault("answer", None)
            return _where_valid(array, objects)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            if self._arrays and name in KINDS and (numbers := checked_numbers(name, array)) is not None:
                return _numbers(array, numbers)
            items = self._values("" if name in KINDS else name, array.flatten())
            return _where_valid(array, [items[begin:end] for begin, end in pairwise(list_offsets(array))])
        if not _is_json(kind):
            array = array.cast(pa.string())
        values = cast("Column", array.to_pylist())
        if name == "prompts":
            return [self._json(value) if isinstance(value, str) else value for value in values]
        return values

    def _unknown_keys(self, extra: Json) -> dict[str, Json]:
        """The unknown keys that an `extra` column holds as JSON."""
        if not isinstance(extra, str) or not isinstance(unknown := self._json(extra), dict):
            # Another tool may have a column of that name.
            return {"extra": extra}
        # Each row copies the keys.
        self._memory.take(_KEY_BYTES * len(extra))
        return unknown

    def _json(self, text: str) -> Json:
        """The JSON value of a column; the text itself if it is not JSON."""
        if text not in self._parsed:
            self._memory.take(_JSON_BYTES * len(text))
            try:
                self._parsed[text] = json.loads(text)
            except (ValueError, RecursionError):
                self._parsed[text] = text
        return self._parsed[text]


def _is_json(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    tests = (types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_string)
    return any(test(kind) for test in tests)


def _where_valid(array: pa.Array, values: Column) -> Column:
    """The values, with None where the array has null."""
    if not array.null_count:
        return values
    return [value if valid else None for value, valid in zip(values, array.is_valid().to_pylist(), strict=True)]


def list_offsets(array: pa.ListArray) -> list[int]:
    """Where each list begins in `flatten()`, and where the last one ends."""
    lengths = np.asarray(array.value_lengths().fill_null(0).to_numpy(), dtype=np.int64)
    offsets: list[int] = np.concatenate(([0], np.cumsum(lengths))).tolist()
    return offsets


def checked_numbers(name: str, array: pa.ListArray) -> Floats | None:
    """The numbers of all rows, (N,) or (N, k), if all are valid and rows of log-probabilities have one width.

    None otherwise: the numbers are then read one by one, and the error names the number and its place.
    """
    import pyarrow as pa

    logs, rows = "logprobs" in name, None
    inner = array.flatten()
    if KINDS[name].depth == 2:
        if not pa.types.is_list(inner.type):
            return None
        rows, inner = inner, inner.flatten()
    if not pa.types.is_float64(inner.type) or (inner.null_count and not logs):
        return None
    # Null stands for -inf.
    values: Floats = np.asarray((inner.fill_null(-np.inf) if inner.null_count else inner).to_numpy())
    if rows is None:
        limits = (-np.inf, np.inf) if logs else (0, np.nextafter(MOST_BITS, np.inf))
        return values if ((values >= limits[0]) & (values < limits[1])).all() else None
    widths = np.unique(rows.value_lengths().to_numpy(zero_copy_only=False)).tolist() or [1]
    if rows.null_count or len(widths) > 1 or widths == [0]:
        return None
    values = values.reshape(-1, widths[0])
    # The largest value is NaN if any is.
    largest = values.max(axis=1, initial=-np.inf)
    return values if ((largest > -np.inf) & (largest <= ROUNDING)).all() else None


def _numbers(array: pa.ListArray, values: Floats) -> Column:
    """Views of the checked numbers of each row."""
    bounds = pairwise(list_offsets(array))
    if values.ndim == 2:
        shared = Rows(values)
        return _where_valid(array, [Block(shared, begin, end) for begin, end in bounds])
    flat = view(values)
    return _where_valid(array, [flat[begin:end] for begin, end in bounds])
