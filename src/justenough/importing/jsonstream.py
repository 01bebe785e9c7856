"""JSON read from an open file piece by piece: of a long array, only one element is in memory at a time.

The decoder of the standard library reads each element, so that all that Python's `json` writes can be read: NaN,
infinity and integers of any size.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Final, cast

from justenough.errors import InputError
from justenough.trace import Json

_MOST: Final = 1_000_000_000
"""Characters of one value, or of one element of an array."""
_PIECE: Final = 1 << 18
"""Bytes that are read at a time."""
_LONGEST_WORD: Final = 16
"""More characters than the longest literal or escape has: the end of a piece may cut one."""
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DECODER: Final = json.JSONDecoder()


class JsonStream:
    """The JSON in an open file, from its beginning on.

    All methods raise `ValueError` for what is not JSON, with the place in the file, and `RecursionError` for values
    that are nested too deeply.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._path = path
        begin = file.read(_PIECE)
        pieces = chain([begin], iter(partial(file.read, _PIECE), b""))
        self._decoded = codecs.iterdecode(pieces, json.detect_encoding(begin), "surrogatepass")
        self._text, self._at = "", 0
        self._lines, self._characters = 1, 0

    def next(self) -> str:
        """The next character that is not white space, which is not consumed; empty at the end of the file."""
        while True:
            self._at = cast("re.Match[str]", _SPACE.match(self._text, self._at)).end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def value(self) -> Json:
        """The value that begins here."""
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _LONGEST_WORD
                if not cut or not self._more():
                    raise self._error(error.msg, error.pos) from error
                continue
            # A number at the end of the text may go on in the next piece.
            if end < len(self._text) or not self._more():
                self._at = end
                return cast("Json", value)

    def elements(self) -> Iterator[Json]:
        """The elements of the array that begins here; each is yielded when the comma or bracket after it is read."""
        self._skip("[")
        if self.next() == "]":
            self._skip("]")
            return
        while True:
            element = self.value()
            after = self._skip(",]")
            yield element
            if after == "]":
                return

    def members(self) -> Iterator[str]:
        """The keys of the object that begins here; the value of each must be read before the next key."""
        self._skip("{")
        if self.next() == "}":
            self._skip("}")
            return
        while True:
            if self.next() != '"':
                raise self._error("Expecting property name enclosed in double quotes", self._at)
            key = self.value()
            self._skip(":")
            yield str(key)
            if self._skip(",}") == "}":
                return

    def end(self) -> None:
        """Raise an error if anything but white space follows."""
        if self.next():
            raise self._error("Extra data", self._at)

    def _skip(self, allowed: str) -> str:
        """Read one of these characters."""
        if (character := self.next()) == "" or character not in allowed:
            raise self._error(f"Expecting {' or '.join(map(repr, allowed))}", self._at)
        self._at += 1
        return character

    def _more(self) -> bool:
        """Drop the text that has been read, and at least double the rest, so that no value is parsed many times.

        False at the end of the file.
        """
        rest = self._text[self._at :]
        parts, size = [rest], 0
        while size < max(len(rest), 1) and (part := next(self._decoded, "")):
            parts.append(part)
            size += len(part)
        if not size:
            return False
        self._lines += self._text.count("\n", 0, self._at)
        self._characters += self._at
        self._text, self._at = "".join(parts), 0
        if len(self._text) > _MOST:
            raise InputError(
                f"{self._path} has more than {_MOST} characters in one value", hint="write one value for each line"
            )
        return True

    def _error(self, message: str, at: int) -> ValueError:
        line = self._lines + self._text.count("\n", 0, at)
        return ValueError(f"{message}: line {line} (char {self._characters + at})")
