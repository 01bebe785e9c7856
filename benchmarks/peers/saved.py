"""Measures which gateway really saves tokens: `python -m benchmarks.peers.saved [PROBLEMS]`.

Held-out problems go one after the other to llama.cpp's own server with the embedded model, directly and through each
gateway with its default settings, streamed, with the same seeds. The server itself counts the generated tokens; the
table also shows the tokens that the gateway reports. Our gateway is calibrated through the same server on other
problems.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import numpy as np

from benchmarks.peers import recipes
from benchmarks.peers.recipes import MODEL
from benchmarks.peers.running import process
from justenough.grading import Problem, open_grader, read_tasks
from justenough.stats import Estimate, paired_bootstrap, saving_bootstrap
from justenough.wire.events import DONE, EventReader

CALIBRATED_ON: Final = 100
MAX_TOKENS: Final = 512
_COUNTER: Final = re.compile(r"^llamacpp:tokens_predicted_total (\S+)", re.MULTILINE)
_HEADERS: Final = {"authorization": f"Bearer {recipes.CLIENT_KEY}"}
_TEXTS: Final = ("content", "reasoning_content", "text")


class Outcome(NamedTuple):
    """The outcome of one problem."""

    generated: float
    """Generated tokens by the server's own counter."""
    right: bool
    answered: bool
    events: int
    """Number of pieces of text that arrived."""
    reported: float | None
    """Generated tokens according to the gateway."""
    claim: float | None
    """Saved share according to the gateway."""


def measure(problems: int) -> dict[str, object]:
    """Send all problems, print and return the figures."""
    outcomes: dict[str, list[Outcome]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        server, _ = stack.enter_context(process(["-m", "benchmarks.peers.llama"]))
        calibration = _calibrated(server, folder)
        serve = ["-m", "justenough", "serve", "--upstream", server, "--port", "0", "--close", "</think>"]
        serve += ["--calibration", str(calibration), "--audit-share", "0"]
        ours, _ = stack.enter_context(process(serve))
        targets = {"direct": server, "justenough": ours}
        for peer in recipes.STOPPING:
            if started := recipes.start(stack, peer, server, folder):
                targets[peer.name] = started[0]
        held_out = read_tasks("arithmetic", limit=problems)
        for target, url in targets.items():
            outcomes[target] = [ask(url, server, problem, seed, target) for seed, problem in enumerate(held_out)]
    return show(outcomes)


def _calibrated(server: str, folder: Path) -> Path:
    traces, out = folder / "calibration.parquet", folder / "calibration.json"
    collect = ["collect", "--model", f"openai:{MODEL}", "--base-url", f"{server}/v1", "--shape", "streaming"]
    collect += ["--prompts", "embedded", "--temperature", "0.8", "--max-tokens", str(MAX_TOKENS), "--concurrency", "2"]
    collect += ["--tasks", "arithmetic-calibration", "--limit", str(CALIBRATED_ON), "--out", str(traces)]
    for arguments in (collect, ["calibrate", str(traces), "--force", "--out", str(out)]):
        command = [sys.executable, "-m", "justenough", *arguments]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **recipes.KEY})
    return out


def ask(url: str, server: str, problem: Problem, seed: int, target: str) -> Outcome:
    """Send one problem through one gateway, and read the server's counter before and after."""
    before = generated(server)
    body: dict[str, object] = {"model": MODEL, "max_tokens": MAX_TOKENS, "temperature": 0.8, "seed": seed}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    path = "chat/completions"
    body["messages"] = [{"role": "user", "content": problem.problem}]
    if target == "dynasor":
        # It writes chats in DeepSeek's template, so it gets the complete prompt.
        del body["messages"], body["seed"], body["stream_options"]
        path, body["prompt"] = "completions", f"<|user|>{problem.problem}<|end|><|assistant|>"
    answer = httpx.post(f"{url}/v1/{path}", json=body, timeout=120, trust_env=False, headers=_HEADERS)
    events = [json.loads(data) for data in EventReader().feed(answer.content) if data != DONE]
    pieces = [piece for event in events if (piece := _text(event))]
    usage: dict[str, int] = next((event["usage"] for event in reversed(events) if event.get("usage")), {})
    claim = None
    if target == "entroplain":
        health = httpx.get(f"{url}/health", trust_env=False).json()
        claim = float(health["monitor"].get("cost", {}).get("savings_percent", 0.0)) / 100
    grader = open_grader()
    extracted = grader.extract("".join(pieces))
    return Outcome(
        generated=generated(server) - before,
        right=extracted is not None and problem.target is not None and grader.grade(extracted, problem.target),
        answered=extracted is not None,
        events=len(pieces),
        reported=usage.get("completion_tokens"),
        claim=claim,
    )


def _text(event: dict[str, list[dict[str, dict[str, str] | str | None]]]) -> str:
    for choice in event.get("choices") or []:
        source = choice.get("delta", choice)
        if isinstance(source, dict):
            return "".join(text for key in _TEXTS if isinstance(text := source.get(key), str))
    return ""


def generated(server: str) -> float:
    """The generated tokens of the server, read when it is idle."""
    while any(slot["is_processing"] for slot in httpx.get(f"{server}/slots", trust_env=False).json()):
        time.sleep(0.01)
    match = _COUNTER.search(httpx.get(f"{server}/metrics", trust_env=False).text)
    if match is None:
        raise SystemExit("llama.cpp shows no counter of generated tokens")
    return float(match[1])


def show(outcomes: dict[str, list[Outcome]]) -> dict[str, object]:
    """Print a table and return it for JSON."""
    direct = outcomes["direct"]
    print(f"\n{len(direct)} problems, tokens by llama.cpp's own counter, changes against direct with 95 % intervals")
    print(f"{'':12}{'tokens':>8}{'told':>8}{'really saved':>24}{'claims':>9}{'right':>8}{'change in accuracy':>28}"
          f"{'pieces':>8}")  # fmt: skip
    out: dict[str, object] = {}
    for name, rows in outcomes.items():
        tokens = sum(row.generated for row in rows)
        reported = sum(row.reported for row in rows if row.reported is not None)
        everywhere = all(row.reported is not None for row in rows)
        claims = [row.claim for row in rows if row.claim is not None]
        saving = saving_bootstrap(_column(rows, "generated"), _column(direct, "generated"))
        change = paired_bootstrap(_column(rows, "right") - _column(direct, "right"))
        right = statistics.mean(row.right for row in rows)
        pieces = statistics.median(row.events for row in rows)
        claim = f"{statistics.mean(claims):.1%}" if claims else "–"
        print(
            f"{name:12}{tokens:8,.0f}{f'{reported:,.0f}' if everywhere else '–':>8}{_percent(saving):>24}{claim:>9}"
            f"{right:8.1%}{_percent(change):>28}{pieces:8.0f}"
        )
        out[name] = {
            "problems": len(rows), "generated": tokens, "told": reported if everywhere else None,
            "saving": saving, "claimed": statistics.mean(claims) if claims else None,
            "accuracy": right, "answered": statistics.mean(row.answered for row in rows), "change": change,
            "pieces": pieces,
        }  # fmt: skip
    return out


def _column(rows: list[Outcome], name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([float(getattr(row, name)) for row in rows])


def _percent(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return "–"
    return f"{estimate.value:+.1%} [{estimate.low:+.1%}, {estimate.high:+.1%}]"


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
