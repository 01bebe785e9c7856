"""JSON from a file, plain or compressed: one value, one array, or one value for each line. Arrays are streamed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

from justenough.files import lines_of
from justenough.importing.jsonstream import JsonStream
from justenough.importing.opening import opened
from justenough.trace import Json
from justenough.trace.files import BadLine

_FIRST_LINE: Final = 64_000_000
"""Bytes of the first line that are read to see whether each line is a value, or the whole file is one."""


class Item(NamedTuple):
    """A value, with the number of its line or of its element in the array."""

    number: int
    value: Json


def json_values(path: Path) -> Iterator[Item | BadLine]:
    """The values of a file in order, with a `BadLine` in place of each that is not JSON.

    Nothing after a broken element of an array is read.
    """
    with opened(path) as file:
        if not _one_each_line(file):
            items = _whole(JsonStream(file, path))
            if not isinstance(first := next(items, None), BadLine):
                yield from chain([] if first is None else [first], items)
                return
        file.seek(0)
        for number, raw in enumerate(lines_of(file, path), 1):
            if raw.strip():
                yield parsed(raw, number)


def object_with_list(
    path: Path, name: str, *, needed: Collection[str]
) -> tuple[dict[str, Json], Iterator[Item | BadLine]] | None:
    """The other members of the only object in a file, and the streamed list under `name`; None for any other file.

    The members after the list are read only if a needed member does not come before it.
    """
    header: dict[str, Json] = {}
    any_list = False
    with opened(path) as file:
        if _one_each_line(file):
            return None
        try:
            stream = JsonStream(file, path)
            for key in stream.members():
                if key != name or stream.next() != "[":
                    header[key] = stream.value()
                    continue
                any_list = True
                if header.keys() >= set(needed):
                    break
                for _ in stream.elements():
                    pass
        except (ValueError, RecursionError):
            return None
    return (header, _list_inside(path, name)) if any_list else None


def _list_inside(path: Path, name: str) -> Iterator[Item | BadLine]:
    with opened(path) as file:
        stream = JsonStream(file, path)
        for key in stream.members():
            if key == name and stream.next() == "[":
                yield from _numbered(stream.elements())
                return
            stream.value()


def _one_each_line(file: IO[bytes]) -> bool:
    """Whether the first line is a value of its own, and others follow; goes back to the beginning of the file."""
    lines = (line for raw in iter(partial(file.readline, _FIRST_LINE), b"") if (line := raw.strip()))
    first, another = next(lines, b""), next(lines, None)
    file.seek(0)
    return another is not None and isinstance(parsed(first, 1), Item)


def _whole(stream: JsonStream) -> Iterator[Item | BadLine]:
    """The elements of the array, or the only value."""

    def values() -> Iterator[Json]:
        if stream.next() == "[":
            yield from stream.elements()
            stream.end()
        elif stream.next():
            value = stream.value()
            stream.end()
            yield value

    return _numbered(values())


def _numbered(values: Iterator[Json]) -> Iterator[Item | BadLine]:
    number = 0
    try:
        for number, value in enumerate(values, 1):
            yield Item(number, value)
    except (ValueError, RecursionError) as error:
        yield _bad(number + 1, error)


def parsed(raw: bytes, number: int) -> Item | BadLine:
    """The JSON value of these bytes, which are the line or the element with this number."""
    try:
        return Item(number, cast("Json", json.loads(raw)))
    # Python also refuses whole numbers of thousands of digits.
    except (ValueError, RecursionError) as error:
        return _bad(number, error)


def _bad(number: int, error: ValueError | RecursionError) -> BadLine:
    return BadLine(number, "nested too deeply" if isinstance(error, RecursionError) else f"not JSON: {error}")
