"""Payloads and chunks of an upstream's stream, and every way that they can be wrong."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest

from justenough.gateway.exchange import Refused
from justenough.gateway.stream.events import Payloads, batches, decoded, head_of, is_events, read, stream_of


def received(pieces: Sequence[bytes]) -> tuple[list[list[bytes]], bytes]:
    """The batches of payloads, and the comments."""
    left = iter(pieces)
    comments = b""

    async def readany() -> bytes:
        return next(left, b"")

    async def keep_alive(data: bytes) -> None:
        nonlocal comments
        comments += data

    async def collect() -> list[list[bytes]]:
        answer = cast("aiohttp.ClientResponse", SimpleNamespace(content=SimpleNamespace(readany=readany)))
        return [batch async for batch in batches(answer, Payloads(limit=1000), keep_alive=keep_alive)]

    return asyncio.run(collect()), comments


def test_payloads_that_come_together_are_one_batch() -> None:
    batched, comments = received([b"data: 1\n\ndata: 2\n\n", b": wait\n\n", b"data: 3\n", b"\n"])
    assert batched == [[b"1", b"2"], [b"3"]]
    assert comments == b": wait\n\n"


@pytest.mark.parametrize("end", [b"data: [DONE]\n\n", b"data: [DONE] \n\n", b"data:\n\n", b"data:  \n\n"])
def test_the_end_and_empty_events_are_no_payloads(end: bytes) -> None:
    assert Payloads(limit=100).of(b"data: {}\n\n" + end) == [b"{}"]


def test_a_payload_is_one_line_of_valid_utf8() -> None:
    assert Payloads(limit=100).of(b'data: {"a":\ndata: "\xff"}\n\n') == ['{"a": "\ufffd"}'.encode()]


def test_an_event_above_the_limit_is_refused() -> None:
    payloads = Payloads(limit=10)
    assert not payloads.may_be_one(b"data: 1\n\n")
    payloads.of(b"data: 1\n\n")
    assert payloads.may_be_one(b"data: 1\n\n")
    assert not payloads.may_be_one(b"data: 12345\n\n")
    with pytest.raises(Refused, match="too large"):
        payloads.of(b"data: 1234567890\n\n")


@pytest.mark.parametrize(("kind", "events"), [("text/event-stream", True), ("Text/Event-Stream; x", True), ("", False)])
def test_a_stream_is_known_by_its_content_type(kind: str, events: bool) -> None:
    assert is_events(cast("aiohttp.ClientResponse", SimpleNamespace(headers={"content-type": kind}))) is events


def test_an_error_keeps_the_upstreams_words() -> None:
    with pytest.raises(Refused) as refused:
        read(b'{"error":{"message":"out of memory"}}')
    assert (refused.value.code, refused.value.body) == ("upstream_error", b'{"error":{"message":"out of memory"}}')


@pytest.mark.parametrize("reader", [read, decoded, head_of])
def test_what_is_not_json_is_malformed(reader: object) -> None:
    with pytest.raises(Refused) as refused:
        reader(b"{nothing}")  # type: ignore[operator]
    assert (refused.value.status, refused.value.code) == (502, "upstream_malformed")


def test_the_head_is_what_chunks_share() -> None:
    assert head_of(b'{"id":"x","choices":[],"usage":{},"timings":{},"created":1}') == {"id": "x", "created": 1}
    assert head_of(b"[1]") == {}
    assert decoded(b'[-Infinity,"\\ud800"]') == [-9999.0, "\ufffd"]


async def _told(pieces: Sequence[bytes]) -> tuple[bool, bytes, bytes]:
    """Whether an answer in these pieces is a stream, its first bytes, and the rest."""
    left = iter(pieces)

    async def readany() -> bytes:
        return next(left, b"")

    content = SimpleNamespace(readany=readany)
    fields = {"status": 200, "headers": {"content-type": "text/plain"}, "raw_headers": [], "content": content}
    stream, begin = await stream_of(cast("aiohttp.ClientResponse", SimpleNamespace(**fields)))
    rest = b""
    while data := await (content if stream is None else stream.content).readany():
        rest += data
    return stream is not None, begin, rest


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    "data",
    [
        b"data: {}\n\n",
        b"\n\r\ndata: {}\n\n",
        codecs.BOM_UTF8 + b"data: {}\n\n",
        b": wait\n\ndata: {}\n\n",
        b"event: chunk\ndata: {}\n\n",
        b"id: 7\ndata: {}\n\n",
        b"retry: 7\ndata: {}\n\n",
    ],
)
def test_a_stream_under_another_name_is_known_in_whatever_pieces_it_comes(data: bytes, size: int) -> None:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert asyncio.run(_told(pieces)) == (True, b"", data)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b'\n{"choices":[]}',
        b"dat",
        b"<html>",
        b"drip",
        b"identity: x\n",
        b":P\xdbC",
        b": x\n\n",
        b": x\ny",
    ],
)
def test_what_is_no_stream_of_events_loses_no_byte(data: bytes, size: int) -> None:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    is_stream, begin, rest = asyncio.run(_told(pieces))
    assert (is_stream, begin + rest) == (False, data)


def test_blank_lines_without_end_are_no_stream() -> None:
    is_stream, begin, rest = asyncio.run(_told([b"\n" * 10_000] * 20))
    assert (is_stream, begin + rest) == (False, b"\n" * 200_000)
    assert len(begin) < 100_000
