"""Measures the cost of the gateway and of others: `python -m benchmarks.gateway [--rounds N] [--peers]`.

There are three processes: an upstream that sends chunks like llama.cpp or vLLM, paced or as fast as it can; the gateway
or relay; and this process, the client. *direct* has no gateway. *bare* is the smallest relay on the gateway's software
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import httptools

from benchmarks.gateway_rounds import Measurements, Round, direct_of, show
from benchmarks.peers import recipes, saved
from benchmarks.peers.running import cpu, process
from justenough.calibration.calibration import Calibration
from justenough.signal.signal import Signal

RESULTS: Final = Path(__file__).parent / "results" / "gateway.json"
STREAMS: Final = (1, 32, 256)
TOKENS: Final = 20_000
"""Tokens of a round at full speed, summed over its streams."""
CAN_PIN: Final = hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1
LOGPROBS: Final[Mapping[str, object]] = {"logprobs": True, "top_logprobs": 20}
COUNTS: Final[Mapping[str, object]] = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
"""What the gateway asks vLLM for."""
_OF_TREE: Final = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('justenough', run_name='__main__')"
)
"""Runs the program of another source tree."""
PACED: Final = (32, 200, 0.02)
"""Number of streams, tokens of each stream, and seconds between two tokens."""


class Target(NamedTuple):
    """A server to measure."""

    url: str
    pid: int | None = None
    asks: Mapping[str, object] = {}
    """Members of the client's request."""
    tokens: int = TOKENS


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="also litellm, optillm, entroplain and Dynasor")
    parser.add_argument("--problems", type=int, default=60, help="problems for the embedded model through each gateway")
    parser.add_argument("--unpinned", action="store_true", help="let the system choose the processors")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="also the gateway of another source tree")
    parser.add_argument("--paced", action="store_true", help="only the paced streams")
    parser.add_argument("--modes", nargs="+", metavar="MODE", help='only these modes, such as "gate, vllm"')
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    pinned = not options.unpinned and CAN_PIN
    at_full_speed = () if options.paced else STREAMS
    measurements = measure(
        options.rounds,
        peers=options.peers,
        pinned=pinned,
        against=options.against,
        at_full_speed=at_full_speed,
        modes=options.modes,
    )
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


def measure(
    rounds: int,
    *,
    peers: bool = False,
    pinned: bool = False,
    against: Path | None = None,
    at_full_speed: Sequence[int] = STREAMS,
    modes: Sequence[str] | None = None,
) -> Measurements:
    """Every mode at every load; the modes take turns within a round, so disturbances affect all of them.

    `against`: another source tree, whose gateway is measured too; `at_full_speed`: numbers of streams; `modes`: only
    these, and the direct way that they are compared with.
    """
    measurements: Measurements = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        calibration = Path(folder) / "calibration.json"
        calibration.write_text(never_stops().dumps())
        ends, between = stack.enter_context(apart()) if pinned else (nothing, nothing)
        ends()
        upstream, _ = stack.enter_context(process(["-m", "benchmarks.peers.upstream"]))
        vllm, _ = stack.enter_context(process(["-m", "benchmarks.peers.upstream", "vllm"]))
        between()
        bare, bare_vllm = [
            stack.enter_context(process(["-m", "benchmarks.peers.bare", each])) for each in (upstream, vllm)
        ]

        def gate(before: str, mode: str = "gate", *, tree: Path | None = None) -> tuple[str, int]:
            program = ["-m", "justenough"] if tree is None else ["-c", _OF_TREE, str(tree / "src")]
            options = ["--upstream", before, "--calibration", str(calibration), "--mode", mode]
            started = process([*program, "serve", *options, "--port", "0", "--audit-share", "0"])
            return stack.enter_context(started)

        # Never measure one process twice in a row. On a reused connection to the upstream, Linux holds the first tokens
        # back until they are acknowledged.
        ours, ours_vllm = gate(upstream), gate(vllm)
        targets = {
            "direct": Target(upstream),
            "bare": Target(*bare),
            "off": Target(*gate(upstream, "off")),
            "observe": Target(*gate(upstream, "observe")),
            "gate": Target(*ours),
            "direct, logprobs": Target(upstream, asks=LOGPROBS),
            "bare, logprobs": Target(*bare, asks=LOGPROBS),
            "gate, logprobs": Target(*ours, asks=LOGPROBS),
            "direct, vllm": Target(vllm, asks={**LOGPROBS, **COUNTS}),
            "gate, vllm": Target(*ours_vllm),
            "bare, vllm": Target(*bare_vllm, asks={**LOGPROBS, **COUNTS}),
            "gate, vllm, logprobs": Target(*ours_vllm, asks=LOGPROBS),
        }
        if against is not None:
            theirs, theirs_vllm = gate(upstream, tree=against), gate(vllm, tree=against)
            targets |= {
                "before": Target(*theirs),
                "before, vllm": Target(*theirs_vllm),
                "before, logprobs": Target(*theirs, asks=LOGPROBS),
                "before, vllm, logprobs": Target(*theirs_vllm, asks=LOGPROBS),
            }
        for peer in recipes.RELAYING if peers else ():
            if started := recipes.start(stack, peer, upstream, Path(folder)):
                targets[peer.name] = Target(*started, tokens=TOKENS // 10)
        if modes is not None:
            if unknown := [mode for mode in modes if mode not in targets]:
                raise SystemExit(f"no such mode: {'; '.join(unknown)}. There are: {'; '.join(targets)}")
            chosen = {*modes, *map(direct_of, modes)}
            targets = {mode: target for mode, target in targets.items() if mode in chosen}
        ends()
        for target in targets.values():
            asyncio.run(load(target, streams=4, tokens=200, interval=0))
        for _ in range(rounds):
            for streams in at_full_speed:
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
    request: dict[str, object] = {"model": "bench", "messages": [message], "stream": True, **target.asks}
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


def never_stops() -> Calibration:
    """A calibration with a threshold that no token reaches: the gate does all its work and never stops."""
    return Calibration(
        method="mean", threshold=0.0, decide="every", signal=Signal(splitter="paragraph"), model="bench", task="",
        shape="streaming", max_steps=4, min_tokens=0, patience=1, labels="graded", n=0, n_right=0, n_wrong=0,
        mean_right=None, sd_right=None, mean_wrong=None, sd_wrong=None, cohens_d=None, auroc=None,
        auroc_within_groups=None, verdict="cannot tell", needed=0, thresholds={}, threshold_outcomes={}, guarantee=None,
        warnings=(), seed=0, fitted_on=(), data_fingerprint="",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
