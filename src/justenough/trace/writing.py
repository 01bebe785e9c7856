"""Writes traces to Parquet files: the columns of the exchange format, and how they are stored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from justenough.files import Json
from justenough.signal.signal import Signal
from justenough.trace.exchange import FIELDS, KINDS, trace_to_json
from justenough.trace.types import Probe, Step, Trace

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

NESTED: Final[Mapping[str, type[Step | Probe | Signal]]] = {"steps": Step, "probe": Probe, "signal": Signal}
"""Columns of objects."""
_GROUP: Final = 1000
"""Largest number of traces in a row group."""
_GROUP_NUMBERS: Final = 2_000_000
"""Number of log-probabilities that completes a row group before it has `_GROUP` traces."""


def trace_schema() -> pa.Schema:
    """The columns of a Parquet file of traces: those of the exchange format, with unknown keys as JSON in `extra`."""
    import pyarrow as pa

    return pa.schema(_struct_fields(Trace))


def _struct_fields(kind: type) -> list[tuple[str, pa.DataType]]:
    # The weights of a combination are rare: they are in `extra`, not in a column of their own.
    return [(name, _arrow_type(name)) for name in (*FIELDS[kind], "extra") if name != "combination"]


def _arrow_type(name: str) -> pa.DataType:
    import pyarrow as pa

    if name in NESTED:
        struct = pa.struct(_struct_fields(NESTED[name]))
        return pa.list_(struct) if name == "steps" else struct
    if name not in KINDS:
        return pa.string()
    arrow = pa.type_for_alias(KINDS[name].arrow)
    for _ in range(KINDS[name].depth):
        arrow = pa.list_(arrow)
    return arrow


def parquet_writer(path: Path) -> pq.ParquetWriter:
    """A writer of traces whose numbers are quick to read.

    The bytes of numbers are stored apart, the first bytes of all numbers together, and so on: so they are smaller and
    take half as long to read. Numbers rarely repeat, and only texts have a dictionary.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = trace_schema()
    leaves = list(_leaves("", pa.struct(schema)))
    return pq.ParquetWriter(
        # Arrow takes a relative name with a colon for an address.
        path.absolute(),
        schema,
        compression="zstd",
        data_page_version="2.0",
        use_dictionary=[name for name, kind in leaves if pa.types.is_string(kind)],
        use_byte_stream_split=[name for name, kind in leaves if pa.types.is_float64(kind)],
    )


def _leaves(name: str, kind: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    """The columns of a type, by their names in a Parquet file."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        for field in kind:
            yield from _leaves(f"{name}.{field.name}".removeprefix("."), field.type)
    elif pa.types.is_list(kind):
        yield from _leaves(f"{name}.list.element", kind.value_type)
    else:
        yield name, kind


def write_parquet(traces: Iterable[Trace], path: Path) -> int:
    """Write traces in row groups of a limited size; returns how many."""
    import pyarrow as pa

    schema = trace_schema()
    count = numbers = 0
    rows: list[dict[str, Json]] = []
    with parquet_writer(path) as writer:
        for trace in traces:
            rows.append(_row(trace))
            count += 1
            numbers += sum(sum(map(len, step.top_logprobs or ())) for step in trace.steps)
            if len(rows) == _GROUP or numbers >= _GROUP_NUMBERS:
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
