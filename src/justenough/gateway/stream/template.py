"""What the events of one stream have in common, so that a token among them can be found without reading JSON.

Servers write the chunks of a stream alike to the byte, but for the text and the log-probabilities of each token. An
event that is like one that was read before is taken apart by comparing bytes: a third of the work.
"""

from __future__ import annotations

import json
from typing import Final

from justenough.gateway.stream.chunk import Chunk, is_one_entry
from justenough.wire import is_one_event

_LOGPROBS: Final = b',"logprobs":'
_FIELDS: Final = ("reasoning_content", "reasoning", "content", "text")


OneToken = tuple[str, bytes, bytes]
"""All that an event says where that is one token: its text, its log-probabilities unread, the event without them."""


class Template:
    """The bytes around an event's text and log-probabilities."""

    def __init__(self, before: bytes, between: bytes, after: bytes, *, reasoning: bool) -> None:
        """Of the payload: what stands before the text, then from the quotation mark that ends it, and at the end."""
        self.reasoning = reasoning
        """Whether the text is that of a field for reasoning."""
        self._before = b"data: " + before
        self._between = between
        self._after = after + b"\n\n"
        self._bare_after = between.removesuffix(_LOGPROBS) + self._after
        self._begin, self._behind, self._end = len(self._before), len(between), -len(self._after)

    @classmethod
    def of(cls, payload: bytes, chunk: Chunk) -> Template | None:
        """What a chunk has in common with those like it; None where it says more than one token, or not plainly."""
        choice = chunk.choice
        if (
            choice is None
            or len(chunk.choices) > 1
            or choice.finish_reason is not None
            or chunk.usage is not None
            or chunk.timings is not None
            or chunk.prompt_progress is not None
            or not is_one_entry(choice.logprobs)
        ):
            return None
        source = choice.delta if choice.delta is not None else choice
        said = [(name, text) for name in _FIELDS if (text := getattr(source, name, None))]
        if len(said) != 1:
            return None
        name, text = said[0]
        before, found, rest = payload.partition(f'"{name}":{json.dumps(text, ensure_ascii=False)}'.encode())
        between, also, after = rest.partition(_LOGPROBS + bytes(choice.logprobs))
        if not (found and also):
            return None
        key = f'"{name}":"'.encode()
        return cls(before + key, b'"' + between + _LOGPROBS, after, reasoning=name.startswith("reasoning"))

    def read(self, event: bytes) -> OneToken | None:
        """The token of bytes that begin an event, where they are one that is like the template; None where they have to
        be read as events of JSON."""
        if not (event.endswith(self._after) and event.startswith(self._before) and is_one_event(event)):
            return None
        begin = self._begin
        end = event.find(b'"', begin)
        if not event.startswith(self._between, end):
            return None
        said = event[begin:end]
        logprobs = event[end + self._behind : self._end]
        # What is escaped has to be read, and so has what ends in another way than an entry with its alternatives.
        if b"\\" in said or not logprobs.endswith(b"]}]}") or not is_one_entry(logprobs):
            return None
        # Bytes that are no character of UTF-8 become one that is not printable.
        text = said.decode(errors="surrogateescape")
        return (text, logprobs, self._before + said + self._bare_after) if text.isprintable() else None
