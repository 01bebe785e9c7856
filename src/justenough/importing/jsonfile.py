"""JSON from a file, plain or compressed: one value, one array, or one value for each line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

from justenough.errors import InputError
from justenough.files import lines_of
from justenough.importing.opening import opened
from justenough.trace import Json
from justenough.trace.files import BadLine

_MOST: Final = 1_000_000_000
"""Bytes of one JSON value."""


class Item(NamedTuple):
    """A value, with the number of its line or of its element in the array."""

    number: int
    value: Json


def json_values(path: Path) -> Iterator[Item | BadLine]:
    """The values of a file in order, with a `BadLine` in place of each that is not JSON."""
    with opened(path) as file:
        yield from _values(file, path)


def _values(file: IO[bytes], path: Path) -> Iterator[Item | BadLine]:
    read_lines: list[bytes] = []
    for raw in lines_of(file, path, most=_MOST):
        read_lines.append(raw)
        if raw.strip():
            break
    else:
        return
    first = parsed(read_lines[-1], len(read_lines))
    if isinstance(first, BadLine) or isinstance(first.value, list):
        # Either one value on many lines, or an array; otherwise the first line is a bad line.
        text = b"".join(read_lines) + file.read(_MOST)
        if len(text) >= _MOST:
            raise InputError(f"{path} has more than {_MOST} bytes in one value", hint="write one value for each line")
        whole = parsed(text, 1)
        if isinstance(whole, Item):
            elements = whole.value if isinstance(whole.value, list) else [whole.value]
            yield from (Item(number, element) for number, element in enumerate(elements, 1))
            return
        file.seek(0)
        read_lines = []
    for number, raw in enumerate(chain(read_lines, lines_of(file, path)), 1):
        if raw.strip():
            yield parsed(raw, number)


def parsed(raw: bytes, number: int) -> Item | BadLine:
    """The JSON value of these bytes, which are the line or the element with this number."""
    try:
        return Item(number, cast("Json", json.loads(raw)))
    # Python also refuses whole numbers of thousands of digits.
    except ValueError as error:
        return BadLine(number, f"not JSON: {error}")
    except RecursionError:
        return BadLine(number, "nested too deeply")
