"""`MockUpstream`: a server with scripted answers, a count of generated tokens, and faults.

It has the APIs of OpenAI (chats, texts, Responses), Anthropic (Messages) and Ollama (`/api/chat`, `/api/generate`).

```python
async with MockUpstream(thought=["a\\n\\n", "b\\n\\n"], answer=["42"]) as upstream:
    gateway = build_app(GatewaySettings(upstream=upstream.url))
    ...
    assert upstream.generated == 3      # tokens that were generated, including tokens that nobody read
    assert upstream.cancelled == 1      # streams whose client disconnected before the end
```

No option of a real server resets a connection inside the headers; this server can do it (`Fault`). It uses HTTP/1.1 on
a real socket, so that a client sees the effects of a broken network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from justenough.signal.thought import ThoughtFormat
from justenough.testing.apis import APIS
from justenough.testing.chunks import Fault, Voice
from justenough.testing.completions import Completions
from justenough.testing.connection import Broken, Received
from justenough.testing.validation import PATHS, complaint
from justenough.trace import Json


@dataclass(slots=True, kw_only=True)
class MockUpstream(Voice):
    """The server, an async context manager. All fields have harmless defaults."""

    thought: Sequence[str] = ("Let me think.\n\n", "So it is 42.\n\n", "Yes, 42.\n\n")
    answer: Sequence[str] = ("The answer", " is", " 42", ".")
    prefill: bool = True
    """Whether a chat may end with the message of an assistant; otherwise that is an error."""
    tokens_per_event: int = 1
    """Tokens in one event; vLLM under load sends several."""
    interval_s: float = 0.0
    fault: Fault = Fault.NONE
    fault_at: int = 2
    """The token where a fault in a stream happens; an answer in one piece fails in its middle."""
    fault_from: int = 1
    """The first completion with the fault, from 1: with 2, the first completion succeeds."""
    metrics: bool = False
    """Whether `/metrics` gives the number of generated tokens, in the form of the engine."""
    key: str | None = None
    """The key that clients must send; None: no key. llama.cpp lists its models without a key."""
    loading: bool = False
    """Whether the server is still loading its model and answers 503 to every request."""
    root: str = "/v1"
    """Path of the protocol's own paths."""
    requests_per_connection: int | None = None
    """Requests that one connection serves; at the next one it is closed without an answer, like an idle connection."""
    limits_kept: bool = True
    """Whether an answer ends at the `max_tokens` of the request."""
    context: int | None = None
    """Context length of the model; it is listed with the model, and a larger `max_tokens` is an error, as in vLLM."""
    decisions: Json = None
    """What vLLM's plugin answers for any request; None: there is no plugin."""
    stores: bool = False
    """Whether the answers of `/v1/responses` are stored, as vLLM does where its operator allows it."""
    on_request: Callable[[Received], None] | None = None
    before_token: Callable[[], Awaitable[object]] | None = None
    """Awaited before each token of a completion, but not of the gateway's probe; so a test can hold a stream."""

    requests: list[Received] = field(default_factory=list)
    """All requests so far, including those of the gateway's probe."""
    generated: int = 0
    """Completion tokens that were generated, whether a client read them or not."""
    cancelled: int = 0
    """Streams whose client disconnected before the end."""
    connections: int = 0
    under_way: int = 0
    """Requests that have no complete answer yet."""
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
        """The requests of all APIs for a completion, without those of the gateway's probe."""
        paths = ("completions", *APIS)
        requests = [request for request in self.requests if request.target.split("?")[0].endswith(paths)]
        probes = (b"Say OK.", b"resp_justenough")
        return [request for request in requests if not any(probe in request.body for probe in probes)]

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_Connection(self, reader, writer).serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Connection(Completions):
    """The connection of one client."""

    async def serve(self) -> None:
        self.mock.connections += 1
        served = 0
        try:
            while (request := await self.request()) is not None:
                if served == self.mock.requests_per_connection:
                    self.reset()
                served += 1
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
        if self.mock.root != "/v1":
            path = path.replace(self.mock.root, "/v1", 1) if path.startswith(f"{self.mock.root}/") else "/unknown"
        self.path = path
        public = self.mock.key is None or (path == "/v1/models" and self.mock.engine == "llama.cpp")
        if self.mock.loading:
            await self.error(503, "Loading model", kind="unavailable_error")
        elif not public and request.headers.get("authorization") != f"Bearer {self.mock.key}":
            await self.error(401, "Invalid API Key", kind="authentication_error")
        elif path in PATHS:
            if request.method != "POST":
                await self.error(405, "Method Not Allowed", kind="invalid_request_error", headers={"allow": "POST"})
            elif (wrong := complaint(path, request.body)) is not None:
                await self.error(400, wrong, kind="invalid_request_error")
            else:
                await self.complete(request)
        elif path == "/v1/models":
            model: dict[str, Json] = {"id": self.mock.model, "object": "model"}
            if self.mock.context is not None:
                model["max_model_len"] = self.mock.context
            await self.whole(200, {"object": "list", "data": [model]})
        elif (path == "/api/version" and self.mock.engine == "ollama") or (
            path == "/version" and self.mock.engine == "vllm"
        ):
            await self.whole(200, {"version": "0.0.0+mock"})
        elif path == "/props" and self.mock.engine == "llama.cpp":
            await self.whole(200, {"default_generation_settings": {"params": {"temperature": 0.8}}})
        elif path == "/apply-template" and self.mock.engine == "llama.cpp":
            await self.whole(200, {"prompt": _templated(request, self.mock.format)})
        elif path == "/tokenize" and self.mock.engine == "vllm":
            await self.whole(200, {"tokens": [ord(character) for character in _templated(request, self.mock.format)]})
        elif path == "/detokenize" and self.mock.engine == "vllm":
            tokens = cast("list[int]", request.json()["tokens"])
            await self.whole(200, {"prompt": "".join([chr(token) for token in tokens])})
        elif path.startswith("/justenough/decisions/") and self.mock.decisions is not None:
            await self.whole(200, self.mock.decisions)
        elif path == "/metrics" and self.mock.metrics:
            names = {"llama.cpp": "llamacpp:tokens_predicted_total", "vllm": 'vllm:generation_tokens_total{engine="0"}'}
            name = names.get(self.mock.engine, "tokens_total")
            await self.whole(200, f"# TYPE tokens counter\n{name} {float(self.mock.generated)}\n")
        elif path.startswith("/echo"):
            # The request itself, so that a test can see what arrived.
            echo: dict[str, Json] = {"method": request.method, "target": request.target}
            echo |= {"headers": dict(request.headers), "body": request.body.decode("latin-1")}
            await self.whole(201, echo, {"x-mock": "1", "x-mock-list": "a, b"})
        else:
            await self.error(404, "File Not Found", kind="not_found_error")


def _templated(request: Received, format: ThoughtFormat) -> str:
    """The prompt of a chat after the chat template, with the thoughts of earlier answers."""
    parts: list[str] = []
    for message in cast("list[dict[str, str]]", request.json()["messages"]):
        thought = message.get("reasoning_content")
        tagged = f"{format.open}{thought}{format.close}" if thought else ""
        parts.append(f"<|{message['role']}|>{tagged}{message['content']}")
    return "".join(parts) + f"<|assistant|>{format.open if format.opened else ''}"
