"""`MockUpstream`: an OpenAI-compatible server that says what it is told, counts what it generates, and breaks to order.

```python
async with MockUpstream(thought=["a\\n\\n", "b\\n\\n"], answer=["42"]) as upstream:
    gateway = build_app(GatewaySettings(upstream=upstream.url))
    ...
    assert upstream.generated == 3      # tokens really produced, those thrown away included
    assert upstream.cancelled == 1      # streams whose client went away before their end
```

Real servers cannot be asked to reset a connection within their headers; this one can (`Fault`). It speaks HTTP/1.1 on a
real socket, so that what a client sees is what a broken network does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from justenough.gateway.mock.asked import PATHS, complaint
from justenough.gateway.mock.chunks import CONFIDENT, Chunks, Engine, Fault, Voice
from justenough.gateway.mock.connection import Broken, Received, Wire, framed
from justenough.trace import Json

_HUGE: Final = 10 * 1024 * 1024
_IN_STREAM: Final = (Fault.RESET_IN_STREAM, Fault.HALF_CHUNK, Fault.END_IN_STREAM, Fault.STALL_IN_STREAM)
"""Faults that end an answer, in one piece too."""


@dataclass(slots=True, kw_only=True)
class MockUpstream:
    """The server; an async context manager. Whatever is not said has a harmless default."""

    thought: Sequence[str] = ("Let me think.\n\n", "So it is 42.\n\n", "Yes, 42.\n\n")
    """Tokens of the thought."""
    answer: Sequence[str] = ("The answer", " is", " 42", ".")
    logprobs: Sequence[Sequence[float]] = (CONFIDENT,)
    """Natural log-probabilities of each token; the last stands for all that follow."""
    reasoning_field: str | None = None
    """`reasoning_content` or `reasoning`: where the thought goes; None: into the text, between tags."""
    logprobs_apart: bool = False
    """Whether a chat's log-probabilities of the thought stand in `logprobs.reasoning_content`, as DeepSeek's do."""
    engine: Engine = "vllm"
    prefill: bool = True
    """Whether a chat may end with an assistant's message; otherwise that is an error."""
    tokens_per_event: int = 1
    """How many tokens come in one event, as a busy vLLM sends them."""
    interval_s: float = 0.0
    """Between two tokens."""
    fault: Fault = Fault.NONE
    fault_at: int = 2
    """Token at which a fault within the stream comes; an answer in one piece breaks in its middle."""
    fault_from: int = 1
    """Completion, from 1, from which on there is a fault: 2 spares the first."""
    model: str = "mock"
    metrics: bool = False
    """Whether `/metrics` tells how many tokens were generated, as its engine would."""
    answer_id: str = "mock-1"
    limits_kept: bool = True
    """Whether it ends at the request's `max_tokens`."""
    context: int | None = None
    """Tokens that its model holds: told with the model, and a larger `max_tokens` is an error, as vLLM's is."""
    on_request: Callable[[Received], None] | None = None

    requests: list[Received] = field(default_factory=list)
    """All requests so far, those of the gateway's probe among them."""
    generated: int = 0
    """Completion tokens produced, whether anyone read them or not."""
    cancelled: int = 0
    """Streams whose client went away before their end."""
    connections: int = 0
    """Open now."""
    under_way: int = 0
    """Requests that are being answered."""
    url: str = ""
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> MockUpstream:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=64 * 1024 * 1024)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def completions(self) -> list[Received]:
        """The requests for completions, without those of the gateway's probe."""
        asked = [request for request in self.requests if request.target.split("?")[0].endswith("completions")]
        return [request for request in asked if b"Say OK." not in request.body]

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_Connection(self, reader, writer).serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def voice(self) -> Voice:
        """How its answers look."""
        return Voice(
            id=self.answer_id,
            model=self.model,
            engine=self.engine,
            reasoning_field=self.reasoning_field,
            logprobs=self.logprobs,
            logprobs_apart=self.logprobs_apart,
        )


class _Connection(Wire):
    """One client."""

    def __init__(self, mock: MockUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.mock = mock

    async def serve(self) -> None:
        self.mock.connections += 1
        try:
            while (request := await self.request()) is not None:
                self.mock.requests.append(request)
                if self.mock.on_request is not None:
                    self.mock.on_request(request)
                self.mock.under_way += 1
                try:
                    await self._answer(request)
                finally:
                    self.mock.under_way -= 1
        except (Broken, ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.mock.connections -= 1
            self.writer.close()

    async def _answer(self, request: Received) -> None:
        path = request.target.split("?")[0]
        if path in PATHS:
            if request.method != "POST":
                await self.whole(405, {"error": {"message": "Method Not Allowed", "code": 405}}, {"allow": "POST"})
            elif (wrong := complaint(path, request.body)) is not None:
                await self.whole(400, {"error": {"message": wrong, "type": "invalid_request_error", "code": 400}})
            else:
                await self._complete(request, chat=path.endswith("chat/completions"))
        elif path == "/v1/models":
            model: dict[str, Json] = {"id": self.mock.model, "object": "model"}
            if self.mock.context is not None:
                model["max_model_len"] = self.mock.context
            await self.whole(200, {"object": "list", "data": [model]})
        elif path == "/version" and self.mock.engine == "vllm":
            await self.whole(200, {"version": "0.0.0+mock"})
        elif path == "/props" and self.mock.engine == "llama.cpp":
            await self.whole(200, {"default_generation_settings": {"params": {"temperature": 0.8}}})
        elif path == "/apply-template" and self.mock.engine == "llama.cpp":
            await self.whole(200, {"prompt": _templated(request)})
        elif path == "/tokenize" and self.mock.engine == "vllm":
            await self.whole(200, {"tokens": [ord(character) for character in _templated(request)]})
        elif path == "/detokenize" and self.mock.engine == "vllm":
            tokens = cast("list[int]", request.json()["tokens"])
            await self.whole(200, {"prompt": "".join([chr(token) for token in tokens])})
        elif path == "/metrics" and self.mock.metrics:
            names = {"llama.cpp": "llamacpp:tokens_predicted_total", "vllm": 'vllm:generation_tokens_total{engine="0"}'}
            name = names.get(self.mock.engine, "tokens_total")
            await self.text(f"# TYPE tokens counter\n{name} {float(self.mock.generated)}\n")
        elif path.startswith("/echo"):
            await self._echo(request)
        else:
            await self.whole(404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}})

    async def _echo(self, request: Received) -> None:
        """The request itself, so that a test can see what went through."""
        body: dict[str, Json] = {
            "method": request.method,
            "target": request.target,
            "headers": dict(request.headers),
            "body": request.body.decode("latin-1"),
        }
        await self.whole(201, body, {"x-mock": "1", "x-mock-list": "a, b"})

    async def _complete(self, request: Received, *, chat: bool) -> None:
        body = request.json()
        probing = b"Say OK." in request.body
        fault = Fault.NONE if probing or len(self.mock.completions) < self.mock.fault_from else self.mock.fault
        if await self._fails_early(fault):
            return
        messages = cast("list[dict[str, Json]]", body.get("messages") or [{}])
        if not self.mock.prefill and messages[-1].get("role") == "assistant":
            await self.whole(400, {"error": {"message": "an assistant's message cannot be continued"}})
            return
        continued = self._continued(body, chat=chat)
        if fault is Fault.CONTINUATION_FAILS and continued:
            await self.whole(500, {"error": {"message": "cannot continue"}})
            return
        wants = body.get("logprobs") not in (None, False)
        if fault is Fault.REFUSE_LOGPROBS and wants:
            await self.whole(400, {"error": {"message": "logprobs are not supported with this model", "code": None}})
            return
        tokens = self._tokens(body, continued=continued)
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        if self.mock.context is not None and isinstance(limit, int) and limit > self.mock.context:
            told = f"max_tokens={limit} cannot be greater than max_model_len={self.mock.context}"
            await self.whole(400, {"error": {"message": told, "type": "BadRequestError", "code": 400}})
            return
        finish = "stop"
        if isinstance(limit, int | float) and 0 < limit < len(tokens) and self.mock.limits_kept:
            tokens, finish = tokens[: int(limit)], "length"
        maker = Chunks(self.mock.voice, body, chat=chat, fault=fault)
        if body.get("stream") is True:
            await self._stream(tokens, maker, fault, finish=finish, continued=continued)
        else:
            await self._in_one_piece(tokens, maker.whole(tokens, finish, echo=self._echoed(body)), fault)

    def _continued(self, body: dict[str, Json], *, chat: bool) -> bool:
        if not chat:
            return "<think>" in cast("str", body.get("prompt") or "")
        messages = cast("list[dict[str, Json]]", body.get("messages") or [{}])
        last = messages[-1].get("role") == "assistant"
        return last and (self.mock.engine == "llama.cpp" or body.get("continue_final_message") is True)

    def _echoed(self, body: dict[str, Json]) -> str:
        """llama.cpp repeats the assistant's message that it continues."""
        messages = cast("list[dict[str, Json]]", body.get("messages") or [{}])
        last = messages[-1]
        is_echoed = self.mock.engine == "llama.cpp" and last.get("role") == "assistant"
        return str(last.get("content")) if is_echoed else ""

    def _tokens(self, body: dict[str, Json], *, continued: bool) -> list[tuple[str, bool]]:
        """Text of each token, and whether it is thought."""
        answer = [(text, False) for text in self.mock.answer]
        thought = [(text, True) for text in self.mock.thought]
        if continued:
            messages = cast("list[dict[str, Json]]", body.get("messages") or [{}])
            said = str(body.get("prompt") or messages[-1].get("content"))
            if "</think>" in said or "<think>" not in said:
                return answer
            # The thought is still open, and goes on where it stood.
            return [*[(text, False) for text, _ in thought], ("</think>", False), *answer]
        if self.mock.reasoning_field is not None or not thought:
            return [*thought, *answer]
        return [("<think>", False), *[(text, False) for text, _ in thought], ("</think>", False), *answer]

    async def _fails_early(self, fault: Fault) -> bool:
        if fault is Fault.RESET_BEFORE_HEADERS:
            self.reset()
        if fault is Fault.RESET_IN_HEADERS:
            await self.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/ev")
            self.reset()
        if fault is Fault.STALL_BEFORE_HEADERS:
            await self.stall()
        if fault is Fault.TOO_MANY_REQUESTS:
            await self.whole(429, {"error": {"message": "slow down", "type": "rate_limit"}}, {"retry-after": "7"})
            return True
        if fault is Fault.SERVER_ERROR:
            await self.whole(500, {"error": {"message": "out of memory", "type": "server_error"}})
            return True
        if fault is Fault.REDIRECT:
            await self.whole(307, dict[str, Json](), {"location": "http://127.0.0.1:1/v1/chat/completions"})
            return True
        return False

    async def _pause(self) -> None:
        """Between two tokens; ends where the client has gone."""
        if self.mock.interval_s:
            await asyncio.sleep(self.mock.interval_s)
        elif self.mock.generated % 16 == 15:
            await asyncio.sleep(0)
        if self.reader.at_eof():
            raise Broken

    async def _in_one_piece(self, tokens: list[tuple[str, bool]], value: dict[str, Json], fault: Fault) -> None:
        kind = "text/html" if fault is Fault.WRONG_CONTENT_TYPE else "application/json"
        if fault is Fault.HUGE_CHUNK:
            value["huge"] = "x" * _HUGE
        body = json.dumps(value).encode()
        body = {Fault.INVALID_UTF8: b'{"choices":[],"text":"\xff\xfe"}', Fault.INVALID_JSON: b"{nothing}"}.get(
            fault, body
        )
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nX-Mock: 1\r\n"
        done = False
        try:
            for _ in tokens:
                await self._pause()
                self.mock.generated += 1
            if fault is Fault.ENDLESS:
                await self.write(f"{head}\r\n".encode())
                while True:
                    await self.write(b" " * 1024)
                    await self._pause()
                    await asyncio.sleep(0)
            await self.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
            if fault is Fault.RESET_AFTER_HEADERS:
                self.reset()
            if fault in _IN_STREAM:
                await self.write(body[: len(body) // 2])
                await self._fail_in_stream(fault, continued=False)
            await self.write(body)
            done = True
        finally:
            if not done:
                self.mock.cancelled += 1

    async def _stream(
        self, tokens: list[tuple[str, bool]], maker: Chunks, fault: Fault, *, finish: str, continued: bool
    ) -> None:
        kind = "text/html" if fault is Fault.WRONG_CONTENT_TYPE else "text/event-stream; charset=utf-8"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\nX-Mock: 1\r\n\r\n"
        await self.write(head.encode())
        if fault is Fault.RESET_AFTER_HEADERS:
            self.reset()
        done = False
        try:
            if maker.chat:
                await self.event(maker.role())
            number, held = 0, list[tuple[str, int, bool]]()
            while number < len(tokens) or fault is Fault.ENDLESS:
                if number == self.mock.fault_at or (fault is Fault.CONTINUATION_BREAKS and continued):
                    await self._fail_in_stream(fault, continued=continued)
                text, thought = tokens[number % len(tokens)]
                await self._pause()
                self.mock.generated += 1
                held.append((text, number, thought))
                number += 1
                if len(held) >= self.mock.tokens_per_event or number == len(tokens):
                    await self.event(maker.tokens(held))
                    held = []
            await self.event(maker.last(finish))
            if maker.include_usage:
                await self.event(maker.usage(number))
            await self.write(framed(b"data: [DONE]\n\n") + b"0\r\n\r\n")
            done = True
        finally:
            if not done:
                self.mock.cancelled += 1

    async def _fail_in_stream(self, fault: Fault, *, continued: bool) -> None:
        if fault is Fault.RESET_IN_STREAM or (fault is Fault.CONTINUATION_BREAKS and continued):
            self.reset()
        if fault is Fault.END_IN_STREAM:
            await self.write(b"0\r\n\r\n")
            raise Broken
        if fault is Fault.STALL_IN_STREAM:
            await self.stall()
        if fault is Fault.HALF_CHUNK:
            await self.write(framed(b'data: {"id":"mock-1","choices":[{"index":0,"del'))
            self.reset()
        broken = {
            Fault.INVALID_UTF8: b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n',
            Fault.INVALID_JSON: b"data: {nothing}\n\n",
            Fault.NOT_A_CHUNK: b'data: {"choices":[{"index":0,"delta":{"content":17}}]}\n\n',
            Fault.ERROR_EVENT: b'data: {"error":{"message":"out of memory","type":"server_error","code":500}}\n\n',
        }
        if fault in broken:
            await self.write(framed(broken[fault]))
        if fault is Fault.HUGE_CHUNK:
            text = json.dumps({"choices": [{"index": 0, "delta": {"content": "x" * _HUGE}, "finish_reason": None}]})
            await self.write(framed(b"data: " + text.encode() + b"\n\n"))


def _templated(request: Received) -> str:
    """The prompt of a chat."""
    messages = cast("list[dict[str, str]]", request.json()["messages"])
    return "".join([f"<|{message['role']}|>{message['content']}" for message in messages]) + "<|assistant|>"
