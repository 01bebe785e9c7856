"""Answers chats like llama.cpp or vLLM, paced or as fast as it can: `python -m benchmarks.peers.upstream [vllm]`."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from benchmarks.peers.running import listening

ChunkOf = Callable[[str, int, str], str]
"""Writes a chunk: its text, the tokens so far, and the finish reason as JSON."""
SHORT: Final = (",", ":")


def _alike(*, ids: bool) -> str:
    """The members after `token` of an entry with log-probabilities."""
    tops = [{"token": f"t{at}", "logprob": -0.5 - at, "bytes": [116, 48 + at % 10]} for at in range(20)]
    top = [{"id": at, **one} if ids else one for at, one in enumerate(tops)]
    return json.dumps({"logprob": -0.5, "bytes": [116, 48], "top_logprobs": top}, separators=SHORT)[1:]


ALIKE_OF_LLAMA: Final = _alike(ids=True)
ALIKE_OF_VLLM: Final = _alike(ids=False)


async def serve(*, vllm: bool) -> None:
    """Answer each chat with the number and pace of tokens in its message, and with log-probabilities on request."""
    with listening() as listener:
        server = await asyncio.start_server(partial(_answer, vllm), sock=listener, backlog=2048)
        async with server:
            await server.serve_forever()


async def _answer(vllm: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            size = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(size[1])) if size else b""
            if b"/chat/completions" in head and b"Say OK." not in body:
                request = json.loads(body)
                await _stream(writer, request, (like_vllm if vllm else like_llama)(request))
            else:
                side = _side(body, vllm=vllm)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(side), side))
            if b"connection: close" in head.lower():
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _whole(writer: asyncio.StreamWriter, count: int, interval: float) -> None:
    """The same answer in one piece, for gateways that do not stream."""
    text = "<think>"
    for _ in range(count):
        if interval:
            await asyncio.sleep(interval)
        text += f"{time.monotonic_ns()} "
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1}
    whole = {"id": "x", "object": "chat.completion", "created": 1, "model": "bench", "choices": [choice]}
    data = json.dumps({**whole, "usage": usage}).encode()
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data)
    )
    await writer.drain()


def _side(body: bytes, *, vllm: bool) -> bytes:
    """The answer to any of the gateway's own questions.

    For vLLM it has its version, and a prompt that is shorter where a turn is open. For llama.cpp it has its settings, a
    prompt, and the text of the turn that is continued.
    """
    prompt = 5 if b'"continue_final_message":true' in body else 7
    text = "."
    own: dict[str, object] = {"version": "0.32.0"}
    if not vllm:
        text = json.loads(body)["messages"][-1]["content"] + "K" if b'"assistant"' in body else "."
        own = {"default_generation_settings": {"params": {}}, "prompt": "<|im_start|>assistant\n"}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "length"}
    usage = {"prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1}
    return json.dumps({**own, "data": [{"id": "bench"}], "choices": [choice], "usage": usage}).encode()


def like_llama(request: dict[str, Any]) -> ChunkOf:
    """Writes chunks like llama.cpp."""
    tail = '"created":1,"id":"chatcmpl-benchmarkbenchmark","model":"bench","object":"chat.completion.chunk"'
    alike = ALIKE_OF_LLAMA if request.get("logprobs") else ""

    def chunk(text: str, number: int, finish: str) -> str:
        row = f'"finish_reason":{finish},"index":0,"delta":{{"content":"{text}"}}'
        logprobs = f',"logprobs":{{"content":[{{"id":0,"token":"{text}",{alike}]}}' if alike and text else ""
        return f'{{"choices":[{{{row}{logprobs}}}],{tail}}}'

    return chunk


def like_vllm(request: dict[str, Any]) -> ChunkOf:
    """Writes chunks like vLLM, with the token counts so far."""
    head = '"id":"chatcmpl-benchmarkbenchmark","object":"chat.completion.chunk","created":1,"model":"bench"'
    alike = ALIKE_OF_VLLM if request.get("logprobs") else ""
    counts = (request.get("stream_options") or {}).get("continuous_usage_stats")

    def chunk(text: str, number: int, finish: str) -> str:
        logprobs = f'{{"content":[{{"token":"{text}",{alike}]}}' if alike and text else "null"
        row = (
            f'"index":0,"delta":{{"content":"{text}"}},"logprobs":{logprobs},"finish_reason":{finish},"token_ids":null'
        )
        usage = f'"prompt_tokens":9,"total_tokens":{9 + number},"completion_tokens":{number}'
        usage = f',"usage":{{{usage},"completion_tokens_details":null}}' if counts else ""
        return f'{{{head},"choices":[{{{row}}}]{usage}}}'

    return chunk


async def _stream(writer: asyncio.StreamWriter, request: dict[str, Any], chunk_of: ChunkOf) -> None:
    count, interval = request["messages"][0]["content"].split()
    if not request.get("stream"):
        await _whole(writer, int(count), float(interval))
        return
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    def event(text: str, number: int, finish: str = "null", *, end: str = "") -> bytes:
        data = f"data: {chunk_of(text, number, finish)}\n\n{end}".encode()
        return b"%x\r\n%b\r\n" % (len(data), data)

    writer.write(event("<think>", 1))
    for number in range(int(count)):
        if float(interval):
            await asyncio.sleep(float(interval))
        writer.write(event(f"{time.monotonic_ns()} ", number + 2))
        if number % 8 == 7 or float(interval):
            await writer.drain()
    writer.write(event("", int(count) + 1, '"stop"', end="data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


if __name__ == "__main__":
    asyncio.run(serve(vllm=sys.argv[1:] == ["vllm"]))
