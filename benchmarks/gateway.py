"""Measures the cost of the gateway and of others: `python -m benchmarks.gateway [--rounds N] [--peers]`.

There are three processes: an upstream that sends chunks like llama.cpp, paced or as fast as it can; the gateway or
relay; and this process, the client. *direct* has no gateway. *bare* is the smallest relay on the gateway's software
stack (`benchmarks/peers/bare.py`). *off* relays. *observe* and *gate* follow every token with its top-20
log-probabilities and never stop (τ = 0). The gate asks the upstream for log-probabilities, which are four times the
bytes, and removes them again. So it is compared with *bare, logprobs*, where the client asks for them and the upstream
sends the same bytes, and with *bare*, where nobody asks for them. CPU is that of the gateway process alone. Latency is
from the upstream's write to the client's read, by the machine's monotonic clock. *added* is the difference from direct
in the same round.

The gateway has one processor to itself; upstream and client share another. Otherwise the benchmark would also measure
their work and the scheduling. `--unpinned` leaves the scheduling to the system.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import httptools

from benchmarks.peers import recipes, saved
from benchmarks.peers.running import cpu, listening, process
from justenough.calibration.calibration import Calibration
from justenough.signal.signal import Signal

RESULTS: Final = Path(__file__).parent / "results" / "gateway.json"
STREAMS: Final = (1, 32, 256)
TOKENS: Final = 20_000
"""Tokens of a round at full speed, summed over its streams."""
CAN_PIN: Final = hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1
PACED: Final = (32, 200, 0.02)
"""Number of streams, tokens of each stream, and seconds between two tokens."""


class Target(NamedTuple):
    """A server to measure."""

    url: str
    pid: int | None = None
    logprobs: bool = False
    """Whether the client asks for log-probabilities."""
    tokens: int = TOKENS


class Round(NamedTuple):
    """One measurement."""

    tokens_per_s: float
    cpu_us_per_token: float | None
    first_p50_s: float
    """Time to the first token."""
    first_p99_s: float
    delay_p50_s: float
    delay_p99_s: float


Measurements = dict[str, dict[str, list[Round]]]
"""Load → mode → rounds."""


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="also litellm, optillm, entroplain and Dynasor")
    parser.add_argument("--problems", type=int, default=60, help="problems for the embedded model through each gateway")
    parser.add_argument("--unpinned", action="store_true", help="let the system choose the processors")
    parser.add_argument("--upstream", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.upstream:
        asyncio.run(_upstream())
        return 0
    pinned = not options.unpinned and CAN_PIN
    measurements = measure(options.rounds, peers=options.peers, pinned=pinned)
    show(measurements)
    machine = {
        "cpus": os.cpu_count(),
        "pinned": pinned,
        "python": platform.python_version(),
        "system": platform.system(),
    }
    rows = {
        load: {mode: [one._asdict() for one in rounds] for mode, rounds in of.items()}
        for load, of in measurements.items()
    }
    result: dict[str, object] = {"machine": machine, "rounds": rows}
    if options.peers:
        result["saved"] = saved.measure(options.problems)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def measure(rounds: int, *, peers: bool = False, pinned: bool = False) -> Measurements:
    """Every mode at every load; the modes take turns within a round, so disturbances affect all of them."""
    measurements: Measurements = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        calibration = Path(folder) / "calibration.json"
        calibration.write_text(never_stops().dumps())
        ends, between = stack.enter_context(apart()) if pinned else (nothing, nothing)
        ends()
        upstream, _ = stack.enter_context(process(["-m", "benchmarks.gateway", "--upstream"]))
        between()
        serve = ["-m", "justenough", "serve", "--upstream", upstream, "--port", "0", "--audit-share", "0"]
        serve += ["--calibration", str(calibration), "--mode"]
        bare = stack.enter_context(process(["-m", "benchmarks.peers.bare", upstream]))
        ours = {mode: stack.enter_context(process([*serve, mode])) for mode in ("off", "observe", "gate")}
        # Never measure one process twice in a row. On a reused connection to the upstream, Linux holds the first tokens
        # back until they are acknowledged.
        targets = {
            "direct": Target(upstream),
            "bare": Target(*bare),
            "off": Target(*ours["off"]),
            "observe": Target(*ours["observe"]),
            "gate": Target(*ours["gate"]),
            "direct, logprobs": Target(upstream, logprobs=True),
            "bare, logprobs": Target(*bare, logprobs=True),
            "gate, logprobs": Target(*ours["gate"], logprobs=True),
        }
        for peer in recipes.RELAYING if peers else ():
            if started := recipes.start(stack, peer, upstream, Path(folder)):
                targets[peer.name] = Target(*started, tokens=TOKENS // 10)
        ends()
        for target in targets.values():
            asyncio.run(load(target, streams=4, tokens=200, interval=0))
        for _ in range(rounds):
            for streams in STREAMS:
                for mode, target in targets.items():
                    tokens = max(10, target.tokens // streams // (5 if streams == 1 else 1))
                    measured = asyncio.run(load(target, streams=streams, tokens=tokens, interval=0))
                    measurements.setdefault(f"{streams} streams at full speed", {}).setdefault(mode, []).append(
                        measured
                    )
            streams, tokens, interval = PACED
            for mode, target in targets.items():
                measured = asyncio.run(load(target, streams=streams, tokens=tokens, interval=interval))
                measurements.setdefault(f"{streams} streams paced at {interval * 1e3:g} ms", {}).setdefault(
                    mode, []
                ).append(measured)
    return measurements


def nothing() -> None:
    """Do not move this process."""


@contextmanager
def apart() -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Two functions that move this process, and the processes that it starts later, to one of two processors."""
    before = os.sched_getaffinity(0)
    first, second = sorted(before)[:2]
    try:
        yield partial(os.sched_setaffinity, 0, {first}), partial(os.sched_setaffinity, 0, {second})
    finally:
        os.sched_setaffinity(0, before)


async def load(target: Target, *, streams: int, tokens: int, interval: float) -> Round:
    """Read this number of streams at once to their ends."""
    before, begun = _spent(target), time.monotonic()
    read = await asyncio.gather(*[_read(target, tokens, interval) for _ in range(streams)])
    took, spent = time.monotonic() - begun, _spent(target) - before
    delays = sorted(delay for _, of_stream in read for delay in of_stream)
    if len(delays) != streams * tokens:
        raise SystemExit(f"{len(delays)} of {streams * tokens} tokens arrived")
    firsts = sorted(first for first, _ in read)
    return Round(
        tokens_per_s=len(delays) / took,
        cpu_us_per_token=None if target.pid is None else spent / len(delays) * 1e6,
        first_p50_s=statistics.median(firsts),
        first_p99_s=firsts[int(len(firsts) * 0.99)],
        delay_p50_s=delays[len(delays) // 2],
        delay_p99_s=delays[int(len(delays) * 0.99)],
    )


def _spent(target: Target) -> float:
    return 0.0 if target.pid is None else cpu(target.pid)


_SENT: Final = re.compile(rb"(\d{12,}) ")
"""The time at which a token was written; it survives if a gateway joins tokens to larger pieces."""


class Body:
    """Collects the body of an answer from its HTTP chunks."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def on_body(self, data: bytes) -> None:
        """Add a piece; the parser calls this."""
        self._parts.append(data)

    def take(self) -> bytes:
        """The bytes since the last call."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


async def _read(target: Target, tokens: int, interval: float) -> tuple[float, list[float]]:
    """Seconds to the first token, and for each token the seconds from its writing to its reading."""
    host, port = target.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 22)
    message = {"role": "user", "content": f"{tokens} {interval}"}
    request: dict[str, object] = {"model": "bench", "messages": [message], "stream": True}
    if target.logprobs:
        request |= {"logprobs": True, "top_logprobs": 20}
    body = json.dumps(request).encode()
    begun = time.monotonic()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: {len(body)}\r\n"
    head += f"content-type: application/json\r\nauthorization: Bearer {recipes.CLIENT_KEY}\r\n"
    head += "connection: close\r\n\r\n"
    writer.write(head.encode() + body)
    delays: list[float] = []
    body_of = Body()
    parser = httptools.HttpResponseParser(body_of)
    first, rest = 0.0, b""
    while data := await reader.read(1 << 18):
        now = time.monotonic()
        first = first or now - begun
        parser.feed_data(data)
        lines = (rest + body_of.take()).split(b"\n")
        rest = lines.pop()
        delays += [now - int(sent) / 1e9 for line in lines for sent in _SENT.findall(line.partition(b'"logprobs"')[0])]
    writer.close()
    return first, delays


async def _upstream() -> None:
    """Answers a chat with the number and pace of tokens in its message, and with log-probabilities on request."""
    with listening() as listener:
        server = await asyncio.start_server(_answer, sock=listener, backlog=2048)
        async with server:
            await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            size = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(size[1])) if size else b""
            if b"/chat/completions" in head and b"Say OK." not in body:
                await _stream(writer, body)
            else:
                models = b'{"object":"list","data":[{"id":"bench"}]}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(models), models))
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


async def _stream(writer: asyncio.StreamWriter, body: bytes) -> None:
    request = json.loads(body)
    count, interval = request["messages"][0]["content"].split()
    if not request.get("stream"):
        await _whole(writer, int(count), float(interval))
        return
    top = [{"id": at, "token": f"t{at}", "bytes": [116, 48 + at % 10], "logprob": -0.5 - at} for at in range(20)]
    alike = json.dumps({"bytes": [116, 48], "logprob": -0.5, "top_logprobs": top}, separators=(",", ":"))[1:]
    tail = '"created":1,"id":"chatcmpl-benchmarkbenchmark","model":"bench","object":"chat.completion.chunk"}\n\n'
    before = 'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"'
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    def chunk(text: str) -> bytes:
        logprobs = f',"logprobs":{{"content":[{{"id":0,"token":"{text}",{alike}]}}' if request.get("logprobs") else ""
        data = f'{before}{text}"}}{logprobs}}}],{tail}'.encode()
        return b"%x\r\n%b\r\n" % (len(data), data)

    writer.write(chunk("<think>"))
    for number in range(int(count)):
        if float(interval):
            await asyncio.sleep(float(interval))
        writer.write(chunk(f"{time.monotonic_ns()} "))
        if number % 8 == 7 or float(interval):
            await writer.drain()
    end = f'data: {{"choices":[{{"finish_reason":"stop","index":0,"delta":{{}}}}],{tail}data: [DONE]\n\n'.encode()
    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))
    await writer.drain()


def never_stops() -> Calibration:
    """A calibration with a threshold that no token reaches: the gate does all its work and never stops."""
    return Calibration(
        method="mean", threshold=0.0, decide="every", signal=Signal(splitter="paragraph"), model="bench", task="",
        shape="streaming", max_steps=4, min_tokens=0, patience=1, labels="graded", n=0, n_right=0, n_wrong=0,
        mean_right=None, sd_right=None, mean_wrong=None, sd_wrong=None, cohens_d=None, auroc=None,
        auroc_within_groups=None, verdict="cannot tell", needed=0, thresholds={}, threshold_outcomes={}, guarantee=None,
        warnings=(), seed=0, fitted_on=(), data_fingerprint="",
    )  # fmt: skip


def show(measurements: Measurements) -> None:
    """Print medians over the rounds, and ratios as medians of the ratios within each round."""
    for load_name, modes in measurements.items():
        heads = ("first ms", "later ms", "first, added", "later, added")
        print(f"\n{load_name:28}{'CPU':>8}{'':>10}" + "".join([f"{head:>18}" for head in heads]))
        print(f"{'':28}{'µs/tok.':>8}{'tokens/s':>10}" + f"{'p50':>9}{'p99':>9}" * len(heads))
        for mode, rounds in modes.items():
            direct = modes["direct, logprobs" if "logprobs" in mode else "direct"]
            times = [_median([getattr(one, name) for one in rounds]) * 1e3 for name in Round._fields[2:]]
            for name in Round._fields[2:]:
                added = [getattr(mine, name) - getattr(their, name) for mine, their in zip(rounds, direct, strict=True)]
                times.append(_median(added) * 1e3)
            spent = [one.cpu_us_per_token for one in rounds if one.cpu_us_per_token is not None]
            cost = f"{_median(spent):8.1f}" if spent else f"{'–':>8}"
            speed = _median([one.tokens_per_s for one in rounds])
            print(f"{mode:28}{cost}{speed:10,.0f}" + "".join(f"{value:9.2f}" for value in times))
        for mine, theirs, why in RATIOS:
            if mine in modes and theirs in modes:
                costs = [
                    (one.cpu_us_per_token or 0) / max(other.cpu_us_per_token or 0, 1e-9)
                    for one, other in zip(modes[mine], modes[theirs], strict=True)
                ]
                speeds = [
                    one.tokens_per_s / other.tokens_per_s for one, other in zip(modes[mine], modes[theirs], strict=True)
                ]
                print(f"  {mine} / {theirs}: CPU {_median(costs):.2f}, tokens/s {_median(speeds):.2f}  ({why})")


RATIOS: Final = (
    ("gate", "bare, logprobs", "same bytes from the upstream"),
    ("gate, logprobs", "bare, logprobs", "same bytes in and out"),
    ("gate", "bare", "the gate makes the upstream send log-probabilities as well"),
    ("off", "bare", "same bytes"),
    ("gate", "litellm", "litellm gets no log-probabilities"),
)


def _median(values: list[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    sys.exit(main())
