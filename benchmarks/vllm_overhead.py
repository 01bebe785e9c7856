"""Measures the plugin's cost inside vLLM: `python -m benchmarks.vllm_overhead [--rounds N] [--tokens N]`.

One server on the CPU (`make test-vllm` installs it) with the plugin. At batch 1, 8 and 32 the same greedy requests are
sent, in turn without and with the gate, whose threshold is never met. The time of a token is a round's time divided by
the tokens of one request. The goal is at most 2 % more with the gate.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx

from tests.e2e.gateway.through import MODEL, TEXT
from tests.unit.gateway.serving import calibration_of
from tests.vllm.conftest import IS_V2, PATIENCE_S, REASONING, serving

RESULTS: Final = Path(__file__).parent / "results" / "vllm_overhead.json"
BATCHES: Final = (1, 8, 32)


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    args = parser.parse_args()
    calibration = calibration_of(-1.0, model=MODEL, temperature=0.0).dumps()
    gates: dict[str, dict[str, object]] = {"without": {}, "with": {"vllm_xargs": {"justenough": calibration}}}
    measured: dict[int, dict[str, float]] = {}
    options = (*REASONING, "--logits-processors", "justenough:VLLMProcessor", "--max-num-seqs", "32")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log", *options) as url:
        for batch in BATCHES:
            times: dict[str, list[float]] = {name: [] for name in gates}
            for number in range(args.rounds + 1):
                for name, gate in gates.items():
                    taken = round_of(url, batch, args.tokens, gate)
                    # The first round warms up.
                    times[name] += [taken] if number else []
            medians = {name: statistics.median(each) * 1000 for name, each in times.items()}
            overhead = statistics.median([b / a - 1 for a, b in zip(times["without"], times["with"], strict=True)])
            measured[batch] = {f"{name}_ms_per_token": value for name, value in medians.items()} | {
                "overhead": overhead
            }
            print(f"batch {batch}: {medians['without']:.2f} → {medians['with']:.2f} ms a token, {overhead:+.1%}")
    RESULTS.parent.mkdir(exist_ok=True)
    report = {"runner": "V2" if IS_V2 else "V1", "cpu": platform.processor(), "rounds": args.rounds, "batch": measured}
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def round_of(url: str, batch: int, tokens: int, gate: dict[str, object]) -> float:
    """Seconds for each token of a batch of equal requests."""
    body = TEXT | {"temperature": 0, "max_tokens": tokens, "ignore_eos": True} | gate

    def ask(_: int) -> None:
        httpx.post(f"{url}/v1/completions", json=body, timeout=PATIENCE_S).raise_for_status()

    with ThreadPoolExecutor(batch) as pool:
        begin = time.perf_counter()
        list(pool.map(ask, range(batch)))
        return (time.perf_counter() - begin) / tokens


if __name__ == "__main__":
    sys.exit(main())
