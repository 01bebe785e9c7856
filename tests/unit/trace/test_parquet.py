"""Parquet files that are hostile: small on disk and large in memory, deeply nested, or not text."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from justenough.errors import TraceFormatError
from justenough.trace.files import TraceFile, read_traces, write_traces
from justenough.trace.writing import trace_schema
from tests.builders import step, trace

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


def test_small_row_groups_with_texts_of_tokens_are_read(tmp_path: Path) -> None:
    """Arrow cannot put the nested texts of two row groups into one batch."""
    path = tmp_path / "t.parquet"
    recorded = [trace(replace(step(0.5), token_texts=("a",)), id=str(number)) for number in range(30)]
    write_traces(recorded, path)
    pq.write_table(pq.read_table(path), path, row_group_size=7)
    assert read_traces(path).traces == recorded


BUILD = """
import json, sys
import pyarrow as pa, pyarrow.parquet as pq

path = sys.argv[1]

def rows(n, **columns):
    steps = [[{"tokens": 1, "answer": "1"}]] * n
    return pa.table({"id": ["a"] * n, "model": ["m"] * n} | {"steps": steps} | columns)

def repeated(text, n):
    return pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array([text]))

"""
HOSTILE = {
    "many row groups": """
table = rows(50_000)
with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
    for _ in range(30):
        writer.write_table(table)
""",
    "a wide list": """
zeros = pa.ListArray.from_arrays(pa.array([0, 6_000_000], pa.int32()), pa.repeat(0.0, 6_000_000))
steps = pa.StructArray.from_arrays([pa.array([3]), pa.array(["1"]), zeros], ["tokens", "answer", "entropies"])
column = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), steps)
pq.write_table(rows(1).set_column(2, "steps", column), path, compression="zstd")
""",
    "empty lists": """
lists = pa.ListArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), 6_000_001), pa.array([], pa.float64()))
column = pa.ListArray.from_arrays(pa.array([0, 6_000_000], pa.int32()), lists)
pq.write_table(rows(1).append_column("lists", column), path, compression="zstd")
""",
    "long texts": """
texts = [f"{number}" + "x" * 1_000_000 for number in range(60)]
pq.write_table(rows(60, problem=texts), path, compression="zstd", use_dictionary=False, write_statistics=False)
""",
    "a repeated text": """
pq.write_table(rows(30_000, problem=repeated("x" * 1_000_000, 30_000)), path, compression="zstd")
""",
    "a repeated text in an unknown list": """
texts = pa.ListArray.from_arrays(pa.array(range(3001), pa.int32()), repeated("x" * 1_000_000, 3000))
pq.write_table(rows(3000, remarks=texts), path, compression="zstd")
""",
    "JSON with many values": """
extra = '{"a": [' + "[]," * 300_000 + "1]}"
pq.write_table(rows(3000, extra=repeated(extra, 3000)), path, compression="zstd")
""",
    "JSON with many keys": """
extra = json.dumps({str(number): 0 for number in range(20_000)})
pq.write_table(rows(3000, extra=repeated(extra, 3000)), path, compression="zstd")
""",
}
READ = """
import resource, sys
from pathlib import Path
from justenough.errors import TraceFormatError
from justenough.trace.files import TraceFile, read_traces
import pyarrow.parquet

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read in (read_traces, lambda path: [None for _ in TraceFile(path)]):
    try:
        read(sys.argv[1])
    except TraceFormatError as error:
        print("refused" if "bytes of memory" in str(error) else error)
    else:
        print("read")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_small_file_takes_little_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.parquet"
    subprocess.run([sys.executable, "-c", BUILD + HOSTILE[name], str(path)], check=True)
    assert path.stat().st_size < 600_000
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
    *outcomes, kilobytes = done.stdout.split("\n")[:3]
    assert set(outcomes) <= {"refused", "read"}
    assert int(kilobytes) < 500_000


@pytest.mark.parametrize(
    "values",
    [
        pa.array([datetime(2026, 1, 2, tzinfo=UTC)]),
        pa.array([Decimal("1.5")]),
        pa.array([b"raw"]),
        pa.array([[b"raw"]]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    ],
    ids=lambda values: str(values.type),
)
def test_a_column_of_a_type_that_json_lacks_is_text_or_refused(tmp_path: Path, values: pa.Array) -> None:
    path, copy = rewritten(tmp_path / "t.parquet"), tmp_path / "copy.jsonl"
    pq.write_table(pq.read_table(path).append_column("theirs", values), path)
    try:
        (read,) = read_traces(path).traces
    except TraceFormatError as error:
        assert "map" in str(error)  # noqa: PT017
    else:
        assert isinstance(read.extra["theirs"], str | list)
        write_traces([read], copy)
        assert read_traces(copy).traces == [read]
