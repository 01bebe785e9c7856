"""Answers that come compressed although no compression was asked for."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

import aiohttp

_READABLE: Final = frozenset(("gzip", "x-gzip", "deflate"))
_MOST_AT_ONCE: Final = 1 << 20
"""Decompressed bytes of one read."""
_ANY_HEADER: Final = zlib.MAX_WBITS | 32
"""Either the header of gzip or that of zlib."""


def is_readable(headers: Mapping[str, str]) -> bool:
    """Whether `Decompressed` reads an answer with these headers."""
    return headers.get("content-encoding", "").strip().lower() in _READABLE


def is_undone(answer: aiohttp.ClientResponse) -> bool:
    """Whether the answer came compressed and its body is read without that."""
    return getattr(answer.content, "total_compressed_bytes", None) is not None


def is_compressed(answer: aiohttp.ClientResponse) -> bool:
    """Whether the answer's body is compressed in a way that cannot be undone."""
    encoding = answer.headers.get("content-encoding", "").strip().lower()
    return encoding not in ("", "identity") and not is_undone(answer)


class Decompressed:
    """The body of an answer without its compression, in the form of aiohttp's bodies."""

    total_compressed_bytes = 0
    """The mark of a compression that was undone, as aiohttp sets it."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content
        self._decoder = zlib.decompressobj(_ANY_HEADER)
        self._begun = False
        self._rest = b""

    async def readany(self) -> bytes:
        """The bytes that have arrived; empty at the end. Raises aiohttp's error for a body that is cut off."""
        while data := self._rest or await self._content.readany():
            if decompressed := self._decompress(data):
                return decompressed
        if self._begun and not self._decoder.eof:
            raise aiohttp.ClientPayloadError("the compressed answer is cut off")
        return b""

    async def iter_any(self) -> AsyncIterator[bytes]:
        """All bytes as they arrive."""
        while data := await self.readany():
            yield data

    def _decompress(self, data: bytes) -> bytes:
        if not self._begun:
            self._begun = True
            if data[0] & 0x0F != 8 and data[0] != 0x1F:
                # Some servers send deflate without zlib's header.
                self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)
        elif self._decoder.eof:
            if data[0] != 0x1F:
                # Bytes after the end, as some servers send them.
                self._rest = b""
                return b""
            # The next member of a gzip file.
            self._decoder = zlib.decompressobj(_ANY_HEADER)
        try:
            out = self._decoder.decompress(data, _MOST_AT_ONCE)
        except zlib.error as error:
            raise aiohttp.ClientPayloadError("the compressed answer cannot be read") from error
        self._rest = self._decoder.unconsumed_tail or self._decoder.unused_data
        return out
