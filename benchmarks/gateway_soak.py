"""Runs many streams at once with random faults: `python -m benchmarks.gateway_soak [--requests N] [--streams N]`.

Every chunk contains its request's number, so the benchmark detects chunks that are lost, doubled, out of order or of
another request. Of ten requests, the upstream resets one, it breaks one inside a chunk, and the client leaves one.
Memory and file descriptors of the gateway are read before and after. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

import httptools

from benchmarks.gateway import Body, never_stops
from benchmarks.peers.running import process
from benchmarks.timing import write

CHUNKS: Final = 100
KINDS: Final = ("whole",) * 7 + ("reset", "half", "leave")
_CHUNK: Final = re.compile(r'"content":"(\d+):(\d+) "')


def main() -> int:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--upstream", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream:
        asyncio.run(_upstream())
        return 0
    result = soak(options.requests, options.streams)
    for name, value in result.items():
        print(f"{name:24} {value}")
    write("gateway_soak", result)
    return 0 if not result["wrong"] and int(str(result["descriptors_left"])) <= 0 else 1


def soak(requests: int, streams: int) -> dict[str, object]:
    """Send all requests through one gateway that follows every token."""
    with tempfile.TemporaryDirectory() as folder:
        calibration = Path(folder) / "calibration.json"
        calibration.write_text(never_stops().dumps())
        with process(["-m", "benchmarks.gateway_soak", "--upstream"]) as (upstream, _):
            serve = ["-m", "justenough", "serve", "--upstream", upstream, "--port", "0", "--audit-share", "0"]
            with process([*serve, "--calibration", str(calibration)]) as (url, pid):
                asyncio.run(_all(url, streams, streams))
                time.sleep(4)
                before = _memory_kib(pid), _descriptors(pid)
                begun = time.monotonic()
                outcomes, chunks = asyncio.run(_all(url, requests, streams))
                took = time.monotonic() - begun
                time.sleep(4)
                after = _memory_kib(pid), _descriptors(pid)
    return {
        "requests": requests,
        "streams": streams,
        "chunks": chunks,
        "seconds": round(took, 1),
        "outcomes": dict(outcomes),
        "wrong": outcomes["wrong"],
        "memory_kib_before": before[0],
        "memory_kib_after": after[0],
        "descriptors_left": after[1] - before[1],
    }


async def _all(url: str, requests: int, streams: int) -> tuple[Counter[str], int]:
    room = asyncio.Semaphore(streams)
    outcomes: Counter[str] = Counter()
    chunks = 0

    async def one(number: int) -> None:
        nonlocal chunks
        async with room:
            outcome, received = await _ask(url, number)
        outcomes[outcome] += 1
        chunks += received

    await asyncio.gather(*[one(number) for number in range(requests)])
    return outcomes, chunks


def kind_of(number: int) -> str:
    """The planned end of a request: spread irregularly, and the same in every run."""
    return KINDS[(number * 2654435761 >> 16) % len(KINDS)]


async def _ask(url: str, number: int) -> tuple[str, int]:
    """Send one request: its outcome (`wrong` if it does not fit the request's kind) and the received chunks."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = {"model": "bench", "messages": [{"role": "user", "content": str(number)}], "stream": True}
    body = json.dumps(request).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    collected = Body()
    parser = httptools.HttpResponseParser(collected)
    kind, text = kind_of(number), b""
    while data := await reader.read(1 << 16):
        parser.feed_data(data)
        text += collected.take()
        if kind == "leave" and text.count(b"\n\n") > CHUNKS // 2:
            break
    writer.close()
    numbers = [(int(one), int(at)) for one, at in _CHUNK.findall(text.decode())]
    right = numbers == [(number, at) for at in range(len(numbers))]
    ended, failed = text.endswith(b"data: [DONE]\n\n"), b'"code":"upstream_' in text
    whole = len(numbers) == CHUNKS and ended and not failed
    expected = {"whole": whole, "leave": not failed}.get(kind, failed and not ended and len(numbers) <= CHUNKS // 2)
    return (kind if right and expected else "wrong"), len(numbers)


async def _upstream() -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1024)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", file=sys.stderr, flush=True)
    async with server:
        await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            size = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(size[1])) if size else b""
            if b"/chat/completions" not in head or b"Say OK." in body:
                models = b'{"object":"list","data":[{"id":"bench"}]}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(models), models))
                continue
            await _say(writer, int(json.loads(body)["messages"][0]["content"]))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _say(writer: asyncio.StreamWriter, number: int) -> None:
    kind = kind_of(number)
    top = [{"token": f"t{at}", "logprob": -0.5 - at} for at in range(20)]

    def event(text: str, finish: str | None = None) -> bytes:
        entry = {"token": text, "logprob": -0.5, "top_logprobs": top}
        row = {"index": 0, "delta": {"content": text}, "finish_reason": finish, "logprobs": {"content": [entry]}}
        data = json.dumps({"id": f"chatcmpl-{number}", "choices": [row]}, separators=(",", ":"))
        return f"data: {data}\n\n".encode()

    def framed(data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data)

    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    writer.write(framed(event("<think>")))
    for at in range(CHUNKS):
        if at == CHUNKS // 2 and kind in ("reset", "half"):
            if kind == "half":
                writer.write(framed(event("lost")[:40]))
                await writer.drain()
            raise ConnectionResetError
        writer.write(framed(event(f"{number}:{at} ")))
        if at % 10 == 9:
            await writer.drain()
            await asyncio.sleep(0.01)
    writer.write(framed(event("", "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


def _memory_kib(pid: int) -> int:
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) if match else 0


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


if __name__ == "__main__":
    sys.exit(main())
