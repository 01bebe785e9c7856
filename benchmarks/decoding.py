"""Measures tokens per second of the embedded model at batch 1, 8 and 32: `python -m benchmarks.decoding`."""

from __future__ import annotations

import asyncio
import time

from benchmarks.timing import write
from justenough.grading import Exact, read_tasks
from justenough.runner import Runner, RunSettings
from justenough.runner.collect import run_all
from justenough.toy.backend import EmbeddedBackend


async def speed(width: int, problems: int) -> tuple[float, int]:
    """Generated tokens per second without prompts, and the number of tokens."""
    backend = EmbeddedBackend(concurrency=width)
    runner = Runner(backend, RunSettings(), grader=Exact())
    tasks = read_tasks("arithmetic-calibration", limit=problems)
    await run_all(runner, tasks[:2], concurrency=width)  # loads the model
    begun = time.perf_counter()
    runs = await run_all(runner, tasks, concurrency=width)
    seconds = time.perf_counter() - begun
    await backend.close()
    tokens = sum(run.trace.tokens for run in runs)
    return tokens / seconds, tokens


def main() -> None:
    """Measure each width on enough problems for a few seconds."""
    speeds = {width: asyncio.run(speed(width, problems)) for width, problems in ((1, 20), (8, 80), (32, 240))}
    print("embedded model, one thread, whole runs of four steps")
    for width, (rate, tokens) in speeds.items():
        ratio = rate / speeds[1][0]
        print(f"batch {width:>2}: {rate:8,.0f} tokens/s, {ratio:4.1f} x batch 1 ({tokens:,} tokens)")
    write(
        "decoding", {str(width): {"tokens_per_s": rate, "tokens": tokens} for width, (rate, tokens) in speeds.items()}
    )


if __name__ == "__main__":
    main()
