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
        self._has_body = True
        """Whether the answer to the last request may have a body: that to HEAD has none (RFC 9110, 9.3.2)."""

    async def request(self) -> Received | None:
        """The next request; None if the client has disconnected."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        self._has_body = method != "HEAD"
        fields = [line.partition(":") for line in lines if line]
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        body = b""
        if "content-length" in headers:
            body = await self.reader.readexactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        return Received(method=method, target=target, headers=headers, body=body)

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client reads slowly."""
        self.writer.write(data)
        await self.writer.drain()

    async def whole(self, status: int, value: Json, headers: Mapping[str, str] | None = None) -> None:
        """Send a complete answer: plain text for a `str`, JSON for any other value; to HEAD only its head."""
        kind, text = ("text/plain", value) if isinstance(value, str) else ("application/json", json.dumps(value))
        body = text.encode()
        fields = {"Content-Type": kind, "Content-Length": len(body), **(headers or {})}
        head = "".join([f"{name}: {field}\r\n" for name, field in fields.items()])
        await self.write(f"HTTP/1.1 {status} Mock\r\n{head}\r\n".encode() + (body if self._has_body else b""))

    async def error(self, status: int, message: str, *, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """Send an error in the form of OpenAI; `kind` is its type."""
        await self.whole(status, {"error": {"message": message, "type": kind, "code": status}}, headers)

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
