"""Reads the token of an event without a JSON parser, by comparison with an earlier event of the same stream.

The chunks of a stream have the same bytes, except for the text and the log-probabilities of each token. To compare
bytes costs a third of parsing JSON.
"""

from __future__ import annotations

import json
from typing import Final

from justenough.wire.chunks import THOUGHT_FIELDS, Chunk
from justenough.wire.events import is_one_event
from justenough.wire.logprobs import is_one_entry

_LOGPROBS: Final = b',"logprobs":'
_FIELDS: Final = (*THOUGHT_FIELDS, "content")


OneToken = tuple[str, bytes, bytes]
"""An event of one token: its text, its log-probabilities unread, and the event without them."""


class Template:
    """The bytes around an event's text and log-probabilities."""

    def __init__(self, before: bytes, between: bytes, after: bytes, *, reasoning: bool) -> None:
        """The bytes of a payload before the text, between text and log-probabilities, and at the end."""
        self.reasoning = reasoning
        """Whether the text is in a field of reasoning."""
        self._before = b"data: " + before
        self._between = between
        self._after = after + b"\n\n"
        self._bare_after = between.removesuffix(_LOGPROBS) + self._after
        self._begin, self._behind, self._end = len(self._before), len(between), -len(self._after)

    @classmethod
    def of(cls, payload: bytes, chunk: Chunk) -> Template | None:
        """The template of chunks like this one; None if it has more than one plain token."""
        choice = chunk.choice
        if (
            choice is None
            or len(chunk.choices or ()) > 1
            or choice.finish_reason is not None
            or chunk.usage is not None
            or chunk.timings is not None
            or chunk.prompt_progress is not None
            or not is_one_entry(choice.logprobs)
        ):
            return None
        delta = choice.delta
        fields = {"text": choice.text} if delta is None else {key: delta.text_of(key) for key in _FIELDS}
        texts = [(key, text) for key, text in fields.items() if text]
        if len(texts) != 1:
            return None
        name, text = texts[0]
        before, has_text, rest = payload.partition(f'"{name}":{json.dumps(text, ensure_ascii=False)}'.encode())
        between, has_logprobs, after = rest.partition(_LOGPROBS + bytes(choice.logprobs))
        if not (has_text and has_logprobs):
            return None
        key = f'"{name}":"'.encode()
        return cls(before + key, b'"' + between + _LOGPROBS, after, reasoning=name in THOUGHT_FIELDS)

    def read(self, event: bytes) -> OneToken | None:
        """The token of one event that fits the template; None for bytes that must be read as JSON."""
        if not (event.endswith(self._after) and event.startswith(self._before) and is_one_event(event)):
            return None
        begin = self._begin
        end = event.find(b'"', begin)
        if not event.startswith(self._between, end):
            return None
        raw = event[begin:end]
        logprobs = event[end + self._behind : self._end]
        # Escapes must be read as JSON, and so must anything that does not end like an entry with its alternatives.
        if b"\\" in raw or not logprobs.endswith(b"]}]}") or not is_one_entry(logprobs):
            return None
        # Bytes that are not UTF-8 become characters that cannot be printed.
        text = raw.decode(errors="surrogateescape")
        return (text, logprobs, self._before + raw + self._bare_after) if text.isprintable() else None
