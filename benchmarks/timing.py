"""Times functions side by side in one run, because machines are shared and noisy."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).parent / "results"


def rounds_of(
    functions: Mapping[str, Callable[[], object]], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each function in each round; they take turns, so a busy moment affects all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            begun = clock()
            function()
            seconds[name].append(clock() - begun)
    return seconds


def alternating(functions: Mapping[str, Callable[[], object]], *, rounds: int = 7) -> dict[str, float]:
    """Median seconds of each function over the rounds of `rounds_of`."""
    return {name: statistics.median(times) for name, times in rounds_of(functions, rounds=rounds).items()}


def write(name: str, value: Mapping[str, object]) -> None:
    """Write a result as JSON."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n")
