"""An upstream without sockets that damages its answers at random, for `benchmarks.gateway_fuzz`."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Final, cast

import aiohttp
from multidict import CIMultiDict

from benchmarks import mutation
from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.client import Body, Upstream
from justenough.testing.chunks import CONFIDENT, UNSURE, Chunks, Engine, Fault, Voice
from justenough.trace import Json

Rows = tuple[tuple[dict[str, Json], str], ...]
_THOUGHT: Final = ("Let me think", ".\n\n", "So it is", " 42.\n\n", "Yes", ", 42.\n\n")
_END: Final = re.compile(rb"(?<=\n\n)")
_ANSWER: Final = ("The answer", " is 42.")


@dataclass(frozen=True, slots=True)
class Content:
    """The body of an answer in pieces; with `broken` the connection breaks at its end."""

    pieces: list[bytes]
    broken: bool
    read: list[bytes] = field(default_factory=list)
    """The pieces that were read."""
    total_compressed_bytes: int | None = None

    async def readany(self) -> bytes:
        """The next piece; empty at the end."""
        while len(self.read) < len(self.pieces):
            self.read.append(self.pieces[len(self.read)])
            if self.read[-1]:
                return self.read[-1]
        if self.broken:
            raise Refused(502, "the upstream broke off its answer", code="upstream_broken", kind="upstream_error")
        return b""

    async def iter_any(self) -> AsyncIterator[bytes]:
        """The pieces that are still to be read."""
        while piece := await self.readany():
            yield piece


@dataclass(frozen=True, slots=True)
class Answer:
    """The part of an aiohttp response that the gateway uses."""

    status: int
    kind: str
    content: Content

    @property
    def headers(self) -> CIMultiDict[str]:
        """The headers by name."""
        return CIMultiDict({"content-type": self.kind})

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers as bytes."""
        return ((b"Content-Type", self.kind.encode()), (b"X-Request-Id", b"1"))

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self.content.iter_any()])


class Scripted(Upstream):
    """An upstream without a socket."""

    def __init__(self, settings: GatewaySettings) -> None:
        super().__init__(settings)
        self.rng = Random(0)
        self.wrong = ""
        """The damaged part of the present input."""
        self.engine: Engine = "vllm"
        self.continues = True
        """Whether a chat may end with an assistant's message; otherwise prompts are rendered and continued as text."""
        self.sent: list[Answer] = []
        """The answers to completions."""

    @asynccontextmanager
    async def open(
        self,
        method: str,
        target: str,
        *,
        headers: RawHeaders,
        body: Body = None,
        length: str | None = None,
        decode: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The scripted answer."""
        self.open_requests += 1
        try:
            data = body if isinstance(body, bytes) else b""
            if self.wrong != "probe" and self.rng.random() < 0.01:
                raise Refused(502, "the upstream is not reachable", code="upstream_unreachable", kind="upstream_error")
            answer = self._generated(target, data) if _generates(target, data) else self._described(target, data)
            yield cast("aiohttp.ClientResponse", answer)
        finally:
            self.open_requests -= 1

    def _described(self, target: str, data: bytes) -> Answer:
        """The answers about the server itself, and the answers to the gateway's probe."""
        reply: Json = {"error": {"message": "File Not Found"}}
        status = 404
        if target == "/v1/models":
            status, reply = 200, {"object": "list", "data": [{"id": "bench"}]}
        elif target == "/version" and self.engine == "vllm":
            status, reply = 200, {"version": "1"}
        elif target == "/props" and self.engine == "llama.cpp":
            status, reply = 200, {"default_generation_settings": {"params": {"temperature": 0.8}}}
        elif target == "/apply-template" and self.engine == "llama.cpp":
            status, reply = 200, {"prompt": "<|user|>What is 6*7?<|assistant|>"}
        elif target == "/tokenize" and self.engine == "vllm":
            status, reply = 200, {"tokens": [1, 2, 3]}
        elif target == "/detokenize" and self.engine == "vllm":
            status, reply = 200, {"prompt": "<|user|>What is 6*7?<|assistant|>"}
        elif b"Say OK." in data and not self.continues:
            status, reply = 400, {"error": {"message": "the last message must be from user"}}
        elif b"Say OK." in data:
            echo = "<think>\nYes.\n</think>\n\nO" if self.engine == "llama.cpp" else ""
            size = 9 if b'"continue_final_message":true' in data else 11
            message: Json = {"role": "assistant", "content": f"{echo}K"}
            usage: Json = {"prompt_tokens": size, "completion_tokens": 1}
            status, reply = 200, {"choices": [{"index": 0, "message": message}], "usage": usage}
        if self.wrong == "probe":
            status = self.rng.choice((status, status, 200, 204, 401, 500))
            return self._answer(status, mutation.body(self.rng, [cast("dict[str, Json]", reply)]))
        return self._answer(status, json.dumps(reply).encode())

    def _generated(self, target: str, data: bytes) -> Answer:
        rng = self.rng
        if self.wrong == "answer":
            reply: dict[str, Json] = {"error": {"message": "logprobs are not supported", "code": 400}}
            other: dict[str, Json] = {"id": "x", "choices": [{"index": 0, "message": {"content": "42"}}]}
            reply = rng.choice((reply, other))
            kind = rng.choice(("application/json", "application/json", "text/html", "text/event-stream", ""))
            answer = self._answer(rng.choice((200, 201, 307, 400, 422, 429, 500)), mutation.body(rng, [reply]), kind)
        else:
            rows = self._rows(chat="chat" in target, continued=b"</think>" in data)
            if self.wrong in ("stream", "both"):
                stream = mutation.events(rng, rows)
            else:
                stream = "".join([f"data: {text}\n\n" for _, text in rows]).encode() + b"data: [DONE]\n\n"
            answer = self._answer(200, stream, "text/event-stream; charset=utf-8")
        self.sent.append(answer)
        return answer

    def _rows(self, *, chat: bool, continued: bool) -> Rows:
        rng = self.rng
        return stream_of(
            self.engine,
            chat,
            None
            if continued and rng.random() < 0.9
            else rng.choice(("tags", "tags", "reasoning_content", "reasoning")),
            rng.random() < 0.5,
            rng.choice((20, 20, 20, 20, 5, 0)),
            rng.random() < 0.7,
            rng.choice(("stop", "stop", "length")),
        )

    def _answer(self, status: int, data: bytes, kind: str = "application/json") -> Answer:
        broken = self.wrong not in ("request", "feedback") and self.rng.random() < 0.03
        pieces = mutation.split(self.rng, data)
        if kind.startswith("text/event-stream") and len(data) % 3 == 0:
            # Paced streams arrive one event at a time.
            pieces = [event for event in _END.split(data) if event]
        return Answer(status, kind, Content(pieces, broken))


_PROBE: Final = b'[{"role":"user","content":"Say OK."},{"role":"assistant","content":"<think>'
"""The beginning of the gateway's own probe; a client's request may contain the same words later."""


@cache
def stream_of(engine: Engine, chat: bool, thought: str | None, sure: bool, top: int, usage: bool, finish: str) -> Rows:
    """The chunks of an answer, each with its JSON text."""
    own = thought if thought not in (None, "tags") else None
    voice = Voice(model="bench", engine=engine, reasoning_field=own, logprobs=(CONFIDENT if sure else UNSURE,))
    request: dict[str, Json] = {"logprobs": top > 0 if chat else top or None, "top_logprobs": top}
    request["stream_options"] = {"include_usage": usage, "continuous_usage_stats": usage}
    maker = Chunks(voice, request, chat=chat, fault=Fault.NONE)
    texts = [(text, False) for text in _ANSWER]
    if thought is not None:
        texts = [*[(text, True) for text in _THOUGHT], *texts]
    if thought == "tags":
        texts = [("<think>", False), *texts[: len(_THOUGHT)], ("</think>", False), *texts[len(_THOUGHT) :]]
    chunks = [maker.tokens([(text, number, of_thought)]) for number, (text, of_thought) in enumerate(texts)]
    chunks = [*([maker.role()] if chat else []), *chunks, maker.last(finish), *([maker.usage(9)] if usage else [])]
    return tuple((chunk, json.dumps(chunk, separators=(",", ":"))) for chunk in chunks)


def _generates(target: str, data: bytes) -> bool:
    return target.endswith("completions") and _PROBE not in data
