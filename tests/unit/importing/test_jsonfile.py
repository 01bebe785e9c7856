"""Values of files, plain and gzipped, one or many."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.importing.jsonfile import Item, json_values
from justenough.trace import Json
from justenough.trace.files import BadLine
from tests.unit.importing.samples import (
    chat,
    lines,
    loaded,
)


@pytest.mark.parametrize("form", ["array", "pretty array", "lines", "pretty", "gzip lines"])
def test_every_way_that_responses_lie_in_files(tmp_path: Path, form: str) -> None:
    values: list[Json] = [chat(identity="a"), chat(identity="b")]
    content = {
        "array": json.dumps(values).encode(),
        "pretty array": json.dumps(values, indent=1).encode(),
        "lines": lines(*values, ""),
        "pretty": json.dumps(values[0], indent=1).encode(),
        "gzip lines": gzip.compress(lines("", *values)),
    }[form]
    found = loaded(tmp_path / "in", "openai", content)
    assert [trace.id for trace in found.traces] == ["a", "b"][: 1 if form == "pretty" else 2]
    assert found.bad == []


def items(path: Path, content: bytes) -> list[Item | BadLine]:
    path.write_bytes(content)
    return list(json_values(path))


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \n"])
def test_a_file_without_a_value_is_empty(tmp_path: Path, content: bytes) -> None:
    assert items(tmp_path / "in", content) == []


def test_lines_keep_their_numbers_beside_empty_and_bad_ones(tmp_path: Path) -> None:
    first, bad, last = items(tmp_path / "in", b'\n{"a": 1}\n\n{"a": \n{"a": 2}\n')
    assert (first, last) == (Item(2, {"a": 1}), Item(5, {"a": 2}))
    assert isinstance(bad, BadLine)
    assert bad.line == 4
    assert bad.reason.startswith("not JSON: ")


def test_a_bad_first_line_does_not_hide_the_others(tmp_path: Path) -> None:
    bad, good = items(tmp_path / "in", b'{"a": \n{"a": 2}\n')
    assert isinstance(bad, BadLine)
    assert (bad.line, good) == (1, Item(2, {"a": 2}))


def test_the_elements_of_an_array_are_numbered(tmp_path: Path) -> None:
    assert items(tmp_path / "in", b'[1,\n "b",\n null]') == [Item(1, 1), Item(2, "b"), Item(3, None)]


@pytest.mark.parametrize("content", [b"[]", b"[\n]\n"])
def test_an_empty_array_has_no_values(tmp_path: Path, content: bytes) -> None:
    assert items(tmp_path / "in", content) == []


def test_a_broken_element_ends_the_array_and_keeps_those_before_it(tmp_path: Path) -> None:
    first, second, bad = items(tmp_path / "in", b'[1,\n 2,\n {"a" 3},\n 4]')
    assert (first, second) == (Item(1, 1), Item(2, 2))
    assert bad == BadLine(3, "not JSON: Expecting ':' delimiter: line 3 (char 14)")


def test_arrays_one_on_each_line_are_values(tmp_path: Path) -> None:
    assert items(tmp_path / "in", b"[1]\n\n[2, 3]\n") == [Item(1, [1]), Item(3, [2, 3])]


def test_a_first_line_in_brackets_that_is_no_array_is_a_bad_line(tmp_path: Path) -> None:
    bad, good = items(tmp_path / "in", b'[2026-01-01] start\n{"a": 2}\n')
    assert isinstance(bad, BadLine)
    assert (bad.line, good) == (1, Item(2, {"a": 2}))


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, b"1" * 5000])
def test_what_python_cannot_read_is_a_bad_line(tmp_path: Path, content: bytes) -> None:
    (bad,) = items(tmp_path / "in", content)
    assert isinstance(bad, BadLine)
    assert bad.line == 1


def test_a_gzipped_file_is_unzipped_and_a_broken_one_refused(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"a": 1}\n' * 99, mtime=0)
    assert len(items(tmp_path / "in", packed)) == 99
    with pytest.raises(InputError, match="is the file whole"):
        items(tmp_path / "in", packed[:-9])
