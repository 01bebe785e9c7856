"""The same requests to a server directly and through a gateway in this process: what the gate really saves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from justenough.errors import BackendRejected, BackendUnavailable
from justenough.gateway.app.server import build_server
from justenough.gateway.exchange import Refused
from justenough.gateway.service import Service
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.capability import JSON, Capabilities, NotProbed, probe
from justenough.gateway.upstream.client import Upstream
from justenough.gateway.upstream.overshoot import read_counter
from justenough.trace import Json
from justenough.wire.chunks import error_of
from justenough.wire.lenient import read_chunk
from justenough.wire.values import read_or_none

_TARGET: Final = "/v1/chat/completions"
_SETTLING_S: Final = 0.25
"""Pause between two readings of the server's counter, which count as one if they are equal."""
_PROBING_S: Final = 0.05
"""Pause between two looks at whether the gateway has probed the server."""
_READINGS: Final = 200


class _Marked(msgspec.Struct):
    """The gateway's part of an answer."""

    justenough: dict[str, msgspec.Raw] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to one request."""

    text: str
    """The message without a thought that comes in a field of its own."""
    tokens: int
    """Completion tokens, by the usage of the answer."""
    decision: str | None = None
    """The gateway's decision, for example `stopped`."""
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """All requests that took one way: directly, or through the gateway."""

    replies: tuple[Reply, ...]
    counted: float | None
    """Tokens that the server's own counter adds meanwhile; None if it has none."""

    @property
    def used(self) -> int:
        """Completion tokens by the usage of the answers."""
        return sum(reply.tokens for reply in self.replies)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCheck:
    """Both ways."""

    direct: Side
    gated: Side
    counter: str | None
    """The server's counter; None: the tokens are those of the usage in its answers."""

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of the direct requests and of those through the gateway: by the counter, else by the usage."""
        if self.direct.counted is None or self.gated.counted is None:
            return self.direct.used, self.gated.used
        return round(self.direct.counted), round(self.gated.counted)

    @property
    def saving(self) -> float:
        """As a fraction of the tokens of the direct requests."""
        direct, gated = self.tokens
        return 1 - gated / direct if direct else 0.0

    @property
    def stopped(self) -> int:
        """Requests that the gate stopped."""
        return sum(reply.decision == "stopped" for reply in self.gated.replies)

    @property
    def reasons(self) -> list[str]:
        """Why requests were not stopped, the most frequent reason first."""
        others = [reply.reason or "relayed" for reply in self.gated.replies if reply.decision != "stopped"]
        return sorted(set(others), key=lambda reason: -others.count(reason))


async def capabilities_of(settings: GatewaySettings, *, model: str) -> Capabilities:
    """What the server can do with this model; raises `BackendError` if it cannot be reached or probed."""
    try:
        async with Upstream(settings) as upstream:
            return await probe(upstream, headers=[], calibrated=(model,), settle=True)
    except NotProbed as error:
        raise BackendRejected(error.message, status=error.upstream_status, retryable=True) from error
    except Refused as error:
        raise BackendUnavailable(f"{settings.origin}: {error.message}", hint="is the server running?") from error


async def check(settings: GatewaySettings, bodies: Sequence[Mapping[str, Json]], *, concurrency: int) -> LiveCheck:
    """Send these chats to the upstream, then through a gateway with these settings, where nothing is audited.

    The counter also contains the tokens of other clients of the server. Raises `BackendError`.
    """
    async with AsyncExitStack() as stack:
        try:
            upstream = await stack.enter_async_context(Upstream(settings))
            url, service = stack.enter_context(_served(replace(settings, audit_share=0.0)))
            # The tokens of the gateway's own probe belong to neither way.
            for _ in range(_READINGS):
                if service.capabilities is not None:
                    break
                await asyncio.sleep(_PROBING_S)
            # The key for the server is the gateway's; the path of the protocol is `/v1` there.
            own = replace(settings, upstream=url, upstream_key=None)
            gateway = await stack.enter_async_context(Upstream(own))
            sides, counter = [], await read_counter(upstream)
            for way in (upstream, gateway):
                before = await _settled(upstream)
                replies = await _replies(way, bodies, concurrency=concurrency)
                after = await _settled(upstream)
                counted = None if before is None or after is None else after - before
                sides.append(Side(replies=replies, counted=counted))
        except Refused as error:
            raise BackendUnavailable(f"{settings.origin}: {error.message}", hint="is the server running?") from error
    return LiveCheck(direct=sides[0], gated=sides[1], counter=None if counter is None else counter[0])


@contextmanager
def _served(settings: GatewaySettings) -> Iterator[tuple[str, Service]]:
    """A gateway on a free port, with its address, in a thread of its own, which leaves the signals to this one."""
    server, listener = build_server(settings, host="127.0.0.1", port=0, playground=False)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server.service
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


async def _settled(upstream: Upstream) -> float | None:
    """The server's counter once it no longer grows: the server learns late that a stream was left."""
    last = await read_counter(upstream)
    for _ in range(_READINGS):
        if last is None:
            return None
        await asyncio.sleep(_SETTLING_S)
        before, last = last, await read_counter(upstream)
        if last is not None and last[1] == before[1]:
            break
    return None if last is None else last[1]


async def _replies(upstream: Upstream, bodies: Sequence[Mapping[str, Json]], *, concurrency: int) -> tuple[Reply, ...]:
    slots = asyncio.Semaphore(concurrency)

    async def reply(body: Mapping[str, Json]) -> Reply:
        async with (
            slots,
            upstream.open("POST", _TARGET, headers=JSON, body=msgspec.json.encode(body)) as answer,
        ):
            return _reply(answer.status, await answer.read())

    results = await asyncio.gather(*map(reply, bodies), return_exceptions=True)
    # All requests have ended here, also after a failure.
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return tuple(result for result in results if isinstance(result, Reply))


def _reply(status: int, body: bytes) -> Reply:
    chunk = read_chunk(body)
    if status != 200 or chunk.choice is None or chunk.usage is None:
        words = error_of(chunk, body) or "it has no message or no usage"
        raise BackendRejected(f"an answer with status {status}: {words}", status=status)
    marked = read_or_none(body, _Marked)
    report = {} if marked is None or marked.justenough is None else marked.justenough
    decision, reason = (read_or_none(report.get(key, b"null"), str) for key in ("decision", "reason"))
    tokens = chunk.usage.completion_tokens or 0
    return Reply(text=chunk.choice.content, tokens=tokens, decision=decision, reason=reason)
