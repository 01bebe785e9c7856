"""The gateway on a million wrong inputs: `python -m benchmarks.gateway_fuzz [--inputs N] [--seed S]`.

The whole gateway but its sockets, in this process: requests come over ASGI, the upstream's answers from a script. Most
inputs are valid ones changed at random, in their JSON or in their bytes, some are noise. Allowed ends are a whole
answer, the upstream's own bytes, or one clear error; anything else (an exception that is not ours, an answer that does
not end or that a client could not read, more than 10 s of work) is a failure, printed with the number that repeats it
(`--first NUMBER --inputs 1`). Exit code 1 where there was one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Final, NoReturn, cast

import aiohttp
import uvloop
from multidict import CIMultiDict

from benchmarks import mutation
from benchmarks.gateway import never_stops
from benchmarks.timing import write
from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.mock.chunks import CONFIDENT, UNSURE, Chunks, Engine, Fault, Voice
from justenough.gateway.server import Front, Ours
from justenough.gateway.service import Service
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream import Body, Upstream
from justenough.signals import Signal
from justenough.trace import Json

KINDS: Final = ("request", "stream", "stream", "stream", "both", "answer", "probe", "feedback")
"""What is wrong in an input: the client's body, the upstream's stream, both, another answer of it, its abilities."""
PER_GATEWAY: Final = 40
"""Inputs that one gateway gets before the next: what it learns must not end the variety."""
LONGEST_S: Final = 10
CHAT: Final[dict[str, Json]] = {"model": "bench", "messages": [{"role": "user", "content": "What is 6*7?"}]}
REQUESTS: Final[tuple[dict[str, Json], ...]] = (
    CHAT,
    CHAT | {"stream": True},
    CHAT | {"stream": True, "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 2},
    CHAT | {"max_tokens": 5, "temperature": 0.0, "seed": 1, "justenough": {"mode": "gate", "max_steps": 2}},
    CHAT | {"justenough": {"threshold": 0.1, "decisions": True}, "stream": True, "logprobs": True},
)
TEXTS: Final[tuple[dict[str, Json], ...]] = (
    {"model": "bench", "prompt": "What is 6*7?"},
    {"model": "bench", "prompt": "What is 6*7?", "stream": True, "logprobs": 2, "max_tokens": 6},
)
Rows = tuple[tuple[dict[str, Json], str], ...]
THOUGHTS: Final = ("tags", "tags", "reasoning_content", "reasoning")
_THOUGHT: Final = ("Let me think", ".\n\n", "So it is", " 42.\n\n", "Yes", ", 42.\n\n")
_ANSWER: Final = ("The answer", " is 42.")


@dataclass(frozen=True, slots=True)
class Content:
    """The body of an answer, in pieces; broken off at its end where told so."""

    pieces: list[bytes]
    broken: bool

    async def iter_any(self) -> AsyncIterator[bytes]:
        """The pieces."""
        for piece in self.pieces:
            yield piece
        if self.broken:
            raise Refused(502, "the upstream broke off its answer", code="upstream_broken", kind="upstream_error")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateway uses of an aiohttp response."""

    status: int
    kind: str
    content: Content

    @property
    def headers(self) -> CIMultiDict[str]:
        """By name."""
        return CIMultiDict({"content-type": self.kind})

    @property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """As they came."""
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
        """What is wrong in the present input."""
        self.engine: Engine = "vllm"
        self.sent: list[Answer] = []
        """Answers to completions."""

    @asynccontextmanager
    async def open(
        self, method: str, target: str, *, headers: RawHeaders, body: Body = None, length: str | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The scripted answer."""
        self.open_requests += 1
        try:
            data = body if isinstance(body, bytes) else b""
            if self.wrong != "probe" and self.rng.random() < 0.01:
                raise Refused(502, "the upstream is not reachable", code="upstream_unreachable", kind="upstream_error")
            answer = self._generated(target, data) if _generates(target, data) else self._told(target, data)
            yield cast("aiohttp.ClientResponse", answer)
        finally:
            self.open_requests -= 1

    def _told(self, target: str, data: bytes) -> Answer:
        """What it says of itself, and its answers to the gateway's probe."""
        told: Json = {"error": {"message": "File Not Found"}}
        status = 404
        if target == "/v1/models":
            status, told = 200, {"object": "list", "data": [{"id": "bench"}]}
        elif target == "/version" and self.engine == "vllm":
            status, told = 200, {"version": "1"}
        elif target == "/props" and self.engine == "llama.cpp":
            status, told = 200, {"default_generation_settings": {"params": {"temperature": 0.8}}}
        elif target == "/apply-template" and self.engine == "llama.cpp":
            status, told = 200, {"prompt": "<|user|>What is 6*7?<|assistant|>"}
        elif b"Say OK." in data:
            echo = "<think>\nYes.\n</think>\n\nO" if self.engine == "llama.cpp" else ""
            size = 9 if b'"continue_final_message":true' in data else 11
            message: Json = {"role": "assistant", "content": f"{echo}K"}
            usage: Json = {"prompt_tokens": size, "completion_tokens": 1}
            status, told = 200, {"choices": [{"index": 0, "message": message}], "usage": usage}
        if self.wrong == "probe":
            status = self.rng.choice((status, status, 200, 204, 401, 500))
            return self._answer(status, mutation.body(self.rng, [cast("dict[str, Json]", told)]))
        return self._answer(status, json.dumps(told).encode())

    def _generated(self, target: str, data: bytes) -> Answer:
        rng = self.rng
        if self.wrong == "answer":
            told: dict[str, Json] = {"error": {"message": "logprobs are not supported", "code": 400}}
            other: dict[str, Json] = {"id": "x", "choices": [{"index": 0, "message": {"content": "42"}}]}
            told = rng.choice((told, other))
            kind = rng.choice(("application/json", "application/json", "text/html", "text/event-stream", ""))
            answer = self._answer(rng.choice((200, 201, 307, 400, 422, 429, 500)), mutation.body(rng, [told]), kind)
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
        return Answer(status, kind, Content(mutation.split(self.rng, data), broken))


@cache
def stream_of(engine: Engine, chat: bool, thought: str | None, sure: bool, top: int, usage: bool, finish: str) -> Rows:
    """The chunks of an answer, each with its JSON."""
    own = thought if thought not in (None, "tags") else None
    voice = Voice(
        id="mock-1", model="bench", engine=engine, reasoning_field=own, logprobs=(CONFIDENT if sure else UNSURE,)
    )
    asked: dict[str, Json] = {"logprobs": top > 0 if chat else top or None, "top_logprobs": top}
    asked["stream_options"] = {"include_usage": usage, "continuous_usage_stats": usage}
    maker = Chunks(voice, asked, chat=chat, fault=Fault.NONE)
    said = [(text, False) for text in _ANSWER]
    if thought is not None:
        said = [*[(text, True) for text in _THOUGHT], *said]
    if thought == "tags":
        said = [("<think>", False), *said[: len(_THOUGHT)], ("</think>", False), *said[len(_THOUGHT) :]]
    chunks = [maker.token(text, number, thought=of_thought) for number, (text, of_thought) in enumerate(said)]
    chunks = [*([maker.role()] if chat else []), *chunks, maker.last(finish), *([maker.usage(9)] if usage else [])]
    return tuple((chunk, json.dumps(chunk, separators=(",", ":"))) for chunk in chunks)


def _generates(target: str, data: bytes) -> bool:
    return target.endswith("completions") and b'"content":"Say OK."' not in data


@dataclass(slots=True)
class Got:
    """The gateway's answer, as the client got it."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    begun: int = 0
    ended: bool = False

    async def send(self, message: Mapping[str, Any]) -> None:
        """ASGI's `send`."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
            self.begun += 1
        else:
            if self.ended or not self.begun:
                raise WrongError("a body before the start or after the end")
            self.body += message["body"]
            self.ended = not message.get("more_body", False)


class WrongError(Exception):
    """The gateway's answer is not one that a client can read."""


class HangError(BaseException):
    """An input took too long."""


def variants(folder: Path) -> list[GatewaySettings]:
    """Gateways of every kind."""
    streaming = replace(never_stops(), threshold=1.0)
    upstream = "http://127.0.0.1:1"
    gate = GatewaySettings(upstream=upstream, calibration=streaming, audit_share=0.3, close="\n</think>\n\n")
    by_step = replace(streaming, shape="sequential", decide="first", signal=Signal(splitter="completion"))
    stepwise = replace(gate, calibration=by_step)
    return [
        gate,
        replace(gate, answer_cue="Answer:", audit_share=0.0),
        replace(gate, record=folder / "streaming.jsonl", audit_share=1.0),
        replace(gate, calibration=replace(streaming, decide="first")),
        GatewaySettings(upstream=upstream),
        GatewaySettings(upstream=upstream, record=folder / "free.jsonl", audit_share=1.0),
        stepwise,
        replace(stepwise, extend="effort"),
        replace(stepwise, record=folder / "steps.jsonl", audit_share=1.0),
        replace(stepwise, calibration=replace(by_step, decide="every")),
    ]


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """The outcome of all inputs."""

    outcomes: Counter[str]
    failures: list[str]
    slowest_s: float


async def fuzz(*, inputs: int, seed: int, first: int = 0, say_every: int = 0) -> Fuzzed:
    """Send inputs `first` to `first + inputs - 1` of a seed."""
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    slowest = 0.0
    crashed: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: crashed.append(repr(context)))
    with TemporaryDirectory() as folder:
        kinds = variants(Path(folder))
        for group in range(first // PER_GATEWAY, (first + inputs - 1) // PER_GATEWAY + 1):
            rng = Random(seed * 1_000_003 + group)
            settings = kinds[group % len(kinds)]
            upstream = Scripted(settings)
            upstream.rng, upstream.engine = rng, rng.choice(("vllm", "llama.cpp", "plain"))
            upstream.wrong = "request"
            async with Service(settings, upstream=upstream) as service:
                for number in range(group * PER_GATEWAY, (group + 1) * PER_GATEWAY):
                    begun = time.process_time()
                    outcome = await _one(service, upstream, rng, number)
                    slowest = max(slowest, time.process_time() - begun)
                    if outcome.startswith("FAILED") or crashed:
                        failures.append(f"{number}: {outcome} {' '.join(crashed)}")
                        crashed.clear()
                        if say_every:
                            print(failures[-1], file=sys.stderr, flush=True)
                    if first <= number < first + inputs:
                        outcomes[outcome] += 1
                        if say_every and number % say_every == say_every - 1:
                            print(f"{number + 1} inputs, {len(failures)} failures", file=sys.stderr, flush=True)
    return Fuzzed(outcomes, failures, slowest)


async def _one(service: Service, upstream: Scripted, rng: Random, number: int) -> str:
    """One input: what came of it."""
    kind = rng.choice(KINDS)
    upstream.wrong = kind
    upstream.sent.clear()
    service.without_logprobs.clear()
    path = rng.choice(("/v1/chat/completions",) * 3 + ("/v1/completions",))
    bases = REQUESTS if "chat" in path else TEXTS
    data = json.dumps(rng.choice(bases), separators=(",", ":")).encode()
    if kind in ("request", "both"):
        data = mutation.body(rng, bases)
    elif kind == "probe":
        service.capabilities = None
    elif kind == "feedback":
        path, data = "/v1/justenough/feedback", mutation.body(rng, [{"id": "mock-1", "correct": True}])
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    if rng.random() < 0.1:
        name = rng.choice((b"x-justenough-mode", b"x-justenough-threshold", b"x-justenough-max-steps"))
        headers.append((name, rng.choice((b"gate", b"off", b"0.5", b"2", b"-1", b"nan", b"\xff", b"1" * 400))))
    got = Got()
    app = Ours(service, "feedback") if kind == "feedback" else Front(service)
    served = asyncio.ensure_future(app(_scope(path, headers), _receiving(data, rng), got.send))
    signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
    await asyncio.wait((served,))
    while service._background:
        await asyncio.sleep(0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    error = served.exception()
    if error is not None:
        return f"FAILED {kind}: {type(error).__name__}: {error!s:.200}"
    if service.active or upstream.open_requests:
        return f"FAILED {kind}: something is left under way"
    try:
        return f"{kind}: {read(got, upstream.sent)}"
    except (WrongError, ValueError, KeyError, TypeError) as wrong:
        return f"FAILED {kind}: {type(wrong).__name__}: {wrong!s:.200}; {got.status} {got.headers} {got.body[-300:]!r}"


def read(got: Got, sent: list[Answer]) -> str:
    """What a client makes of the answer; raises where it cannot be read."""
    if got.begun != 1:
        raise WrongError(f"begun {got.begun} times")
    said = got.headers.get(b"x-justenough", b"").decode().split(";")[0]
    if said == "relayed":
        theirs = b"".join(sent[-1].content.pieces)
        if got.status != sent[-1].status or not got.body.startswith(theirs):
            raise WrongError("the upstream's answer was changed")
        if got.body == theirs and sent[-1].content.broken == got.ended:
            raise WrongError("broken, but ended" if got.ended else "not ended")
        return "relayed" if got.ended and got.body == theirs else "relayed until it broke"
    if not got.ended:
        raise WrongError("not ended")
    if got.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
        return _read_events(got)
    whole = json.loads(got.body)
    if whole.get("error"):
        if got.status < 400:
            raise WrongError("an error with a good status")
        return f"error {got.status} {said or 'error'} {_code(whole)}"
    if said in ("stopped", "finished", "observed", "audited"):
        (choice,) = whole["choices"]
        if not isinstance(choice.get("message", {}).get("content", choice.get("text")), str | None):
            raise WrongError("no text")
        return str(whole["justenough"]["decision"])
    if got.status != 200 or "labels" not in whole:
        raise WrongError("neither an answer nor an error")
    return "labelled"


def _read_events(got: Got) -> str:
    *blocks, rest = got.body.split(b"\n\n")
    if rest:
        raise WrongError("an event is not ended")
    decision = None
    for number, block in enumerate(block for block in blocks if block):
        if not block.startswith(b"data: ") or b"\n" in block:
            raise WrongError(f"no event: {block[:80]!r}")
        if block == b"data: [DONE]":
            if number + 1 != len([block for block in blocks if block]) or decision is None:
                raise WrongError("[DONE] before the end, or nothing said of the decision")
            return f"{decision} stream"
        payload = json.loads(block[6:])
        told = payload.get("justenough")
        if isinstance(told, dict) and "decision" in told:
            decision = told["decision"]
        if payload.get("error"):
            return f"stream ended by {_code(payload)}"
    raise WrongError("a stream that just ends")


def _code(whole: dict[str, Any]) -> str:
    error = whole["error"]
    code = error.get("code") if isinstance(error, dict) else None
    ours = isinstance(code, str) and code.replace("_", "").isalpha() and len(code) < 30
    return str(code) if ours else "of the upstream"


def _scope(path: str, headers: RawHeaders) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}


def _receiving(data: bytes, rng: Random) -> Any:
    pieces = mutation.split(rng, data) or [b""]
    messages = [
        {"type": "http.request", "body": piece, "more_body": at + 1 < len(pieces)} for at, piece in enumerate(pieces)
    ]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    return receive


def _hung(signum: int, frame: FrameType | None) -> NoReturn:
    raise HangError


def main() -> int:
    """Fuzz, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, _hung)
    begun = time.monotonic()
    found = uvloop.run(fuzz(inputs=options.inputs, seed=options.seed, first=options.first, say_every=50_000))
    took = time.monotonic() - begun
    for outcome, count in sorted(found.outcomes.items()):
        print(f"{count:>9,}  {outcome}")
    for failure in found.failures[:20]:
        print(failure)
    total = sum(found.outcomes.values())
    print(f"{total:,} inputs, {len(found.failures)} failures, {took:.0f} s, slowest {found.slowest_s * 1e3:.0f} ms")
    outcomes = dict(sorted(found.outcomes.items()))
    write(
        "gateway_fuzz",
        {"inputs": total, "seed": options.seed, "failures": len(found.failures), "seconds": took, "outcomes": outcomes},
    )
    return 1 if found.failures else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
