"""Saved streams: server-sent events as a file of values, and the pieces of a reply joined to a whole one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from justenough.files import lines_of
from justenough.importing.jsonfile import Item, json_values, parsed
from justenough.importing.members import count, first, inside, objects, text
from justenough.importing.opening import opened
from justenough.importing.recording import Recording
from justenough.trace import Json
from justenough.trace.files import BadLine
from justenough.wire.events import DONE

_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
_MOST_OPEN: Final = 256
"""Streams whose pieces may alternate in a file. If more are open, the oldest one counts as whole."""


def values_of(path: Path) -> Iterator[Item | BadLine]:
    """The JSON values of a file, or the data of its server-sent events; `[DONE]` is a text."""
    with opened(path) as file:
        events = file.peek(64).lstrip(b"\xef\xbb\xbf \r\n").startswith(_FIELDS)
    if not events:
        yield from json_values(path)
        return
    with opened(path) as file:
        for line, raw in enumerate(lines_of(file, path), 1):
            # Each line is one value: many tools drop the empty lines between events.
            data = raw.removeprefix(b"data:").strip()
            if raw.startswith(b"data:") and data:
                yield Item(line, DONE) if data == DONE.encode() else parsed(data, line)


class Whole(NamedTuple):
    """A whole reply, and the line on which it begins."""

    line: int
    recording: Recording
    broken: bool = False
    """Whether the file ends before this reply does."""


class Streams:
    """Joins the pieces of streamed replies, which may alternate with others."""

    def __init__(self) -> None:
        self._open: dict[str, _Joined] = {}

    def add(self, line: int, recording: Recording) -> Iterator[Whole]:
        """The replies that this recording completes."""
        name = recording.stream
        if name is None or (recording.ends and name not in self._open):
            yield Whole(line, recording)
            return
        joined = self._open.setdefault(name, _Joined(line, recording))
        joined.add(recording)
        if recording.ends:
            yield self._open.pop(name).whole()
        elif len(self._open) > _MOST_OPEN:
            yield self._open.pop(next(iter(self._open))).whole()

    def end(self) -> Iterator[Whole]:
        """The replies that are still open at the end of the file, or of a connection."""
        for joined in self._open.values():
            yield joined.whole()
        self._open.clear()


class _Joined:
    """The pieces of one reply so far."""

    def __init__(self, line: int, first_piece: Recording) -> None:
        self._line, self._last = line, first_piece
        self._usage: Json = None
        self._choices: dict[int, _JoinedChoice] = {}

    def add(self, piece: Recording) -> None:
        self._last = piece
        self._usage = piece.usage or self._usage
        for each in objects(piece.choices):
            self._choices.setdefault(count(each.get("index")) or 0, _JoinedChoice()).add(each)

    def whole(self) -> Whole:
        choices: list[Json] = [joined.whole(index) for index, joined in sorted(self._choices.items())]
        finished = bool(choices) and all(first(each, "finish_reason") is not None for each in choices)
        recording = replace(self._last, choices=choices, usage=self._usage, stream=None)
        return Whole(self._line, recording, broken=not finished)


class _JoinedChoice:
    """One choice of the pieces."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[Json] = []
        self._logprobs: dict[str, list[Json]] = {}
        self._finish: Json = None

    def add(self, piece: dict[str, Json]) -> None:
        part = first(piece, "delta", "message")
        self._content.append(text(piece.get("text")) if part is None else text(inside(part, "content")))
        self._reasoning.append(text(first(part, "reasoning_content", "reasoning", "thinking")))
        if calls := inside(part, "tool_calls"):
            self._calls.append(calls)
        if isinstance(logprobs := piece.get("logprobs"), dict):
            for name, values in logprobs.items():
                if isinstance(values, list):
                    self._logprobs.setdefault(name, []).extend(values)
        self._finish = piece.get("finish_reason") or self._finish

    def whole(self, index: int) -> dict[str, Json]:
        logprobs: dict[str, Json] = dict(self._logprobs)
        return {
            "index": index,
            "message": {
                "content": "".join(self._content),
                "reasoning_content": "".join(self._reasoning),
                "tool_calls": self._calls,
            },
            "logprobs": logprobs or None,
            "finish_reason": self._finish,
        }
