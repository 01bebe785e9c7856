"""A small real HTTP server that answers as it is told: errors, half streams, resets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from justenough.trace import Json

RESET: Final = b"\0reset"
HANG: Final = b"\0hang"
TOP: Final = tuple(-0.1 - at for at in range(20))


@dataclass
class Asked:
    """What reached the server, and whether its client went away while it hung."""

    bodies: list[dict[str, Json]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)


def reply(status: int, body: Json | str = "", *, headers: Sequence[str] = (), kind: str = "application/json") -> bytes:
    """A whole answer."""
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status} Told", f"Content-Type: {kind}", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + content


def streamed(*events: Json | str, chunked: bool = False) -> bytes:
    """An answer of events; with `chunked`, one that ends before its last chunk."""
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
    payloads = [each if isinstance(each, str) else json.dumps(each) for each in events]
    content = "".join(f"data: {payload}\n\n" for payload in payloads).encode()
    if chunked:
        return f"{head}Transfer-Encoding: chunked\r\n\r\n{len(content):x}\r\n".encode() + content + b"\r\n"
    return f"{head}\r\n".encode() + content


def said(
    text: str, *, top: Sequence[float] | None = TOP, finish: str | None = None, reasoning: str | None = None
) -> Json:
    """One event with one token."""
    delta: dict[str, Json] = {"content": text or None}
    if reasoning is not None:
        delta["reasoning_content"] = reasoning
    logprobs: Json = None
    if top is not None:
        entry: Json = {
            "token": text or reasoning or "",
            "logprob": top[0],
            "top_logprobs": [{"token": str(at), "logprob": value} for at, value in enumerate(top)],
        }
        logprobs = {"content": [entry]}
    return {"choices": [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]}


def shown(*entries: str, text: str | None = None, reasoning: str | None = None) -> Json:
    """One event of vLLM with these tokens, whose text it may keep to itself or sort into two fields."""
    top: Json = [{"token": str(at), "logprob": value} for at, value in enumerate(TOP)]
    content: Json = [{"token": entry, "logprob": TOP[0], "top_logprobs": top} for entry in entries]
    delta: dict[str, Json] = {"content": text, "reasoning": reasoning}
    return {"choices": [{"index": 0, "delta": delta, "logprobs": {"content": content}, "finish_reason": None}]}


END: Final[Json] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def usage(completion: int, prompt: int = 7) -> Json:
    """The event with the server's count."""
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


@asynccontextmanager
async def serving(*replies: bytes) -> AsyncIterator[tuple[str, Asked]]:
    """A server that gives these answers in turn, the last one again and again; `RESET` and `HANG` may end one."""
    asked = Asked()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(int(line.split(":")[1]) for line in head.lower().split("\r\n") if "content-length" in line)
            asked.bodies.append(json.loads(await reader.readexactly(length)))
            asked.heads.append(head)
            content = replies[min(len(asked.bodies), len(replies)) - 1]
            writer.write(content.removesuffix(RESET).removesuffix(HANG))
            await writer.drain()
            if content.endswith(HANG):
                await reader.read()
                asked.hung_up.set()
            if content.endswith(RESET):
                await asyncio.sleep(0.02)
                writer.transport.abort()
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/v1", asked
