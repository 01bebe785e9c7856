"""Fuzzes the gateway with a million damaged inputs: `python -m benchmarks.gateway_fuzz [--inputs N] [--seed S]`.

The whole gateway except its sockets runs in this process: requests come over ASGI, the upstream's answers from a
script. Most inputs are valid ones with random changes in their JSON or in their bytes; some are noise. Allowed ends
are a complete answer, the upstream's own bytes, or one clear error. Anything else is a failure: a foreign exception,
an answer that does not end or that a client cannot read, more than 10 s of work. A failure is printed with its number,
which repeats it (`--first NUMBER --inputs 1`). The exit code is 1 if there was a failure.
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
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Final, NoReturn

import uvloop

from benchmarks import mutation
from benchmarks.gateway import never_stops
from benchmarks.gateway_outcome import Received, WrongError, read
from benchmarks.scripted import Scripted
from benchmarks.timing import write
from justenough.gateway.app.front import Front
from justenough.gateway.app.paths import routes
from justenough.gateway.exchange import RawHeaders
from justenough.gateway.service import Service
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.logprobs import LogprobsMemory
from justenough.signal.signal import Signal
from justenough.trace import Json

KINDS: Final = ("request", "stream", "stream", "stream", "both", "answer", "probe", "feedback")
"""The damaged part: the client's body, the upstream's stream, both, another answer, the probe, or the feedback."""
PER_GATEWAY: Final = 40
"""Inputs for one gateway before the next one, because a gateway learns and would lose variety."""
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


class HangError(BaseException):
    """An input took too long."""


def variants(folder: Path) -> list[GatewaySettings]:
    """Gateways of every kind."""
    streaming = replace(never_stops(), threshold=1.0)
    upstream = "http://127.0.0.1:1"
    # All requests are audited or none, since a share is drawn at random.
    gate = GatewaySettings(upstream=upstream, calibration=streaming, audit_share=0.0, close="\n</think>\n\n")
    by_step = replace(streaming, shape="sequential", decide="first", signal=Signal(splitter="completion"))
    stepwise = replace(gate, calibration=by_step)
    return [
        gate,
        replace(gate, answer_cue="Answer:"),
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
            upstream.continues = group % 4 != 1
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
    """Run one input and return its outcome."""
    kind = rng.choice(KINDS)
    upstream.wrong = kind
    upstream.sent.clear()
    service.logprobs = LogprobsMemory()
    path = rng.choice(("/v1/chat/completions",) * 3 + ("/v1/completions",))
    bases = REQUESTS if "chat" in path else TEXTS
    data = json.dumps(rng.choice(bases), separators=(",", ":")).encode()
    if kind in ("request", "both"):
        data = mutation.body(rng, bases)
    elif kind == "probe":
        service.probing.capabilities = None
    elif kind == "feedback":
        path, data = "/v1/justenough/feedback", mutation.body(rng, [{"id": "mock-1", "correct": True}])
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    if rng.random() < 0.1:
        name = rng.choice((b"x-justenough-mode", b"x-justenough-threshold", b"x-justenough-max-steps"))
        headers.append((name, rng.choice((b"gate", b"off", b"0.5", b"2", b"-1", b"nan", b"\xff", b"1" * 400))))
    received = Received()
    feedback = next(route.app for route in routes(service) if route.path == "/v1/justenough/feedback")
    app = feedback if kind == "feedback" else Front(service)
    served = asyncio.ensure_future(app(_scope(path, headers), _receiving(data, rng), received.send))
    signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
    await asyncio.wait((served,))
    while service._background:
        await asyncio.sleep(0)
    signal.setitimer(signal.ITIMER_PROF, 0)
    error = served.exception()
    if error is not None:
        return f"FAILED {kind}: {type(error).__name__}: {error!s:.200}"
    if service.metrics.refused.pop("internal_error", 0):
        return f"FAILED {kind}: an internal error; the log without `logging.disable` shows it"
    if service.active or upstream.open_requests:
        return f"FAILED {kind}: something is still open"
    try:
        return f"{kind}: {read(received, upstream.sent)}"
    except (WrongError, ValueError, KeyError, TypeError) as wrong:
        answer = f"{received.status} {received.headers} {received.body[-300:]!r}"
        return f"FAILED {kind}: {type(wrong).__name__}: {wrong!s:.200}; {answer}"


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
    """Fuzz, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, _hung)
    begun = time.monotonic()
    result = uvloop.run(fuzz(inputs=options.inputs, seed=options.seed, first=options.first, say_every=50_000))
    took = time.monotonic() - begun
    for outcome, count in sorted(result.outcomes.items()):
        print(f"{count:>9,}  {outcome}")
    for failure in result.failures[:20]:
        print(failure)
    total = sum(result.outcomes.values())
    print(f"{total:,} inputs, {len(result.failures)} failures, {took:.0f} s, slowest {result.slowest_s * 1e3:.0f} ms")
    outcomes = dict(sorted(result.outcomes.items()))
    write(
        "gateway_fuzz",
        {
            "inputs": total,
            "seed": options.seed,
            "failures": len(result.failures),
            "seconds": took,
            "outcomes": outcomes,
        },
    )
    return 1 if result.failures else 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
