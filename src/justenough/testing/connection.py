"""A small HTTP/1.1 server side that can fail at any byte."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from justenough.errors import InputError
from justenough.trace import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request as the server received it."""

    method: str
    target: str
    headers: Mapping[str, str]
    """Header values; the names are in lower case."""
    body: bytes

    def json(self) -> dict[str, Json]:
        """The body as a JSON object."""
        return cast("dict[str, Json]", json.loads(self.body))


class Broken(Exception):
    """Raised to end the connection."""


class Wire:
    """The connection of one client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> Received | None:
        """The next request; None if the client has disconnected."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
        }
        body = b""
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        return Received(method=method, target=target, headers=headers, body=body)

    async def event(self, value: Json) -> None:
        """Send one server-sent event in its own HTTP chunk."""
        # Compact JSON, as real servers send it.
        await self.write(framed(b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"))

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client reads slowly."""
        self.writer.write(data)
        await self.writer.drain()

    async def text(self, text: str) -> None:
        """Send a complete answer in plain text."""
        body = text.encode()
        head = f"HTTP/1.1 200 Mock\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        await self.write(head.encode() + body)

    async def whole(self, status: int, value: Json, headers: Mapping[str, str] | None = None) -> None:
        """Send a complete answer in JSON."""
        body = json.dumps(value).encode()
        lines = [f"HTTP/1.1 {status} Mock", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {text}" for name, text in (headers or {}).items()]
        await self.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)

    async def stall(self) -> None:
        """Send nothing until the client disconnects."""
        await self.reader.read(1)
        raise Broken

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        connection = self.writer.get_extra_info("socket")
        if connection is None:
            raise InputError("the connection has no socket", hint="use MockUpstream, which listens on TCP")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        raise Broken


def framed(data: bytes) -> bytes:
    """Data as one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)
