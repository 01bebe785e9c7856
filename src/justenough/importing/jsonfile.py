"""JSON from a file, plain or gzipped: one value, one array, or one value for each line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

from justenough.errors import InputError
from justenough.files import lines_of
from justenough.trace import Json
from justenough.trace.files import BadLine

_MOST: Final = 1_000_000_000
"""Bytes of one JSON value."""
_GZIP: Final = b"\x1f\x8b"
_SMALL: Final = 16_000_000
"""Unzipped bytes that are always accepted."""
_MOST_GROWTH: Final = 50
"""How many times larger an unzipped file may be. Parsed JSON takes up to twenty times more."""


class Item(NamedTuple):
    """A value, with the number of its line or of its element in the array."""

    number: int
    value: Json


def open_plain_or_gzip(path: Path) -> IO[bytes]:
    """Open a file for reading; a gzipped file is unzipped. Raises `InputError` if it would be far larger then."""
    with path.open("rb") as file:
        if file.read(2) != _GZIP:
            return path.open("rb")
    most, size = max(_SMALL, _MOST_GROWTH * path.stat().st_size), 0
    with gzip.open(path, "rb") as unzipped:
        while part := len(unzipped.read(1 << 20)):
            size += part
            if size > most:
                raise InputError(
                    f"{path} is far larger when it is unzipped", hint=f"more than {_MOST_GROWTH} times is refused"
                )
    return cast("IO[bytes]", gzip.open(path, "rb"))


def json_values(path: Path) -> Iterator[Item | BadLine]:
    """The values of a file in order, with a `BadLine` in place of each that is not JSON."""
    try:
        with open_plain_or_gzip(path) as file:
            yield from _values(file, path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}", hint="is the file whole?") from error


def _values(file: IO[bytes], path: Path) -> Iterator[Item | BadLine]:
    read_lines: list[bytes] = []
    for raw in lines_of(file, path, most=_MOST):
        read_lines.append(raw)
        if raw.strip():
            break
    else:
        return
    first = _parse(read_lines[-1], len(read_lines))
    if isinstance(first, BadLine) or isinstance(first.value, list):
        # Either one value on many lines, or an array; otherwise the first line is a bad line.
        text = b"".join(read_lines) + file.read(_MOST)
        if len(text) >= _MOST:
            raise InputError(f"{path} has more than {_MOST} bytes in one value", hint="write one value for each line")
        whole = _parse(text, 1)
        if isinstance(whole, Item):
            elements = whole.value if isinstance(whole.value, list) else [whole.value]
            yield from (Item(number, element) for number, element in enumerate(elements, 1))
            return
        file.seek(0)
        read_lines = []
    for number, raw in enumerate(chain(read_lines, lines_of(file, path)), 1):
        if raw.strip():
            yield _parse(raw, number)


def _parse(raw: bytes, number: int) -> Item | BadLine:
    try:
        return Item(number, cast("Json", json.loads(raw)))
    # Python also refuses whole numbers of thousands of digits.
    except (ValueError, RecursionError) as error:
        return BadLine(number, f"not JSON: {error}")
