"""Measures the plugin's cost inside vLLM.

    python -m benchmarks.vllm_overhead
    python -m benchmarks.vllm_overhead --model FOLDER --rounds 5 --tokens 30

One server on the CPU (`make test-vllm` installs it) with the plugin. At batch 1, 8 and 32 the same greedy requests are
sent, in turn without and with the gate, whose threshold is never met. What is compared is the processor time of the
worker's thread for a token of each request: the model, the logits, the plugin and the sampler. The plugin's own part of
it is measured too, because two rounds differ by more than that. Time on the clock, which other programs on the machine
disturb, stands beside it. The goal is at most 2 % more with the gate. Without `--model` it is the embedded model of 0.9
million parameters, whose tokens take less time than any real model's. A real one: FOLDER has it in Hugging Face form,
as `python -m benchmarks.real.lora --model FILE.gguf --out FOLDER` writes it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray

from justenough.files import write_text
from tests.conftest import CHECKPOINT
from tests.e2e.gateway.through import MODEL, TEXT
from tests.unit.gateway.serving import calibration_of
from tests.vllm.conftest import IS_V2, PATIENCE_S, REASONING, serving

RESULTS: Final = Path(__file__).parent / "results"
BATCHES: Final = (1, 8, 32)
TAGS: Final = ("--reasoning-config", '{"reasoning_start_str": "<think>", "reasoning_end_str": "</think>"}')
PLUGIN: Final = (
    "--logits-processors",
    "justenough:VLLMProcessor",
    "--worker-extension-cls",
    "benchmarks.vllm_timed.Timed",
)


class Round(NamedTuple):
    """Milliseconds for a token of each request in a batch."""

    step: float
    """Processor time of the worker's thread."""
    plugin: float
    """The part of it that the plugin takes."""
    clock: float


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    calibration = calibration_of(-1.0, model=MODEL, temperature=0.0).dumps()
    gates: dict[str, dict[str, object]] = {"without": {}, "with": {"vllm_xargs": {"justenough": calibration}}}
    measured: dict[int, dict[str, object]] = {}
    thought = REASONING if args.model is None else TAGS
    options = (*thought, *PLUGIN, "--max-num-seqs", "32", "--max-model-len", "512")
    checkpoint: Path = args.model or CHECKPOINT
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "log", *options, checkpoint=checkpoint, VLLM_SERVER_DEV_MODE="1") as url,
    ):
        for batch in BATCHES:
            # The first round warms up.
            taken = range(args.rounds + 1)
            rounds = [[round_of(url, batch, args.tokens, gate) for gate in gates.values()] for _ in taken][1:]
            without, gated = np.median(np.array(rounds), axis=0)
            shares = np.array([one.plugin / (one.step - one.plugin) for _, one in rounds])
            ratios = np.array([one.step / other.step - 1 for other, one in rounds])
            measured[batch] = {
                "without": Round(*without)._asdict(),
                "with": Round(*gated)._asdict(),
                "with_over_without": interval(ratios),
                "plugin": interval(shares),
            }
            print(
                f"batch {batch}: {without[0]:.2f} → {gated[0]:.2f} ms of the processor a token, {shown(ratios)};"
                f" the plugin's own {gated[1] * 1000:.0f} µs are {shown(shares)}; {without[2]:.2f} → {gated[2]:.2f} ms"
                " on the clock",
                flush=True,
            )
    runner, model = "V2" if IS_V2 else "V1", "embedded" if args.model is None else checkpoint.resolve().name
    report = {"model": model, "runner": runner, "rounds": args.rounds, "tokens": args.tokens, "batch": measured}
    write_text(RESULTS / f"vllm_overhead.{model}.json", json.dumps(report, indent=2) + "\n")
    return 0


def interval(ratios: NDArray[np.float64]) -> list[float]:
    """The median with its 95 % bootstrap interval over rounds."""
    chosen = np.random.default_rng(0).integers(ratios.size, size=(2000, ratios.size))
    low, high = np.quantile(np.median(ratios[chosen], axis=1), (0.025, 0.975))
    return [float(np.median(ratios)), float(low), float(high)]


def shown(ratios: NDArray[np.float64]) -> str:
    """The interval in percent."""
    middle, low, high = interval(ratios)
    return f"{middle:+.1%} [{low:+.1%}, {high:+.1%}]"


def round_of(url: str, batch: int, tokens: int, gate: dict[str, object]) -> Round:
    """A batch of equal requests."""
    # With the opening tag, so that all is a thought.
    body = (
        TEXT | {"prompt": f"{TEXT['prompt']}<think>", "temperature": 0, "max_tokens": tokens, "ignore_eos": True} | gate
    )

    def ask(_: int) -> None:
        httpx.post(f"{url}/v1/completions", json=body, timeout=PATIENCE_S).raise_for_status()

    before = processor_seconds(url)
    with ThreadPoolExecutor(batch) as pool:
        begin = time.perf_counter()
        list(pool.map(ask, range(batch)))
        clock = time.perf_counter() - begin
    after = processor_seconds(url)
    spent = (after["steps"] - before["steps"], after["plugin"] - before["plugin"], clock)
    return Round(*(1000 * seconds / tokens for seconds in spent))


def processor_seconds(url: str) -> dict[str, float]:
    """The worker's own count."""
    answer = httpx.post(f"{url}/collective_rpc", json={"method": "processor_seconds"}, timeout=PATIENCE_S)
    (seconds,) = answer.raise_for_status().json()["results"]
    counted: dict[str, float] = seconds
    return counted


if __name__ == "__main__":
    sys.exit(main())
