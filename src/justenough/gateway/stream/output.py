"""The answer to a client: a stream of events, or one JSON object that is merged from the events."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Final

import msgspec

from justenough.gateway.exchange import Exchange, RawHeaders, end_to_end
from justenough.gateway.place import Kind
from justenough.gateway.stream.events import decoded, malformed
from justenough.trace import Json
from justenough.wire.chunks import THOUGHT_FIELDS
from justenough.wire.events import payload_of

HEADER: Final = b"x-justenough"
_BOUND_TO_BODY: Final = frozenset((b"content-length", b"content-type", b"content-encoding", b"cache-control"))


class EventOutput:
    """Server-sent events. An output takes the headers, then the events, then the end."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def begin(self, headers: RawHeaders, report: bytes) -> None:
        """Send the upstream's headers; `report` is the value of the gateway's own header."""
        fields = [pair for pair in end_to_end(headers) if pair[0] not in (b"content-length", b"content-encoding")]
        await self._exchange.start(200, [*fields, (HEADER, report)])

    def send(self, payloads: Sequence[bytes]) -> Awaitable[None]:
        """Send events, at least one; each payload is the bytes of a JSON object."""
        return self._exchange.write(b"data: %b\n\n" % b"\n\ndata: ".join(payloads))

    def pass_on(self, event: bytes) -> Awaitable[None]:
        """Send an event's bytes."""
        return self._exchange.write(event)

    async def keep_alive(self, comments: bytes) -> None:
        """Send comments; the upstream sends them to keep a silent connection alive."""
        await self._exchange.write(comments)

    async def end(self, report: bytes) -> None:
        """Send the end of the stream."""
        await self._exchange.end(b"data: [DONE]\n\n")


class WholeOutput:
    """One JSON object, for clients that do not stream. It has the methods of `EventOutput`."""

    def __init__(self, exchange: Exchange, kind: Kind, *, limit: int) -> None:
        """`limit`: largest total size of the events in bytes."""
        self._exchange = exchange
        self._chat = kind == "chat"
        self._left = limit
        self._headers: RawHeaders = []
        self._whole: dict[str, Json] = {}
        self._choice = _Merged(("text",), {"index": 0})
        self._message = _Merged(("content", *THOUGHT_FIELDS, "refusal"), {"role": "assistant", "content": ""})
        self._logprobs: dict[str, Json] | None = None

    async def begin(self, headers: RawHeaders, report: bytes) -> None:
        """Keep the headers for the end."""
        self._headers = [pair for pair in end_to_end(headers) if pair[0] not in _BOUND_TO_BODY]

    async def send(self, payloads: Sequence[bytes]) -> None:
        """Add events to the answer; raises `Refused` if it becomes too large."""
        for payload in payloads:
            self._left -= len(payload)
            if self._left < 0:
                raise malformed("its answer is too large for one JSON object")
            self._add(decoded(payload))

    async def pass_on(self, event: bytes) -> None:
        """Add an event's payload."""
        await self.send([payload_of(event)])

    async def keep_alive(self, comments: bytes) -> None:
        """Drop the comments: the answer is one JSON object."""

    async def end(self, report: bytes) -> None:
        """Send the answer."""
        body = msgspec.json.encode(self.whole())
        await self._exchange.answer(200, body, headers=[*self._headers, (HEADER, report)])

    def whole(self) -> dict[str, Json]:
        """The answer merged from the events."""
        choice = self._choice.whole()
        if self._logprobs is not None:
            choice["logprobs"] = self._logprobs
        if self._chat:
            choice["message"] = self._message.whole()
        elif "text" not in choice:
            choice["text"] = ""
        choice.setdefault("finish_reason", None)
        kind = "chat.completion" if self._chat else "text_completion"
        return self._whole | {"object": kind, "choices": [choice]}

    def _add(self, chunk: Json) -> None:
        if not isinstance(chunk, dict):
            return
        rows = chunk.pop("choices", None)
        report = chunk.pop("justenough", None)
        self._whole |= {key: value for key, value in chunk.items() if value is not None}
        if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
            return
        row = dict(rows[0])
        if row.get("finish_reason") is not None:
            # The gateway's own report is only in this event; elsewhere the member belongs to the upstream.
            self._whole["justenough"] = report
        delta = row.pop("delta", None)
        if isinstance(delta, dict):
            self._message.add(delta)
        logprobs = row.pop("logprobs", None)
        if isinstance(logprobs, dict):
            self._lengthen(logprobs)
        self._choice.add(row)

    def _lengthen(self, part: dict[str, Json]) -> None:
        """Add log-probabilities: lists with one entry for each token."""
        if self._logprobs is None:
            self._logprobs = part
            return
        for key, value in part.items():
            earlier = self._logprobs.get(key)
            if isinstance(earlier, list) and isinstance(value, list):
                earlier.extend(value)
            elif value is not None:
                self._logprobs[key] = value


Output = EventOutput | WholeOutput


class _Merged:
    """An object merged from parts; some of its texts are joined."""

    def __init__(self, texts: Sequence[str], members: dict[str, Json]) -> None:
        self._members = members
        self._texts: dict[str, list[str | list[Json]]] = {name: [] for name in texts}

    def add(self, part: dict[str, Json]) -> None:
        for key, value in part.items():
            if key in self._texts and value is not None:
                # Other values than a text or a list of parts are dropped: a client could not use them.
                if isinstance(value, str | list):
                    self._texts[key].append(value)
                    self._members.setdefault(key, "")
            elif value is not None or key not in self._members:
                self._members[key] = value

    def whole(self) -> dict[str, Json]:
        return self._members | {key: _joined(texts) for key, texts in self._texts.items() if texts}


def _joined(texts: list[str | list[Json]]) -> Json:
    """One text, or a list of parts if some of the texts came in parts."""
    plain = [text for text in texts if isinstance(text, str)]
    if len(plain) == len(texts):
        return "".join(plain)
    parts: list[Json] = []
    for text in texts:
        parts += [{"type": "text", "text": text}] if isinstance(text, str) else text
    return parts
