"""Parquet files that are hostile: small on disk and large in memory, deeply nested, or not text."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from justenough.errors import TraceFormatError
from justenough.trace.files import TraceFile, read_traces, write_traces
from justenough.trace.parquet import trace_schema
from tests.builders import trace

DEEP = "[" * 50_000 + "]" * 50_000
LESS_DEEP = "[" * 300 + "]" * 300


def rewritten(path: Path, **columns: list[Any]) -> Path:
    """A file with one trace, and other values in some columns."""
    write_traces([trace(id="a")], path)
    table = pq.read_table(path)
    rows = table.to_pylist()
    for name, values in columns.items():
        rows = [row | {name: value} for row in rows for value in values]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path, compression="zstd")
    return path


def test_repeated_numbers_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    count = 20_000_000
    entropies = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.repeat(0.0, count))
    steps = pa.StructArray.from_arrays([pa.array([3]), pa.array(["1"]), entropies], ["tokens", "answer", "entropies"])
    column = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), steps)
    pq.write_table(pa.table({"id": ["a"], "model": ["m"], "steps": column}), path, compression="zstd")
    assert path.stat().st_size < 20_000
    for read in (read_traces, lambda path: list(TraceFile(path))):
        with pytest.raises(TraceFormatError, match=r"bytes on disk would take 160\d{6} bytes of memory"):
            read(path)


def test_a_repeated_text_is_one_object_in_memory(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "bomb.parquet", problem=["x" * 1_000_000] * 500)
    assert path.stat().st_size < 20_000
    tracemalloc.start()
    traces = read_traces(path).traces
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(traces) == 500
    assert len({id(one.problem) for one in traces}) == 1
    assert peak < 50_000_000


@pytest.mark.parametrize("text", [DEEP, LESS_DEEP])
def test_deep_json_in_a_column_is_refused_or_kept_as_text(tmp_path: Path, text: str) -> None:
    prompts = rewritten(tmp_path / "prompts.parquet", prompts=[text])
    with pytest.raises(TraceFormatError, match="prompts"):
        read_traces(prompts)
    extra = rewritten(tmp_path / "extra.parquet", extra=['{"deep": ' + text + "}"])
    if text is DEEP:
        assert str(read_traces(extra).traces[0].extra["extra"]).startswith('{"deep"')
    else:
        with pytest.raises(TraceFormatError, match="deep is nested too deeply"):
            read_traces(extra)


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "t.parquet")
    table = pq.read_table(path)
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    pq.write_table(table.set_column(table.schema.get_field_index("problem"), "problem", bad), path)
    with pytest.raises(TraceFormatError, match="cannot be read as Parquet"):
        read_traces(path)


def test_the_schema_has_the_fields_of_the_exchange_format() -> None:
    schema = trace_schema()
    assert schema.field("seed").type == pa.int64()
    step = schema.field("steps").type.value_type
    assert step.field("top_logprobs").type == pa.list_(pa.list_(pa.float64()))
    assert step.field("probe").type.field("token_texts").type == pa.list_(pa.string())
    assert "combination" not in [field.name for field in schema.field("signal").type]
