"""The two ways to a client: events as they come, or one whole answer put together from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, cast

import msgspec

from justenough.gateway.asked import Kind
from justenough.gateway.events import decoded
from justenough.gateway.exchange import EVENTS, Exchange, RawHeaders, end_to_end
from justenough.trace import Json

HEADER: Final = b"x-justenough"
_JOINED: Final = ("content", "reasoning_content", "reasoning", "refusal")
_BOUND_TO_BODY: Final = frozenset((b"content-length", b"content-type", b"content-encoding", b"cache-control"))


class Output(Protocol):
    """Takes the payloads of events, each a JSON object's bytes, and then the end."""

    async def begin(self, headers: RawHeaders, said: bytes) -> None:
        """The upstream's answer has begun with these headers; `said` is ours."""

    async def send(self, payloads: Sequence[bytes]) -> None:
        """Some events."""

    async def end(self, said: bytes) -> None:
        """All is said; `said` is the header that tells what the gate did, where headers can still be sent."""


class EventOutput:
    """Server-sent events."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def begin(self, headers: RawHeaders, said: bytes) -> None:
        """Send the headers."""
        kept = [
            (key, value) for key, value in end_to_end(headers) if key not in (b"content-length", b"content-encoding")
        ]
        await self._exchange.start(200, [*kept, (HEADER, said)])

    async def send(self, payloads: Sequence[bytes]) -> None:
        """Send events at once."""
        if payloads:
            await self._exchange.write(b"data: " + b"\n\ndata: ".join(payloads) + b"\n\n")

    async def end(self, said: bytes) -> None:
        """Send the end of the stream."""
        await self._exchange.end(b"data: [DONE]\n\n")


class WholeOutput:
    """One JSON object, for clients that do not stream."""

    def __init__(self, exchange: Exchange, kind: Kind) -> None:
        self._exchange = exchange
        self._chat = kind == "chat"
        self._headers: RawHeaders = []
        self._whole: dict[str, Json] = {}
        self._choice: dict[str, Json] = {"index": 0}
        self._message: dict[str, Json] = {"role": "assistant", "content": ""}

    async def begin(self, headers: RawHeaders, said: bytes) -> None:
        """Keep the headers for the end."""
        self._headers = [pair for pair in end_to_end(headers) if pair[0] not in _BOUND_TO_BODY]

    async def send(self, payloads: Sequence[bytes]) -> None:
        """Add events to the whole."""
        for payload in payloads:
            self._add(decoded(payload))

    async def end(self, said: bytes) -> None:
        """Send the whole."""
        whole = self.whole()
        await self._exchange.answer(200, msgspec.json.encode(whole), headers=[*self._headers, (HEADER, said)])

    def whole(self) -> dict[str, Json]:
        """What the events come to."""
        choice = dict(self._choice)
        if self._chat:
            choice["message"] = dict(self._message)
        elif "text" not in choice:
            choice["text"] = ""
        choice.setdefault("finish_reason", None)
        kind = "chat.completion" if self._chat else "text_completion"
        return self._whole | {"object": kind, "choices": [choice]}

    def _add(self, chunk: Json) -> None:
        if not isinstance(chunk, dict):
            return
        rows = chunk.pop("choices", None)
        told = chunk.pop("justenough", None)
        self._whole |= {key: value for key, value in chunk.items() if value is not None}
        if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
            return
        row = dict(rows[0])
        if row.get("finish_reason") is not None:
            # Ours stands here alone; whatever the upstream calls so elsewhere is not to hide it.
            self._whole["justenough"] = told
        delta = row.pop("delta", None)
        if isinstance(delta, dict):
            _join(self._message, delta)
        logprobs = row.pop("logprobs", None)
        if isinstance(logprobs, dict):
            self._choice["logprobs"] = _longer(self._choice.get("logprobs"), logprobs)
        _join(self._choice, row, joined=("text",))


def _join(whole: dict[str, Json], part: dict[str, Json], *, joined: Sequence[str] = _JOINED) -> None:
    for key, value in part.items():
        before = whole.get(key)
        if key in joined and isinstance(value, str) and isinstance(before, str):
            whole[key] = before + value
        elif value is not None or key not in whole:
            whole[key] = value


def _longer(before: Json, part: dict[str, Json]) -> Json:
    """Log-probabilities are lists of one entry for each token."""
    if not isinstance(before, dict):
        return part
    out = dict(before)
    for key, value in part.items():
        known = out.get(key)
        if isinstance(known, list) and isinstance(value, list):
            out[key] = known + value
        elif value is not None:
            out[key] = value
    return cast("Json", out)


__all__ = ["EVENTS", "HEADER", "EventOutput", "Output", "WholeOutput"]
