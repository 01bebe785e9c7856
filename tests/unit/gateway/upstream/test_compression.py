"""Answers that come compressed although the gateway asked for none."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import aiohttp
import httpx
import pytest

from justenough.gateway.budgets import Budgets
from justenough.gateway.settings import BudgetSettings
from justenough.gateway.upstream.compression import Decompressed
from justenough.testing import CONFIDENT
from tests.unit.gateway.wild import MODES, Reply, Scripted, before, chunks, seen, tried

Body = dict[str, Any]
TEXT: Final = b"data: {}\n\n" * 50


def _raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(data) + coder.flush()


def _two_members(data: bytes) -> bytes:
    return gzip.compress(data[:7]) + gzip.compress(data[7:])


CODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "x-gzip": _two_members,
    "deflate": zlib.compress,
    "Deflate": _raw_deflate,
}
UNKNOWN: Final = ("br", "zstd", "gzip, br", "compress", "unknown")


class _Body:
    """A body that arrives in pieces."""

    def __init__(self, data: bytes, size: int) -> None:
        self.pieces = [data[at : at + size] for at in range(0, len(data), size)]

    async def readany(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("encoding", CODERS)
def test_a_body_in_any_pieces_is_decompressed(encoding: str, size: int) -> None:
    async def main() -> bytes:
        body = Decompressed(_Body(CODERS[encoding](TEXT), size))  # type: ignore[arg-type]
        return b"".join([part async for part in body.iter_any()])

    assert asyncio.run(main()) == TEXT


def test_a_small_body_that_becomes_very_large_comes_in_bounded_parts() -> None:
    async def main() -> list[int]:
        body = Decompressed(_Body(gzip.compress(bytes(10_000_000)), 1 << 20))  # type: ignore[arg-type]
        return [len(part) async for part in body.iter_any()]

    sizes = asyncio.run(main())
    assert sum(sizes) == 10_000_000
    assert max(sizes) <= 1 << 20


def test_a_body_that_is_not_compressed_as_it_says_is_a_broken_answer() -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        asyncio.run(Decompressed(_Body(b"\x1fnothing", 3)).readany())  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("encoding", CODERS)
def test_a_body_that_is_cut_off_is_a_broken_answer(encoding: str, size: int) -> None:
    async def main() -> None:
        data = CODERS[encoding](TEXT)
        end = len(data) // 2 + 1 if encoding == "x-gzip" else len(data) - 1
        async for _ in Decompressed(_Body(data[:end], size)).iter_any():  # type: ignore[arg-type]
            pass

    with pytest.raises(aiohttp.ClientPayloadError):
        asyncio.run(main())


@pytest.mark.parametrize("rest", [bytes(7), b"\r\n"])
def test_what_follows_a_complete_body_is_dropped(rest: bytes) -> None:
    async def main() -> bytes:
        body = Decompressed(_Body(gzip.compress(TEXT) + rest, 5))  # type: ignore[arg-type]
        return b"".join([part async for part in body.iter_any()])

    assert asyncio.run(main()) == TEXT


def test_a_body_without_bytes_is_empty() -> None:
    assert asyncio.run(Decompressed(_Body(b"", 1)).readany()) == b""  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["observe", "gate", "counted"])
def test_an_answer_that_is_cut_off_never_looks_whole(mode: str) -> None:
    server = Scripted(row=CONFIDENT)

    def cut_off(body: Body) -> Reply:
        data = server.write(chunks(server.texts, body, server.row))
        kind = "text/event-stream"
        if not body["stream"]:
            data, kind = json.dumps(server._whole(body)).encode(), "application/json"
        coded = gzip.compress(data, compresslevel=0)
        return Reply(200, kind, coded[: len(coded) // 3], (("Content-Encoding", "gzip"),))

    server.refuse = cut_off

    async def main() -> None:
        async with (
            before(server, "off" if mode == "counted" else mode) as (gateway, _),
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            if mode == "counted":
                gateway.service.settings = replace(gateway.service.settings, budget=BudgetSettings(tokens=10**6))
                gateway.service.budgets = Budgets(gateway.service.settings)
            for stream in (True, False):
                body = {"model": "m", "messages": [{"role": "user", "content": "6*7?"}], "stream": stream}
                try:
                    answer = await client.post("/v1/chat/completions", json=body)
                except httpx.RemoteProtocolError:
                    continue
                assert answer.status_code == 502 or '"code":"upstream_broken"' in answer.text, answer.text
                assert "[DONE]" not in answer.text

    asyncio.run(main())


@pytest.mark.parametrize("mode", ["observe", "gate"])
def test_a_stream_with_its_end_is_whole_although_its_compression_has_none(mode: str) -> None:
    server = Scripted(row=CONFIDENT)

    def unfinished(body: Body) -> Reply:
        texts = server.rest if "</think>" in str(body.get("messages") or body["prompt"]) else server.texts
        coded = gzip.compress(server.write(chunks(texts, body, server.row)))[:-8]
        return Reply(200, "text/event-stream", coded, (("Content-Encoding", "gzip"),))

    server.refuse = unfinished
    for each in tried(server, mode, kinds=["chat"]):
        answer = seen(each.through)
        assert (answer.errors, answer.finish) == (0, "stop")
        assert answer.text.endswith("The answer is 42.")


def compressing(encoding: str) -> Scripted:
    """A server that compresses every answer; a compression that Python cannot undo is any bytes here."""
    server = Scripted(row=CONFIDENT)

    def answer(body: Body) -> Reply:
        texts = server.rest if "</think>" in str(body.get("messages") or body["prompt"]) else server.texts
        data = server.write(chunks(texts, body, server.row))
        if not body["stream"]:
            data = json.dumps(server._whole(body)).encode()
        coded = CODERS[encoding](data) if encoding in CODERS else b"\x8b" + data[::-1]
        kind = "text/event-stream" if body["stream"] else "application/json"
        return Reply(200, kind, coded, (("Content-Encoding", encoding),))

    server.refuse = answer
    return server


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("encoding", CODERS)
def test_what_can_be_decompressed_is_gated(encoding: str, mode: str) -> None:
    for each in tried(compressing(encoding), mode):
        if mode == "gate":
            assert '"decision":"stopped"' in each.through.text
            assert "content-encoding" not in each.through.headers
        elif encoding != "x-gzip" or mode == "observe":
            assert seen(each.through).text == "".join(Scripted().texts)


@pytest.mark.parametrize("mode", [*MODES, "counted"])
@pytest.mark.parametrize("encoding", UNKNOWN)
def test_what_cannot_be_decompressed_passes_as_it_came(encoding: str, mode: str) -> None:
    sent: list[tuple[str, bytes]] = []

    async def main() -> None:
        async with (
            before(compressing(encoding), "off" if mode == "counted" else mode) as (gateway, url),
            aiohttp.ClientSession(auto_decompress=False) as own,
        ):
            if mode == "counted":
                gateway.service.settings = replace(gateway.service.settings, budget=BudgetSettings(tokens=10**6))
                gateway.service.budgets = Budgets(gateway.service.settings)
            for stream in (True, False):
                body = {"model": "m", "messages": [{"role": "user", "content": "6*7?"}], "stream": stream}
                for base in (url, gateway.url):
                    async with own.post(f"{base}/v1/chat/completions", json=body) as answer:
                        sent.append((answer.headers["content-encoding"], await answer.read()))
                assert answer.headers["x-justenough"].startswith("relayed")
            assert gateway.service.metrics.outcomes["relayed"] == 2

    asyncio.run(main())
    assert sent[0] == sent[1]
    assert sent[2] == sent[3]
    assert {name for name, _ in sent} == {encoding}
