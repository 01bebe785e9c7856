"""Measures the entropy kernel on a GPU: `python -m benchmarks.entropy_kernel [--rows N] [--vocabulary N]`.

The times of one call on logits (rows, vocabulary) in bf16 and fp32: one read of the logits (a maximum), the kernel, an
entropy by `torch.softmax`, and the log-probabilities of the 20 largest, which a server returns. The goal is at most
1.25 times one read. Without a GPU it checks the kernel in Triton's interpreter (TRITON_INTERPRET=1).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from justenough.integrations.kernel import measure
from justenough.integrations.logits import plain

RESULTS: Final = Path(__file__).parent / "results" / "entropy_kernel.json"
GOAL: Final = 1.25


def main() -> int:
    """Measure, print and write; the exit code is 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8, 32, 256])
    parser.add_argument("--vocabulary", type=int, default=151_936)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        logits = torch.randn(2, 5_000) * 4
        difference = float((measure(logits).bits - plain(logits.double()).bits).abs().max())
        print(f"no GPU: nothing is measured; the kernel differs from float64 by {difference:.2g} bits at most")
        return 0
    measured: list[dict[str, object]] = []
    for kind in (torch.bfloat16, torch.float32):
        for rows in args.rows:
            logits = torch.randn(rows, args.vocabulary, device="cuda").mul_(4).to(kind)
            times = {name: timed(way, logits) for name, way in WAYS.items()}
            error = float((measure(logits).bits - plain(logits.double()).bits).abs().max())
            ratio = times["kernel"] / times["one read"]
            measured.append({"type": str(kind), "rows": rows, "us": times, "ratio": ratio, "error_bits": error})
            print(f"{kind} {rows} rows: {times}, {ratio:.2f} times one read, error {error:.2g} bits")
    RESULTS.parent.mkdir(exist_ok=True)
    report = {"device": torch.cuda.get_device_name(), "vocabulary": args.vocabulary, "measured": measured}
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    return int(any(float(str(one["ratio"])) > GOAL for one in measured if one["rows"] == max(args.rows)))


def by_softmax(logits: torch.Tensor) -> torch.Tensor:
    """The usual entropy, in several passes."""
    probabilities = torch.softmax(logits.float(), -1)
    return -(probabilities * probabilities.clamp_min(1e-30).log2()).sum(-1)


WAYS: Final[dict[str, Callable[[torch.Tensor], object]]] = {
    "one read": lambda logits: logits.amax(-1),
    "kernel": measure,
    "softmax": by_softmax,
    "top 20": lambda logits: torch.log_softmax(logits.float(), -1).topk(20),
}


def timed(way: Callable[[torch.Tensor], object], logits: torch.Tensor) -> float:
    """The median time of a call in microseconds."""
    for _ in range(10):
        way(logits)
    times = []
    for _ in range(50):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        way(logits)
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
