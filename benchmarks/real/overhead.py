"""What the gateway costs before a real model: `python -m benchmarks.real.overhead --model smollm2-135m`.

llama.cpp serves the model. The same requests go to it directly, directly with the top-20 log-probabilities that the
gate asks for, and through a gateway that relays (`off`), watches (`observe`) or gates with a threshold that no token
reaches. So all of them generate the same tokens. The ways take turns, first one request at a time, then eight together.
The table shows medians, and the ratio of the tokens a second to *direct* in the same round with the middle half of
the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from benchmarks.gateway import never_stops
from benchmarks.real.packages import PackageError, catalogue, obtain
from benchmarks.real.plan import DEFAULT, PLANS, plan_of, tasks
from benchmarks.real.prompts import notation
from benchmarks.real.run import CACHE
from benchmarks.real.servers import RunError, gateway, llama, require_extras
from justenough.files import write_text

TOKENS: Final = 64
TOGETHER: Final = 8
WAYS: Final = ("direct", "direct, log-probabilities", "off", "observe", "gate")


class Stream(NamedTuple):
    """What one streamed answer took."""

    first: float
    """Seconds to the first token."""
    seconds: float
    tokens: int


def streamed(client: httpx.Client, url: str, body: dict[str, Any]) -> Stream:
    """Read one answer to its end."""
    begun = time.monotonic()
    first, tokens = 0.0, 0
    with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if not first and event.get("choices") and event["choices"][0]["delta"].get("content"):
                first = time.monotonic() - begun
            tokens = max(tokens, (event.get("usage") or {}).get("completion_tokens", 0))
    return Stream(first, time.monotonic() - begun, tokens)


def body_of(question: str, *, model: str, logprobs: bool) -> dict[str, Any]:
    """A request with greedy decoding and a fixed number of tokens."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return body | ({"logprobs": True, "top_logprobs": 20} if logprobs else {})


def measured(urls: dict[str, str], questions: Sequence[str], *, model: str, together: int) -> dict[str, list[Stream]]:
    """Way → one entry for each round, the sum of its streams; the way that begins changes with the round."""
    rounds: dict[str, list[Stream]] = {way: [] for way in WAYS}
    with httpx.Client(timeout=600, trust_env=False) as client, ThreadPoolExecutor(together) as pool:
        for number in range(0, len(questions), together):
            for at in range(len(WAYS)):
                way = WAYS[(at + number // together) % len(WAYS)]
                bodies = [
                    body_of(question, model=model, logprobs="log" in way)
                    for question in questions[number : number + together]
                ]
                begun = time.monotonic()
                streams = list(pool.map(lambda body, url=urls[way]: streamed(client, url, body), bodies))
                seconds = time.monotonic() - begun
                first = statistics.median(stream.first for stream in streams)
                rounds[way].append(Stream(first, seconds, sum(stream.tokens for stream in streams)))
            print(f"{together} together: {number + together} of {len(questions)} requests", file=sys.stderr, flush=True)
    return rounds


def table(rounds: dict[str, list[Stream]]) -> list[str]:
    """The rows of the table."""
    lines = ["| way | tokens/s | × direct | first token | tokens |", "|---|---:|---|---:|---:|"]
    for way in WAYS:
        speeds = [each.tokens / each.seconds for each in rounds[way]]
        ratios = [
            speed * direct.seconds / direct.tokens for speed, direct in zip(speeds, rounds["direct"], strict=True)
        ]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        first = 1000 * statistics.median(each.first for each in rounds[way])
        tokens = sum(each.tokens for each in rounds[way])
        lines.append(
            f"| {way} | {statistics.median(speeds):.1f} | {middle:.2f} [{low:.2f}, {high:.2f}] | {first:.0f} ms |"
            f" {tokens:,} |"
        )
    return lines


def main() -> int:
    """Measure, and print a table for one request at a time and one for several together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted({name for name, _ in PLANS}), default=DEFAULT)
    parser.add_argument("--requests", type=int, default=16, help="of each way, alone and together (default 16)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    try:
        require_extras()
        plan = plan_of(options.model)
        weights = obtain(catalogue()[plan.model], options.cache / "models")
    except (RunError, PackageError) as error:
        print(f"overhead: {error}", file=sys.stderr)
        return 2
    prompts = notation(plan.prompts["sequential"]).prompts
    lines = tasks()[plan.task].lines or ()
    questions = [prompts.ask.format(problem=json.loads(line)["problem"]) for line in lines[: options.requests]]
    server = replace(plan.server, slots=TOGETHER, threads=options.threads)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        upstream = stack.enter_context(llama(weights, server, port=0, log=folder / "server.log"))
        model = str(httpx.get(f"{upstream}/v1/models", timeout=60, trust_env=False).json()["data"][0]["id"])
        calibration = folder / "calibration.json"
        write_text(calibration, replace(never_stops(), model=model).dumps())
        urls = {"direct": upstream, "direct, log-probabilities": upstream}
        for mode in ("off", "observe", "gate"):
            log = folder / f"{mode}.log"
            # The whole answer is a thought without an end, so that the gate follows all of it.
            given = ["--mode", mode, "--thought", "until:Answer:"]
            urls[mode] = stack.enter_context(gateway(upstream, calibration, grader="exact", log=log, options=given))
        for together in (1, TOGETHER):
            # The first answers wait for the weights, and for the prompts to be read.
            measured(urls, questions[:together], model=model, together=together)
            rounds = measured(urls, questions, model=model, together=together)
            print(f"\n{plan.model}, {together} at a time, {TOKENS} tokens each:\n")
            print("\n".join(table(rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
