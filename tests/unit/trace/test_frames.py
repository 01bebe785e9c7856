"""Traces as tables: one row for each step, and a clear error if the library is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from justenough.errors import MissingExtra
from justenough.trace import frames
from justenough.trace.files import LoadResult, TraceFile, write_traces
from tests.builders import step, trace

TRACES = [
    trace(step(0.25, 0.75, text="a"), step(0.5, tokens=2, correct=False, answer="2"), id="p-1", family="sum"),
    trace(step(entropy=0.125, tokens=7), id="p-2"),
]


def test_each_step_is_a_row() -> None:
    rows = LoadResult(TRACES, []).to_arrow().to_pylist()
    assert [(row["id"], row["number"], row["bits"]) for row in rows] == [
        ("p-1", 1, 0.5),
        ("p-1", 2, 0.5),
        ("p-2", 1, 0.125),
    ]
    first, second, other = rows
    assert (first["entropies"], first["coverage"], first["tokens"], first["text"]) == ([0.25, 0.75], 1.0, 2, "a")
    assert (second["correct"], second["answer"], second["coverage"]) == (False, "2", 0.5)
    assert (other["entropies"], other["coverage"], other["family"]) == (None, None, None)


def test_a_file_gives_the_same_table_as_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_ROWS", 2)
    path = tmp_path / "t.parquet"
    write_traces(TRACES, path)
    assert TraceFile(path).to_arrow().equals(LoadResult(TRACES, []).to_arrow().combine_chunks())


def test_no_trace_gives_an_empty_table_with_all_columns() -> None:
    table = LoadResult([], []).to_arrow()
    assert table.num_rows == 0
    assert {"id", "number", "bits", "tokens"} <= set(table.column_names)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_missing_library_is_one_clear_error(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra) as failure:
        getattr(LoadResult(TRACES, []), f"to_{library}")()
    assert str(failure.value) == f"{library} is not installed (pip install {library})"


def test_the_table_is_handed_to_polars(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "polars", SimpleNamespace(from_arrow=lambda table: ("frame", table)))
    write_traces(TRACES, tmp_path / "t.parquet")
    for traces in (LoadResult(TRACES, []), TraceFile(tmp_path / "t.parquet")):
        kind, table = traces.to_polars()
        assert kind == "frame"
        assert isinstance(table, pa.Table)
        assert table.num_rows == 3


def test_the_table_becomes_a_pandas_frame() -> None:
    pytest.importorskip("pandas")
    frame = LoadResult(TRACES, []).to_pandas()
    assert list(frame["bits"]) == [0.5, 0.5, 0.125]
