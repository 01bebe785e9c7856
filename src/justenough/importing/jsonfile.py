"""JSON from a file, plain or gzipped: one value, an array, or a value a line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

from justenough.errors import InputError
from justenough.trace import Json
from justenough.trace.files import BadLine

_GZIP: Final = b"\x1f\x8b"


class Found(NamedTuple):
    """A value and its number: the line's, or that of the element of an array."""

    number: int
    value: Json


def open_plain_or_gzip(path: Path) -> IO[bytes]:
    """The bytes of a file, unpacked where it is gzipped."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")


def json_values(path: Path) -> Iterator[Found | BadLine]:
    """The values of a file in order, with a `BadLine` in the place of one that is no JSON."""
    try:
        with open_plain_or_gzip(path) as file:
            yield from _values(file)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}", hint="is the file whole?") from error


def _values(file: IO[bytes]) -> Iterator[Found | BadLine]:
    begun: list[bytes] = []
    for raw in file:
        begun.append(raw)
        if raw.strip():
            break
    else:
        return
    first = _parse(begun[-1], len(begun))
    if isinstance(first, BadLine) or isinstance(first.value, list):
        # One value over many lines, or an array: else its first line is just a bad one.
        whole = _parse(b"".join(begun) + file.read(), 1)
        if isinstance(whole, Found):
            elements = whole.value if isinstance(whole.value, list) else [whole.value]
            yield from (Found(number, element) for number, element in enumerate(elements, 1))
            return
        file.seek(0)
        begun = []
    for number, raw in enumerate(chain(begun, file), 1):
        if raw.strip():
            yield _parse(raw, number)


def _parse(raw: bytes, number: int) -> Found | BadLine:
    try:
        return Found(number, cast("Json", json.loads(raw)))
    # Besides bad JSON and bad UTF-8, Python refuses whole numbers of thousands of digits.
    except (ValueError, RecursionError) as error:
        return BadLine(number, f"no JSON: {error}")
