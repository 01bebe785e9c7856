"""A server with any behaviour, and what a client sees of its answers with and without the gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, cast

import httpx

from justenough.gateway.settings import BudgetSettings, GatewaySettings
from justenough.gateway.upstream.capability import Capabilities
from justenough.testing import UNSURE
from justenough.testing.connection import Received, Wire
from tests.unit.gateway.serving import Running, calibration_of, running
from tests.unit.gateway.ways import settled

Body = dict[str, Any]
MODES: Final = ("off", "observe", "gate")
TEXTS: Final = ("<think>", "Let me", " think.\n\n", "So", " 42.\n\n", "</think>", "The answer", " is 42.")
USAGE: Final[dict[str, object]] = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
"""What the gateway adds for vLLM."""
PATHS: Final = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}


class Reply(NamedTuple):
    """An answer in one piece."""

    status: int
    """0: the server closes the connection instead."""
    kind: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def event(value: object) -> bytes:
    """One event."""
    return b"data: %b\n\n" % json.dumps(value, separators=(",", ":")).encode()


def chunks(texts: Sequence[str], body: Body, row: Sequence[float]) -> list[Body]:
    """The chunks of a stream with these tokens, as a careful server writes them."""
    out: list[Body] = []
    for number, text in enumerate(texts):
        part: Body = {"text": text} if "prompt" in body else {"delta": {"content": text}}
        if (logprobs := logprobs_of([text], body, row, offset=len("".join(texts[:number])))) is not None:
            part["logprobs"] = logprobs
        out.append(chunk({"index": 0, **part, "finish_reason": None}, body))
    end: Body = {"text": ""} if "prompt" in body else {"delta": {}}
    return [*out, chunk({"index": 0, **end, "finish_reason": "stop"}, body)]


def chunk(row: Body | None, body: Body) -> Body:
    """One chunk, or an answer in one piece, with this choice."""
    kind = "text_completion" if "prompt" in body else "chat.completion.chunk"
    return {"id": "c-1", "object": kind, "created": 1, "model": "m", "choices": [] if row is None else [row]}


def logprobs_of(texts: Sequence[str], body: Body, row: Sequence[float], *, offset: int = 0) -> Body | None:
    """Log-probabilities, if the request wants them."""
    if body.get("logprobs") is None or body["logprobs"] is False:
        return None
    if "prompt" not in body:
        tops = [[{"token": "x", "logprob": value} for value in row[: body.get("top_logprobs", 0)]] for _ in texts]
        return {
            "content": [
                {"token": t, "logprob": row[0], "top_logprobs": top} for t, top in zip(texts, tops, strict=True)
            ]
        }
    # The sampled token comes first and is not counted, as in vLLM.
    own = [{text: -20.0} | {f"x{at}": value for at, value in enumerate(row[: body["logprobs"]])} for text in texts]
    offsets = [offset + len("".join(texts[:at])) for at in range(len(texts))]
    return {"tokens": [*texts], "token_logprobs": [-20.0] * len(texts), "top_logprobs": own, "text_offset": offsets}


@dataclass(kw_only=True)
class Scripted:
    """What the server does; one token is one event."""

    texts: Sequence[str] = TEXTS
    rest: Sequence[str] = ("The answer", " is 42.")
    """The tokens after a thought that the request has closed."""
    row: Sequence[float] = UNSURE
    refuse: Callable[[Body], Reply | None] = lambda _: None
    hangs: Callable[[Received], bool] = lambda _: False
    """Which requests never get an answer."""
    write: Callable[[list[Body]], bytes] = lambda values: b"".join(map(event, values)) + b"data: [DONE]\n\n"
    byte_by_byte: bool = False
    deltas: Sequence[Body] = ()
    """Further deltas before the end."""
    message: Mapping[str, Any] = field(default_factory=dict)
    """Members of a message in one piece."""
    row_members: Body = field(default_factory=dict)
    members: Body = field(default_factory=dict)
    usage: Body | None = None
    requests: list[bytes] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)

    def answer(self, sent: Received) -> Reply:
        """The answer to a request."""
        body = sent.json()
        self.requests.append(sent.body)
        if (refusal := self.refuse(body)) is not None:
            return refusal
        if body.get("stream"):
            texts = self.rest if "</think>" in str(body.get("messages") or body["prompt"]) else self.texts
            values = chunks(texts, body, self.row)
            extra = [chunk({"index": 0, "delta": delta, "finish_reason": None}, body) for delta in self.deltas]
            values[-1:-1] = extra
            options = cast("Body", body.get("stream_options") or {})
            if self.usage is not None and options.get("include_usage"):
                values.append(chunk(None, body) | {"usage": self.usage})
            return Reply(200, "text/event-stream", self.write(values))
        return Reply(200, "application/json", json.dumps(self._whole(body)).encode())

    def _whole(self, body: Body) -> Body:
        text, row = "".join(self.texts), Body()
        if "prompt" in body:
            row["text"] = text
        else:
            row["message"] = {"role": "assistant", "content": text, **self.message}
        if (logprobs := logprobs_of(self.texts, body, self.row)) is not None:
            row["logprobs"] = logprobs
        out = chunk({"index": 0, **row, "finish_reason": "stop", **self.row_members}, body)
        usage: Body = {} if self.usage is None else {"usage": self.usage}
        return out | {"object": out["object"].removesuffix(".chunk")} | usage | self.members

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request on a connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            sent = await Wire(reader, writer).request()
            assert sent is not None
            if self.hangs(sent):
                self.hung.append(sent.target)
                await reader.read()
            reply = self.answer(sent)
            if not reply.status:
                writer.close()
                return
            fields = "".join(f"{name}: {value}\r\n" for name, value in reply.headers)
            head = f"HTTP/1.1 {reply.status} X\r\nContent-Type: {reply.kind}\r\n{fields}Connection: close\r\n\r\n"
            writer.write(head.encode())
            for at in range(0, len(reply.body), 1 if self.byte_by_byte else len(reply.body)):
                writer.write(reply.body[at : at + (1 if self.byte_by_byte else len(reply.body))])
                if self.byte_by_byte and at % 7 == 0:
                    await asyncio.sleep(0)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(upstream: Scripted) -> AsyncIterator[str]:
    """The server's address."""
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def settings_of(url: str, mode: str) -> GatewaySettings:
    """A gateway in a mode, before this server; `counted` is `off` under a token budget."""
    base = GatewaySettings(upstream=url, default_temperature=1.0, audit_share=0.0, close="</think>")
    if mode == "counted":
        return replace(base, mode="off", budget=BudgetSettings(tokens=1_000_000))
    return (
        replace(base, mode="off")
        if mode == "off"
        else base
        if mode == "observe"
        else replace(base, calibration=calibration_of(1.0, model="m"))
    )


class Try(NamedTuple):
    """A request and its two answers."""

    kind: str
    stream: bool
    body: Body
    direct: httpx.Response
    through: httpx.Response
    requests: list[bytes]
    """The requests for the answer through the gateway."""


def tried(upstream: Scripted, mode: str, *, kinds: Sequence[str] = ("chat", "completion"), **members: Any) -> list[Try]:
    """A request with these members, of each kind, streamed and not, without and with a gateway in this mode."""
    return asyncio.run(_tried(upstream, mode, kinds, members))


@asynccontextmanager
async def before(upstream: Scripted, mode: str) -> AsyncIterator[tuple[Running, str]]:
    """A gateway in a mode before a server that it has probed already, and the server's address."""
    async with serving(upstream) as url, running(replace(settings_of(url, mode), mode="off")) as gateway:
        gateway.service.settings = settings_of(url, mode)
        gateway.service.probing.capabilities = Capabilities(
            engine="vllm", models=("m",), chat="continue_final_message", extra=USAGE
        )
        yield gateway, url
        await settled(gateway)


async def _tried(upstream: Scripted, mode: str, kinds: Sequence[str], members: Body) -> list[Try]:
    out: list[Try] = []
    async with before(upstream, mode) as (gateway, url), httpx.AsyncClient(timeout=60) as client:
        for kind in kinds:
            own: Body = {"prompt": "6*7?"} if kind == "completion" else {}
            own = own or {"messages": [{"role": "user", "content": "6*7?"}]}
            for stream in (True, False):
                body = {"model": "m", **own, "stream": stream, **members}
                direct = await client.post(url + PATHS[kind], json=body)
                upstream.requests.clear()
                answer = await client.post(gateway.url + PATHS[kind], json=body)
                out.append(Try(kind, stream, body, direct, answer, list(upstream.requests)))
    return out


class Seen(NamedTuple):
    """What a client makes of an answer."""

    status: int
    text: str
    finish: str | None
    usage: Body | None
    logprobs: Body
    errors: int


def seen(answer: httpx.Response) -> Seen:
    """What a client makes of an answer; a stream is read up to an error."""
    values: list[Any] = []
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        for line in answer.text.replace("\r\n", "\n").split("\n"):
            name, _, payload = line.partition(":")
            with suppress(ValueError):
                values += [json.loads(payload)] if name == "data" else []
    else:
        with suppress(ValueError):
            values = [answer.json()]
    text, finish, usage, errors, logprobs = "", None, None, 0, dict[str, Any]()
    for value in values:
        if not isinstance(value, dict):
            continue
        if value.get("error"):
            errors += 1
            break
        usage = value.get("usage") or usage
        rows = value.get("choices")
        for row in rows if isinstance(rows, list) else ():
            part = row.get("delta") or row.get("message") or row
            for key in ("reasoning_content", "reasoning", "content", "text"):
                text += part[key] if isinstance(part.get(key), str) else ""
            finish = row.get("finish_reason") if row.get("finish_reason") not in (None, "", "null") else finish
            for key, items in (row.get("logprobs") or {}).items():
                logprobs[key] = [*logprobs.get(key, ()), *(items or ())]
    return Seen(answer.status_code, text, finish, usage, logprobs, errors)
