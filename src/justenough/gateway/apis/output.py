"""The way to a client of another API: chunks become its events, or its answer in one piece."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from justenough.gateway.apis.api import Answer
from justenough.gateway.exchange import Exchange
from justenough.gateway.stream.events import Unusable, read
from justenough.gateway.stream.output import EventOutput, WholeOutput
from justenough.trace import Json
from justenough.wire.events import payload_of


class TranslatedEvents(EventOutput):
    """A stream of the API's own events."""

    def __init__(self, exchange: Exchange, answer: Answer) -> None:
        super().__init__(exchange)
        self._answer = answer

    async def send(self, payloads: Sequence[bytes]) -> None:
        """Send the events of some chunks; raises `Refused` for one that cannot be read."""
        # Other payloads, such as a ping, have no place in this API.
        objects = [payload for payload in payloads if payload.lstrip().startswith(b"{")]
        if events := b"".join(map(self._answer.take, objects)):
            await super().pass_on(events)

    async def pass_on(self, event: bytes) -> None:
        """Send the events of one chunk."""
        await self.send([payload_of(event)])

    async def keep_alive(self, comments: bytes) -> None:
        """Send comments, if a stream of this API may contain them."""
        if self._answer.has_comments:
            await super().pass_on(comments)

    async def end(self, header: bytes, report: dict[str, Json]) -> None:
        """Send the last events; raises `Unusable` for an answer that has no form in this API."""
        self._answer.require_form()
        await self._end(self._answer.end())


class TranslatedWhole(WholeOutput):
    """The API's answer in one piece."""

    def __init__(self, exchange: Exchange, answer: Answer, *, limit: int) -> None:
        """`limit`: largest total size of the events in bytes."""
        super().__init__(exchange, "chat", limit=limit)
        self._answer = answer

    def whole(self) -> dict[str, Json]:
        """The answer made of the whole chat.

        Raises `Unusable` if the chat calls a tool, which nobody offered, or has no form in this API.
        """
        chat = msgspec.json.encode(super().whole())
        if (choice := read(chat).choice) is not None and choice.has_call:
            raise Unusable("it calls a tool")
        self._answer.take(chat)
        self._answer.require_form()
        return self._answer.whole()
