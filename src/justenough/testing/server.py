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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from justenough.testing.asked import PATHS, complaint
from justenough.testing.chunks import CONFIDENT, Engine, Fault, Voice
from justenough.testing.completions import Completions
from justenough.testing.connection import Broken, Received
from justenough.trace import Json


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
    key: str | None = None
    """What clients must show; None: nothing. llama.cpp tells its models to anyone."""
    loading: bool = False
    """Whether it is still loading its model, and answers 503 to everything."""
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


class _Connection(Completions):
    """One client."""

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
        public = self.mock.key is None or (path == "/v1/models" and self.mock.engine == "llama.cpp")
        if self.mock.loading:
            await self.whole(503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}})
        elif not public and request.headers.get("authorization") != f"Bearer {self.mock.key}":
            await self.whole(
                401, {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}}
            )
        elif path in PATHS:
            if request.method != "POST":
                await self.whole(405, {"error": {"message": "Method Not Allowed", "code": 405}}, {"allow": "POST"})
            elif (wrong := complaint(path, request.body)) is not None:
                await self.whole(400, {"error": {"message": wrong, "type": "invalid_request_error", "code": 400}})
            else:
                await self.complete(request, chat=path.endswith("chat/completions"))
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


def _templated(request: Received) -> str:
    """The prompt of a chat."""
    messages = cast("list[dict[str, str]]", request.json()["messages"])
    return "".join([f"<|{message['role']}|>{message['content']}" for message in messages]) + "<|assistant|>"
