"""Server-sent events from bytes, however they are split, and back; no I/O."""

from __future__ import annotations

import codecs
import json
import re
from typing import Final

from justenough.errors import BackendRejected
from justenough.trace import Json

DONE: Final = "[DONE]"
"""The payload that ends a stream."""
EVENT_LIMIT: Final = 4 << 20
"""Bytes of one event, beyond which a stream is refused."""

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class EventReader:
    """Server-sent events from bytes, however they are split."""

    def __init__(self, *, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False
        self._after_return = False
        self.between = False
        """Whether the stream has begun and nothing waits: what comes begins an event."""

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
            if not self._begun:
                self._begun = True
                line = line.removeprefix(codecs.BOM_UTF8)
            if line:
                self._take(line)
            elif self._data:
                events.append(b"\n".join(self._data))
                self._data, self._size = [], 0
        if rest:
            self._line += rest
            self._bounded(len(self._line))
        self.between = self._begun and not (self._line or self._data or self._after_return)
        return events

    def _bounded(self, size: int) -> None:
        if self._size + size > self._limit:
            raise unreadable(f"an event is larger than {self._limit} bytes")

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._size += len(value) + 1


def is_one_event(data: bytes) -> bool:
    """Whether bytes that begin an event are a whole one of one line and no more: so they come from paced streams."""
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


def event(value: Json | str) -> bytes:
    """One server-sent event with this payload: JSON, or a text such as `DONE` as it is."""
    payload = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return b"".join(b"data: " + line.encode() + b"\n" for line in payload.split("\n")) + b"\n"


def unreadable(reason: str) -> BackendRejected:
    """The error for what a server sent."""
    return BackendRejected(f"the server's reply cannot be read: {reason}", status=502, hint="is it OpenAI-compatible?")
