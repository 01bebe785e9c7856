"""Server-sent events from bytes, however they are split, and back; no I/O."""

from __future__ import annotations

import codecs
import re
from typing import Final

from justenough.wire.values import unreadable

DONE: Final = "[DONE]"
"""The payload that ends a stream."""
LINES: Final = "application/x-ndjson"
"""The content type of a stream of lines, as Ollama sends it."""
EVENT_LIMIT: Final = 4 << 20
"""Bytes of one event, beyond which a stream is refused."""

_END: Final = DONE.encode()
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_OBJECT_OR_END: Final = re.compile(rb"data: ?(?:\{|%b)" % re.escape(_END))


class EventReader:
    """Server-sent events from bytes, however they are split."""

    def __init__(self, *, limit: int = EVENT_LIMIT, comments: bool = False) -> None:
        """`limit`: bytes of one event; `comments`: whether comments are kept for `take_comments`."""
        self._limit = limit
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._keeps_comments = comments
        self._comments: list[bytes] = []
        self._begun = False
        self._after_return = False
        self.between = False
        """Whether the stream has begun and no part of an event waits: the next bytes begin an event."""

    def feed(self, data: bytes) -> list[str]:
        """Payloads of the events that these bytes complete; raises `BackendRejected` for one above the limit."""
        return [payload.decode("utf-8", errors="replace") for payload in self.feed_bytes(data)]

    def feed_bytes(self, data: bytes) -> list[bytes]:
        """`feed` with each payload's bytes as they came, valid UTF-8 or not."""
        if self.between and is_one_event(data) and len(data) <= self._limit:
            return [payload_of(data)]
        if self._after_return and data:
            # The line ended with the carriage return; a line feed right after it belongs to it.
            data = data.removeprefix(b"\n")
            self._after_return = False
        if b"\r" in data:
            self._after_return = data.endswith(b"\r")
            pieces = _LINE_END.split(data)
        else:
            pieces = data.split(b"\n")
        rest = pieces.pop()
        events: list[bytes] = []
        for line in pieces:
            if self._line:
                self._line += line
                line = bytes(self._line)
                self._line.clear()
            self._bounded(len(line))
            self._begun = True
            # Servers that write each event anew write the byte order mark before each.
            line = line.removeprefix(codecs.BOM_UTF8)
            if not line or self._is_next(line):
                self._complete(events)
            if line:
                self._take(line)
        if rest:
            self._line += rest
            self._bounded(len(self._line))
        self.between = self._begun and not (self._line or self._data or self._after_return)
        return events

    def take_comments(self) -> bytes:
        """The comments since the last call, by which servers keep a silent connection alive, each as an event."""
        if not self._comments:
            return b""
        comments, self._comments = self._comments, []
        return b"".join([b"%b\n\n" % comment for comment in comments])

    def _bounded(self, size: int) -> None:
        if self._size + size > self._limit:
            raise unreadable(f"an event is larger than {self._limit} bytes")

    def _is_next(self, line: bytes) -> bool:
        """Whether a line begins another event, although no blank line ends the one before, as some servers write it.

        A closing brace and then an opening one, or the end of the stream, are never within one JSON value.
        """
        return bool(self._data) and self._data[-1].endswith(b"}") and _OBJECT_OR_END.match(line) is not None

    def _complete(self, events: list[bytes]) -> None:
        if self._data:
            events.append(b"\n".join(self._data))
            self._data, self._size = [], 0

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if not name:
            if self._keeps_comments:
                self._comments.append(line)
        elif name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._size += len(value) + 1


class LineReader:
    """Lines with one JSON value each (NDJSON) from bytes, however they are split."""

    def __init__(self, *, limit: int = EVENT_LIMIT) -> None:
        """`limit`: bytes of one line."""
        self._limit = limit
        self._rest = bytearray()

    def feed_bytes(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete, without empty ones; raises `BackendRejected` for one above the limit."""
        self._rest += data
        *lines, rest = bytes(self._rest).split(b"\n") if b"\n" in data else (self._rest,)
        self._rest = bytearray(rest)
        if max(map(len, (*lines, rest))) > self._limit:
            raise unreadable(f"a line is larger than {self._limit} bytes")
        return [line for line in lines if line.strip()]


def is_end(payload: bytes) -> bool:
    """Whether a payload ends the stream; some servers write spaces after it."""
    return payload.startswith(_END) and payload.strip() == _END


def is_one_event(data: bytes) -> bool:
    """Whether bytes that begin an event are one whole event of one line; a paced stream comes like that."""
    return (
        data.endswith(b"\n\n")
        and data.startswith(b"data: ")
        and data.find(b"\n") == len(data) - 2
        and b"\r" not in data
    )


def event_of(payload: bytes) -> bytes:
    """One event with a payload of one line."""
    return b"data: %b\n\n" % payload


def payload_of(event: bytes) -> bytes:
    """The payload of one event of one line."""
    return event[6:-2]
