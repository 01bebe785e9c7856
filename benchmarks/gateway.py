"""What the gateway costs: `python -m benchmarks.gateway [--rounds N]`.

Three processes: an upstream that sends chunks as llama.cpp does, paced or as fast as it can; `justenough serve`; and
this one, which reads. *direct* has no gateway, *off* relays, *gate* follows every token with its top-20
log-probabilities and never stops (τ = 0). CPU is that of the gateway's process alone. Latency is from the upstream's
write to our read, both by the machine's monotonic clock; *added* is the median against direct's in the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import httptools

from justenough.calibration import Calibration
from justenough.signals import Signal

RESULTS: Final = Path(__file__).parent / "results" / "gateway.json"
MODES: Final = ("direct", "off", "gate")
STREAMS: Final = (1, 32, 256)
TOKENS: Final = 100_000
"""Tokens of a round at full speed, over all its streams."""
PACED: Final = (32, 100, 0.02)
"""Streams, tokens of each, and seconds between two of them."""
_TICK: Final = os.sysconf("SC_CLK_TCK")


class Round(NamedTuple):
    """One measurement."""

    tokens_per_s: float
    cpu_us_per_token: float | None
    first_s: float
    """Median time to the first token."""
    delay_p50_s: float
    delay_p99_s: float


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--upstream", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.upstream:
        asyncio.run(_upstream())
        return 0
    found = measure(options.rounds)
    show(found)
    options.out.parent.mkdir(exist_ok=True)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}
    rows = {name: [found_round._asdict() for found_round in rounds] for name, rounds in found.items()}
    options.out.write_text(json.dumps({"machine": machine, "rounds": rows}, indent=2) + "\n")
    return 0


def measure(rounds: int) -> dict[str, list[Round]]:
    """Every mode at every load, the modes in turn within a round so that the machine's moods meet all alike."""
    found: dict[str, list[Round]] = {}
    with tempfile.TemporaryDirectory() as folder:
        calibration = Path(folder) / "calibration.json"
        calibration.write_text(never_stops().dumps())
        with process(["-m", "benchmarks.gateway", "--upstream"]) as (upstream, _):
            serve = ["-m", "justenough", "serve", "--upstream", upstream, "--port", "0", "--audit-share", "0"]
            serve += ["--calibration", str(calibration)]
            with process([*serve, "--mode", "off"]) as off, process(serve) as gate:
                targets = {"direct": (upstream, None), "off": off, "gate": gate}
                for url, pid in targets.values():
                    asyncio.run(load(url, streams=4, tokens=500, interval=0, pid=pid))
                for _ in range(rounds):
                    for mode, (url, pid) in targets.items():
                        for streams in STREAMS:
                            name = f"{mode}, {streams} streams at full speed"
                            tokens = TOKENS // streams // (5 if streams == 1 else 1)
                            made = asyncio.run(load(url, streams=streams, tokens=tokens, interval=0, pid=pid))
                            found.setdefault(name, []).append(made)
                        streams, tokens, interval = PACED
                        name = f"{mode}, {streams} streams paced at {interval * 1e3:g} ms"
                        made = asyncio.run(load(url, streams=streams, tokens=tokens, interval=interval, pid=pid))
                        found.setdefault(name, []).append(made)
    return found


async def load(url: str, *, streams: int, tokens: int, interval: float, pid: int | None) -> Round:
    """Read so many streams at once to their ends."""
    before, begun = _cpu(pid), time.monotonic()
    read = await asyncio.gather(*[_read(url, tokens, interval) for _ in range(streams)])
    took, spent = time.monotonic() - begun, _cpu(pid) - before
    delays = sorted(delay for _, of_stream in read for delay in of_stream)
    if len(delays) != streams * tokens:
        raise SystemExit(f"{len(delays)} tokens came of {streams * tokens}")
    return Round(
        tokens_per_s=len(delays) / took,
        cpu_us_per_token=None if pid is None else spent / len(delays) * 1e6,
        first_s=statistics.median(first for first, _ in read),
        delay_p50_s=delays[len(delays) // 2],
        delay_p99_s=delays[int(len(delays) * 0.99)],
    )


_SENT: Final = re.compile(rb'"content":"(\d+) "')


class Body:
    """Collects an answer's body out of its HTTP chunks."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def on_body(self, data: bytes) -> None:
        """A piece, as the parser calls it."""
        self._parts.append(data)

    def take(self) -> bytes:
        """What has come since."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


async def _read(url: str, tokens: int, interval: float) -> tuple[float, list[float]]:
    """Seconds to the first token, and of each token from its writing to its reading."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 22)
    body = json.dumps(
        {"model": "bench", "messages": [{"role": "user", "content": f"{tokens} {interval}"}], "stream": True}
    ).encode()
    begun = time.monotonic()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
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
        delays += [now - int(sent[1]) / 1e9 for line in lines if (sent := _SENT.search(line))]
    writer.close()
    return first, delays


async def _upstream() -> None:
    """Answers any chat with the tokens and the pace that its message names; log-probabilities where asked for."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", file=sys.stderr, flush=True)
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


async def _stream(writer: asyncio.StreamWriter, body: bytes) -> None:
    asked = json.loads(body)
    count, interval = asked["messages"][0]["content"].split()
    top = [{"id": at, "token": f"t{at}", "bytes": [116, 48 + at % 10], "logprob": -0.5 - at} for at in range(20)]
    entry = {"id": 0, "token": "t0", "bytes": [116, 48], "logprob": -0.5, "top_logprobs": top}
    logprobs = ',"logprobs":' + json.dumps({"content": [entry]}, separators=(",", ":")) if asked.get("logprobs") else ""
    tail = '"created":1,"id":"chatcmpl-benchmarkbenchmark","model":"bench","object":"chat.completion.chunk"}\n\n'
    before = 'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"'
    after = f'"}}{logprobs}}}],{tail}'
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    def chunk(text: str) -> bytes:
        data = f"{before}{text}{after}".encode()
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


@contextmanager
def process(arguments: Sequence[str]) -> Iterator[tuple[str, int]]:
    """A process of this Python that says where it listens: address and process number."""
    child = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True)
    try:
        if child.stderr is None:
            raise SystemExit("no standard error")
        for line in child.stderr:
            if match := re.search(r"listening on (http://\S+?)/v1", line):
                # What else it says is read and dropped: a full pipe would stop it.
                threading.Thread(target=child.stderr.read, daemon=True).start()
                yield match[1], child.pid
                return
        raise SystemExit(f"{' '.join(arguments)} did not listen")
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


def _cpu(pid: int | None) -> float:
    """Seconds of processor time that a process has taken."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def never_stops() -> Calibration:
    """A calibration whose threshold no token reaches: all the work of a gate, and no stop."""
    return Calibration(
        method="mean", threshold=0.0, decide="every", signal=Signal(splitter="paragraph"), model="bench", task="",
        shape="streaming", max_steps=4, min_tokens=0, patience=1, labels="graded", n=0, n_right=0, n_wrong=0,
        mean_right=None, sd_right=None, mean_wrong=None, sd_wrong=None, cohens_d=None, auroc=None,
        auroc_within_groups=None, verdict="cannot tell", needed=0, thresholds={}, threshold_outcomes={}, guarantee=None,
        warnings=(), seed=0, fitted_on=(), data_fingerprint="",
    )  # fmt: skip


def show(found: dict[str, list[Round]]) -> None:
    """Medians over the rounds."""
    print(f"{'':42}{'tokens/s':>10}{'CPU µs/token':>14}{'first ms':>10}{'p50 ms':>9}{'p99 ms':>9}{'added p50':>11}")
    for name, rounds in found.items():
        mode, _, rest = name.partition(", ")
        direct = found[f"direct, {rest}"]
        added = statistics.median(
            mine.delay_p50_s - theirs.delay_p50_s for mine, theirs in zip(rounds, direct, strict=True)
        )
        cpu = [one.cpu_us_per_token for one in rounds if one.cpu_us_per_token is not None]
        print(
            f"{name:42}{statistics.median(one.tokens_per_s for one in rounds):10,.0f}"
            f"{f'{statistics.median(cpu):.1f}' if cpu else '–':>14}"
            f"{statistics.median(one.first_s for one in rounds) * 1e3:10.1f}"
            f"{statistics.median(one.delay_p50_s for one in rounds) * 1e3:9.2f}"
            f"{statistics.median(one.delay_p99_s for one in rounds) * 1e3:9.2f}"
            f"{added * 1e3 if mode != 'direct' else 0:11.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
