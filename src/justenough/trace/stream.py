"""Traces of a file that is larger than memory: read anew, batch by batch, each time they are gone through.

A batch of Parquet rows becomes traces whose token columns lie in the batch's arrays, without an object for each token.
Whatever is unusual in a batch (a null among the entropies, rows of unequal width, another tool's types) is read row by
row instead, which says what is wrong and where; so both ways give equal traces.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError, TraceFormatError
from justenough.signal.entropy import MOST_BITS, ROUNDING
from justenough.trace import SHAPES, Json, Probe, Step, Trace, trace_from_json
from justenough.trace.blocks import Block, Rows, view
from justenough.trace.exchange import MOST_SECONDS
from justenough.trace.files import (
    BadLine,
    is_parquet,
    iter_traces,
    parquet_batches,
    prompts_of,
    row_to_json,
    rows_of,
    unknown_keys,
)
from justenough.trace.frames import arrow_table, pandas_frame, polars_frame
from justenough.trace.types import NOTHING

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

Floats = NDArray[np.float64]
Column = Sequence[object]

_SCALARS: Final = ("string", "bool", "int64", "double")
_BLANK: Final[dict[str, Json]] = {"id": "-", "model": "-", "steps": [{"tokens": 0, "answer": None}]}


class _Unusual(Exception):
    """The batch is to be read row by row."""


class TraceFile:
    """The traces of a file, gone through as often as wanted in constant memory; equal to those of `read_traces`."""

    def __init__(self, path: Path | str, *, skip_bad: bool = False, left_out: Collection[str] = frozenset()) -> None:
        self.path = Path(path)
        self.skip_bad = skip_bad
        self.left_out = frozenset(left_out)
        """Hashed ids of problems that are passed over."""
        self.bad: list[BadLine] = []
        """The lines left out when the file was last gone through, by this object or by one made of it."""
        self.passed_over = 0
        """Traces of the problems left out when the file was last gone through."""

    def __iter__(self) -> Iterator[Trace]:
        """One by one; raises as `read_traces` does, at the place of a bad line."""
        bad: list[BadLine] = []
        found = passed_over = 0
        for item in _items(self.path):
            if isinstance(item, TraceFormatError):
                if not self.skip_bad:
                    raise item
                bad.append(BadLine(item.line or 0, item.reason))
                continue
            found += 1
            if self.left_out and item.hashed_id in self.left_out:
                passed_over += 1
            else:
                yield item
        self.bad[:], self.passed_over = bad, passed_over
        if not found and not bad:
            raise TraceFormatError("the file holds no trace", path=str(self.path), hint="collect some first")

    def without(self, hashed_ids: Collection[str]) -> TraceFile:
        """The same file but for some problems."""
        made = TraceFile(self.path, skip_bad=self.skip_bad, left_out=self.left_out | frozenset(hashed_ids))
        made.bad = self.bad
        return made

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
"""What can be gone through more than once."""


def first_of(traces: Traces) -> Trace:
    """The first trace; raises `InputError` where there is none."""
    for trace in traces:
        return trace
    raise InputError("there is no trace", hint="collect some first")


def _items(path: Path) -> Iterator[Trace | TraceFormatError]:
    if not is_parquet(path):
        yield from iter_traces(path)
        return
    number = 0
    for batch in parquet_batches(path):
        try:
            yield from _traces(batch)
        except _Unusual:
            yield from rows_of(batch, path, first=number + 1)
        number += batch.num_rows


class _Numbers(NamedTuple):
    """A flat array of a batch and where each list of it begins and ends."""

    values: Floats
    offsets: list[int]
    present: list[bool]

    def parts(self) -> Column:
        shared = view(self.values)
        return [
            shared[begin:end] if there else None
            for begin, end, there in zip(self.offsets, self.offsets[1:], self.present, strict=False)
        ]


def _traces(batch: pa.RecordBatch) -> list[Trace]:
    """The traces of a batch; `_Unusual` where they are to be read row by row."""
    steps = batch.column("steps")
    if steps.null_count or not _is_list_of_structs(steps.type):
        raise _Unusual
    made, offsets = _steps(steps.flatten()), _offsets(steps)
    heads: dict[str, Column] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name not in Trace.__dataclass_fields__ or not _is_head(name, column.type):
            raise _Unusual
        if name == "signal":
            heads["signal"], heads["signal_extra"] = _signals(column)
        elif name == "prompts":
            heads["prompts"], heads["prompts_extra"] = _prompts(column)
        elif name == "extra":
            heads["extra"] = _extras(column, Trace.__dataclass_fields__)
        elif name != "steps":
            heads[name] = _scalars(name, column)
    heads["task"] = [task or "" for task in heads.get("task", [None] * batch.num_rows)]
    heads["shape"] = [shape or "sequential" for shape in heads.get("shape", [None] * batch.num_rows)]
    heads["steps"] = [tuple(made[begin:end]) for begin, end in pairwise(offsets)]
    if not all(heads["id"]) or None in heads["model"] or not set(heads["shape"]) <= set(SHAPES):
        raise _Unusual
    if not all(heads["steps"]):
        raise _Unusual
    names = tuple(heads)
    # Every column was read and checked above; the constructor takes them by name.
    return [Trace(**dict(zip(names, row, strict=True))) for row in zip(*heads.values(), strict=True)]


def _is_head(name: str, kind: pa.DataType) -> bool:
    if name in ("signal", "steps"):
        return _is_struct(kind) or name == "steps"
    return str(kind) == ("int64" if name == "seed" else "string")


def _signals(array: pa.StructArray) -> tuple[Column, Column]:
    """The signal of each trace and its unknown keys; each different one is read once."""
    read: dict[tuple[object, ...], Trace] = {}
    rows: list[Trace] = []
    for row in cast("list[dict[str, Json] | None]", array.to_pylist()):
        key = () if row is None else tuple(row.items())
        if key not in read:
            try:
                read[key] = trace_from_json(row_to_json(_BLANK | {"signal": cast("Json", row)}))
            except TraceFormatError as error:
                raise _Unusual from error
        rows.append(read[key])
    return [row.signal for row in rows], [row.signal_extra for row in rows]


def _prompts(array: pa.Array) -> tuple[Column, Column]:
    """The prompts of each trace and their unknown keys; each different one is read once."""
    texts = cast("list[str | None]", array.to_pylist())
    read: dict[str | None, Trace] = {}
    for text in set(texts):
        try:
            read[text] = trace_from_json(_BLANK | {"prompts": None if text is None else prompts_of(text)})
        except TraceFormatError as error:
            raise _Unusual from error
    return [read[text].prompts for text in texts], [read[text].prompts_extra for text in texts]


def _steps(steps: pa.StructArray) -> list[Step]:
    if steps.null_count:
        raise _Unusual
    columns = _columns(steps, Step.__dataclass_fields__)
    if (texts := columns.get("text")) is not None:
        columns["text"] = [text or "" for text in texts]
    names = tuple(columns)
    return [Step(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _columns(array: pa.StructArray, known: Collection[str]) -> dict[str, Column]:
    """The fields of a struct as columns of Python scalars and of views; `extra` as the unknown keys that it holds."""
    found: dict[str, Column] = {}
    for field, child in zip(array.type, array.flatten(), strict=True):
        if field.name not in known or (field.name == "probe") != _is_struct(field.type):
            raise _Unusual
        if field.name == "probe":
            found["probe"] = _probes(child)
        elif field.name == "extra":
            found["extra"] = _extras(child, known)
        else:
            found[field.name] = _column(field.name, child)
    if "tokens" not in found or None in found["tokens"]:
        raise _Unusual
    return found


def _probes(array: pa.StructArray) -> Column:
    if array.null_count == len(array):
        return [None] * len(array)
    there = array.is_valid()
    columns = _columns(array.filter(there), Probe.__dataclass_fields__)
    if "answer" not in columns or "correct" not in columns:
        raise _Unusual
    names = tuple(columns)
    made = iter([Probe(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)])
    return [next(made) if is_there else None for is_there in there.to_pylist()]


def _extras(array: pa.Array, known: Collection[str]) -> Column:
    """The unknown keys of each row."""
    if array.null_count == len(array):
        return [NOTHING] * len(array)
    found = [unknown_keys(text) if text is not None else NOTHING for text in array.to_pylist()]
    # A key of ours among the unknown ones, or a column of that name by another tool.
    if any(unknown.keys() & known for unknown in found):
        raise _Unusual
    return found


def _column(name: str, array: pa.Array) -> Column:
    import pyarrow as pa

    if str(array.type) in _SCALARS:
        return _scalars(name, array)
    if array.null_count == len(array):
        return [None] * len(array)
    if array.type == pa.list_(pa.string()):
        return _texts(array)
    if array.type == pa.list_(pa.float64()):
        return _numbers(array, logs=name == "logprobs").parts()
    if array.type == pa.list_(pa.list_(pa.float64())) and name == "top_logprobs":
        return _blocks(array)
    raise _Unusual


def _scalars(name: str, array: pa.Array) -> Column:
    if array.null_count == len(array):
        return [None] * len(array)
    if str(array.type) == "double":
        values = array.drop_null().to_numpy()
        if not np.isfinite(values).all() or (name == "entropy" and values.min() < 0):
            raise _Unusual
        if name == "latency_s" and not ((values >= 0) & (values <= MOST_SECONDS)).all():
            raise _Unusual
    elif str(array.type) == "int64" and array.drop_null().to_numpy().min() < 0:
        raise _Unusual
    return cast("Column", array.to_pylist())


def _texts(array: pa.ListArray) -> Column:
    if array.flatten().null_count:
        raise _Unusual
    lists = cast("list[list[str] | None]", array.to_pylist())
    return [None if texts is None else tuple(texts) for texts in lists]


def _numbers(array: pa.ListArray, *, logs: bool) -> _Numbers:
    inner = array.flatten()
    if inner.null_count and not logs:
        raise _Unusual
    values = _filled(inner)
    fine = np.isfinite(values) | (values == -np.inf) if logs else (values >= 0) & (values <= MOST_BITS)
    if not fine.all():
        raise _Unusual
    return _Numbers(values, _offsets(array), array.is_valid().to_pylist())


def _blocks(array: pa.ListArray) -> Column:
    rows = array.flatten()
    if rows.null_count:
        raise _Unusual
    widths = np.diff(np.asarray(_offsets(rows)))
    width = int(widths[0]) if len(widths) else 1
    if width < 1 or (widths != width).any():
        raise _Unusual
    values = _filled(rows.flatten()).reshape(-1, width)
    if np.isnan(values).any():
        raise _Unusual
    largest = values.max(axis=1, initial=-np.inf)
    if not ((largest > -np.inf) & (largest <= ROUNDING)).all():
        raise _Unusual
    shared = Rows(values)
    offsets = _offsets(array)
    return [
        Block(shared, begin, end) if there else None
        for begin, end, there in zip(offsets, offsets[1:], array.is_valid().to_pylist(), strict=False)
    ]


def _filled(array: pa.Array) -> Floats:
    """The numbers of an array; null, which stands for -inf in a file, as that."""
    if array.null_count:
        array = array.fill_null(-np.inf)
    return np.asarray(array.to_numpy(), dtype=np.float64)


def _offsets(array: pa.ListArray) -> list[int]:
    """Where each list begins in `flatten()`, and where the last one ends."""
    lengths = np.asarray(array.value_lengths().fill_null(0).to_numpy(), dtype=np.int64)
    offsets: list[int] = np.concatenate(([0], np.cumsum(lengths))).tolist()
    return offsets


def _is_struct(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind))


def _is_list_of_structs(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind)) and _is_struct(kind.value_type)
