"""A stream of JSON reads the same values as `json.loads`, wherever the pieces of the file are cut."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.importing import jsonstream
from justenough.importing.jsonstream import JsonStream
from justenough.trace import Json

PATH = Path("file.json")
VALUES: list[Json] = [
    {"a": [1, -2.5e-7, 10**30], "b": {"c": None}},
    'with " quotes, \\ and [brackets], {é}, \u2028 and \U0001f600',
    "\ud800",
    [],
    {},
    [[[]], True],
    float("-inf"),
    -1234567,
    "",
]


def stream(content: bytes) -> JsonStream:
    return JsonStream(io.BytesIO(content), PATH)


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 8, 13, 1000])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_elements_in_pieces(piece: int, indent: int | None, ascii_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # The encoding is known from four bytes.
    monkeypatch.setattr(jsonstream, "_PIECE", max(piece, 4))
    content = json.dumps(VALUES, indent=indent, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    assert list(stream(content).elements()) == VALUES


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings(encoding: str) -> None:
    assert list(stream('["é", 1]'.encode(encoding)).elements()) == ["é", 1]


def test_members_and_the_list_in_one_of_them() -> None:
    read = stream(b'{"a": {"x": 1},\n "b": [1, 2], "c": 3}\n')
    values = [list(read.elements()) if key == "b" else read.value() for key in read.members()]
    assert values == [{"x": 1}, [1, 2], 3]
    read.end()


def test_empty_ones_and_what_follows_them() -> None:
    assert list(stream(b" [ ]").elements()) == []
    assert list(stream(b"{\n}").members()) == []
    with pytest.raises(ValueError, match=r"Extra data: line 2 \(char 3\)"):
        stream(b" \n x").end()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[1,\n{"a" 2}]', r"Expecting ':' delimiter: line 2 \(char 9\)"),
        (b"[1,\n2", r"Expecting ',' or ']': line 2 \(char 5\)"),
        (b"[1,\n", r"Expecting value: line 2 \(char 4\)"),
        (b"[1, 2 3]", r"Expecting ',' or ']': line 1 \(char 6\)"),
        (b'["a", "b', r"Unterminated string starting at: line 1 \(char 6\)"),
        (b'["a", "\xff"]', "can't decode byte 0xff"),
    ],
)
@pytest.mark.parametrize("piece", [4, 1000])
def test_errors_name_the_place_in_the_file(
    content: bytes, message: str, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonstream, "_PIECE", piece)
    with pytest.raises(ValueError, match=message):
        list(stream(content).elements())


def test_an_error_is_reported_before_the_rest_is_read() -> None:
    file = io.BytesIO(b'[1, {"a" 2}, ' + b"3, " * 1_000_000 + b"4]")
    elements = JsonStream(file, PATH).elements()
    assert next(elements) == 1
    with pytest.raises(ValueError, match="Expecting ':' delimiter"):
        next(elements)
    assert file.tell() < 1_000_000


def test_deep_nesting_is_one_error() -> None:
    with pytest.raises(RecursionError):
        next(stream(b"[" * 100_000).elements())


def test_one_large_element_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonstream, "_MOST", 1000)
    monkeypatch.setattr(jsonstream, "_PIECE", 100)
    small = json.dumps(["x" * 90] * 100).encode()
    assert len(list(stream(small).elements())) == 100
    with pytest.raises(InputError, match="more than 1000 characters in one value"):
        list(stream(json.dumps(["x" * 2000]).encode()).elements())
