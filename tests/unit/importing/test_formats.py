"""What holds for every format."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.importing import FORMATS, ImportOptions, import_file
from justenough.trace import Json
from justenough.trace.files import read_traces, write_traces
from tests.builders import population
from tests.unit.importing.samples import (
    RECORDS,
    chat,
    entry,
    inspect_log,
    lines,
    loaded,
    model_event,
    sample,
)


def test_the_exchange_format_counts_its_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_traces(population(3), path)
    good = path.read_bytes()
    found = loaded(path, "justenough", good + b'{"id": "x"}\n')
    assert len(found.traces) == 3
    assert [(bad.line, "model" in bad.reason) for bad in found.bad] == [(4, True)]


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_imported_is_written_and_read_back(tmp_path: Path, format: str) -> None:
    contents: dict[str, Json | bytes] = {
        "openai": [chat(), chat(entry("4", 0.0, -math.inf), identity="b", text="4")],
        "inspect": inspect_log(sample(1, model_event("5"))),
        "records": RECORDS.encode(),
        "justenough": lines({"id": "a", "model": "m", "steps": [{"tokens": 1, "correct": True}]}),
    }
    traces = loaded(tmp_path / "in", format, contents[format]).traces
    for out in (tmp_path / "out.parquet", tmp_path / "out.jsonl"):
        write_traces(traces, out)
        assert read_traces(out).traces == traces


@pytest.mark.parametrize(
    ("format", "content", "wanted", "match"),
    [
        ("magic", {}, ImportOptions(), "unknown format"),
        ("records", b"a,b\n1,2\n", ImportOptions(), "no column model"),
        ("records", RECORDS.encode(), ImportOptions(then="B"), "--then needs --model"),
        ("records", RECORDS.encode(), ImportOptions(model="Z"), "no model 'Z'"),
        ("records", b"PAR1broken", ImportOptions(), "Parquet"),
        ("openai", {}, ImportOptions(then="B"), "--then means nothing"),
        ("inspect", {}, ImportOptions(model="B"), "--model means nothing"),
        ("openai", gzip.compress(b"{}" * 99, mtime=0)[:-9], ImportOptions(), "whole"),
        ("openai", {}, ImportOptions(grader="magic"), "grader"),
    ],
)
def test_what_cannot_be_imported_at_all(
    tmp_path: Path, format: str, content: Json | bytes, wanted: ImportOptions, match: str
) -> None:
    with pytest.raises(InputError, match=match):
        loaded(tmp_path / "in", format, content, wanted)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        import_file(tmp_path / "none", format="openai")
