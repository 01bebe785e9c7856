"""Reads the token of an event without a JSON parser, by comparison with an earlier event of the same stream.

The chunks of a stream have the same bytes, except for the text and the log-probabilities of each token, and with vLLM
the token counts in `usage`. To compare bytes costs a third of parsing JSON. Whatever differs elsewhere is read as JSON.
"""

from __future__ import annotations

import json
from typing import Final, NamedTuple

import msgspec

from justenough.wire.chunks import THOUGHT_FIELDS, Chunk, Usage
from justenough.wire.events import event_of
from justenough.wire.logprobs import is_one_entry, with_fewer
from justenough.wire.values import ABSENT, UNREADABLE, read_or_none

_LOGPROBS: Final = b',"logprobs":'
_USAGE: Final = b',"usage":'
_LINE_FEED: Final = ord("\n")
_RETURN: Final = ord("\r")
_FIELDS: Final = (*THOUGHT_FIELDS, "content")
_usage: Final = msgspec.json.Decoder(Usage)

OneToken = tuple[str, bytes, bytes, Usage | None]
"""An event of one token: its text, its log-probabilities unread, the event for the client, and its token counts."""


class View(NamedTuple):
    """What the client sees of an event."""

    logprobs: bool
    most: int | None
    """Alternatives of a token; None: all."""
    usage: bool


class _Parts(NamedTuple):
    """The bytes of an event around all that changes."""

    before: bytes
    """Before the text."""
    between: bytes
    """Between text and log-probabilities."""
    behind: bytes
    """Between log-probabilities and token counts; empty where there are no token counts."""
    after: bytes
    """At the end."""


class Template:
    """The bytes around an event's text, log-probabilities and token counts."""

    def __init__(self, parts: _Parts, view: View, *, reasoning: bool) -> None:
        self.reasoning = reasoning
        """Whether the text is in a field of reasoning."""
        self._before, self._between, self._behind, self._after = parts
        self._begin, self._gap, self._end = len(self._before), len(self._between), len(self._after)
        self._view = view
        self._bare = self._between.removesuffix(_LOGPROBS)
        self._tail = self._behind.removesuffix(_USAGE) + self._after
        self._hides = not view.logprobs and (not view.usage or not self._behind)
        """Whether the client sees nothing of an event but its text."""
        self._rest = self._bare + self._tail

    @classmethod
    def of(cls, payload: bytes, chunk: Chunk, view: View, shown: bytes) -> Template | None:
        """The template of chunks like this one, which the client sees as `shown`; None if it is not one plain token."""
        choice = chunk.choice
        if (
            choice is None
            or len(chunk.choices or ()) > 1
            or choice.finish_reason is not None
            or chunk.timings is not None
            or chunk.prompt_progress is not None
            or not is_one_entry(bytes(choice.logprobs))
        ):
            return None
        delta = choice.delta
        fields = {"text": choice.text} if delta is None else {key: delta.text_of(key) for key in _FIELDS}
        texts = [(key, text) for key, text in fields.items() if text]
        if len(texts) != 1:
            return None
        name, text = texts[0]
        event, logprobs = event_of(payload), bytes(choice.logprobs)
        before, has_text, rest = event.partition(f'"{name}":{json.dumps(text, ensure_ascii=False)}'.encode())
        between, has_logprobs, after = rest.partition(_LOGPROBS + logprobs)
        behind = b""
        if chunk.usage is not None:
            counts = (read_or_none(payload, dict[str, msgspec.Raw]) or {}).get("usage", ABSENT)
            behind, has_usage, after = after.rpartition(_USAGE + bytes(counts))
            behind += _USAGE if has_usage else b""
        if not (has_text and has_logprobs):
            return None
        parts = _Parts(before + f'"{name}":"'.encode(), b'"' + between + _LOGPROBS, behind, after)
        template = cls(parts, view, reasoning=name in THOUGHT_FIELDS)
        # It must read its own event as JSON was read, and show it alike.
        return template if template.read(event) == (text, logprobs, event_of(shown), chunk.usage) else None

    def read(self, event: bytes) -> OneToken | None:
        """The token of one event that fits the template; None for bytes that must be read as JSON."""
        if not (event.endswith(self._after) and event.startswith(self._before)):
            return None
        begin = self._begin
        end = event.find(b'"', begin)
        if not event.startswith(self._between, end):
            return None
        # The beginning and the end are those of an event. A line break between them makes it two lines or events.
        size = len(event)
        if event.find(_LINE_FEED) != size - 2 or _RETURN in event:
            return None
        first, last, usage = end + self._gap, size - self._end, None
        try:
            if not event.isascii():
                # Bytes that are not UTF-8 must be repaired.
                event.decode()
            if self._behind:
                counts_end, last = last, event.rfind(self._behind, first)
                usage = _usage.decode(event[last + len(self._behind) : counts_end])
        except UNREADABLE:
            return None
        raw, logprobs = event[begin:end], event[first:last]
        text = raw.decode()
        # Escapes must be read as JSON.
        if last < 0 or "\\" in text or not text.isprintable() or not is_one_entry(logprobs):
            return None
        shown = self._before + raw + self._rest if self._hides else self._shown(event, first, last)
        return None if shown is None else (text, logprobs, shown, usage)

    def _shown(self, event: bytes, first: int, last: int) -> bytes | None:
        """The event for the client; its log-probabilities are from `first` to `last`."""
        view = self._view
        tail = event[last:] if view.usage else self._tail
        if not view.logprobs:
            return event[: first - self._gap] + self._bare + tail
        if view.most is None:
            return event[:last] + tail
        fewer = with_fewer(event[first:last], view.most)
        return None if fewer is None else event[:first] + fewer + tail
