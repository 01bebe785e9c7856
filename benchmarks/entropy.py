"""Times the entropy of log-probabilities against NumPy and other tools' functions: `python -m benchmarks.entropy`.

The lower bound is one `np.exp` pass over the same (T, 20) array. The textbook form normalises, takes logarithms and
sums. The other tools' functions are `entroplain`'s `calculate_entropy_from_logprobs`, called with a list for each
token, and `deepconf`'s `compute_confidence`, called with vLLM's dictionary of entries for each token. All functions
take turns in one process, in the other tools' own environment (`benchmarks/peers/signals.txt`, which is created if it
does not exist).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.recipes import environment
from benchmarks.timing import rounds_of, write
from justenough.signal.entropy import entropy_of, token_entropy

TOKENS: Final = 20_000
SOME: Final = 2_000
"""Number of tokens for slow functions."""
ROUNDS: Final = 31
ROOT: Final = Path(__file__).parents[1]
FLOOR: Final = "one np.exp pass"
OURS: Final = "token_entropy of the array"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Logprob:
    """The part of vLLM's class `Logprob` that `deepconf` reads."""

    logprob: float


def textbook(logprobs: Floats) -> Floats:
    """`-Σ p log2 p`, computed directly."""
    probabilities = np.exp(logprobs)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    bits: Floats = -np.sum(probabilities * np.log2(probabilities + 1e-12), axis=1)
    return bits


def module(package: str, name: str) -> ModuleType:
    """Load a module from its file, because importing its package would import vLLM or every provider."""
    package_spec = importlib.util.find_spec(package)
    if package_spec is None or not package_spec.submodule_search_locations:
        raise ModuleNotFoundError(package)
    path = Path(package_spec.submodule_search_locations[0]) / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{package}_{name}", path)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(str(path))
    loaded = importlib.util.module_from_spec(spec)
    # Data classes look for their module in `sys.modules`.
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def peers(rows: list[list[float]]) -> dict[str, Callable[[], object]]:
    """Calls of the other tools' functions on these rows."""
    entropy = module("entroplain", "monitor").calculate_entropy_from_logprobs
    confidence = module("deepconf", "utils").compute_confidence
    entries = [{token: Logprob(value) for token, value in enumerate(row)} for row in rows]
    return {
        "entroplain 0.2.2": lambda: [entropy(row) for row in rows],
        "deepconf 0.1.0": lambda: confidence(entries),
    }


def measure(*, beside: bool) -> dict[str, list[float]]:
    """Seconds per token of each function, for every round."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(TOKENS, 100)) * 4
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    block = np.ascontiguousarray(-np.sort(-logprobs, axis=1)[:, :20])
    rows, out = block[:SOME].tolist(), np.empty_like(block)
    functions: dict[str, Callable[[], object]] = {
        FLOOR: lambda: np.exp(block, out=out),
        OURS: lambda: token_entropy(block),
        "textbook form": lambda: textbook(block),
        "token_entropy of lists": lambda: token_entropy(rows),
        "entropy_of each token": lambda: [entropy_of(row, top_k=20) for row in rows],
    }
    slow = {"token_entropy of lists", "entropy_of each token"}
    if beside:
        others = peers(rows)
        functions |= others
        slow |= others.keys()
    # Processor time, because other processes on this machine would distort the clock's time.
    seconds = rounds_of(functions, rounds=ROUNDS, clock=time.process_time)
    return {name: [value / (SOME if name in slow else TOKENS) for value in values] for name, values in seconds.items()}


def beside_peers() -> dict[str, list[float]]:
    """Run `measure` in the other tools' environment; raises `OSError` if it cannot be created."""
    programs = environment("signals")
    search_path = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    command = [str(programs / "python"), "-m", "benchmarks.entropy", "--beside"]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": search_path}
    )
    seconds: dict[str, list[float]] = json.loads(done.stdout)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> tuple[float, float, float]:
    """Median of the rounds' ratios, and the limits of their middle half."""
    rounds = np.array(seconds[name]) / np.array(seconds[base])
    low, middle, high = np.quantile(rounds, (0.25, 0.5, 0.75)).tolist()
    return middle, low, high


def main() -> None:
    """Time blocks, single tokens and the other tools' functions."""
    if sys.argv[1:] == ["--beside"]:
        print(json.dumps(measure(beside=True)))
        return
    try:
        seconds = beside_peers()
    except OSError as error:
        print(f"the other tools cannot run here: {error}")
        seconds = measure(beside=False)
    print(f"({TOKENS:,}, 20) array, {SOME:,} tokens for slower functions; processor time, {ROUNDS} rounds in turn")
    print("median; x one pass [middle half]; x token_entropy of the array [middle half]")
    table: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name, values in seconds.items():
        table[name] = {"floor": ratio(seconds, name, FLOOR), "token_entropy": ratio(seconds, name, OURS)}
        cells = "   ".join(f"{middle:7.2f} [{low:.2f}, {high:.2f}]" for middle, low, high in table[name].values())
        print(f"{name:>26}: {1e6 * float(np.median(values)):7.3f} µs per token   {cells}")
    write("entropy", {"tokens": TOKENS, "rounds": ROUNDS, "seconds": seconds, "ratios": table})


if __name__ == "__main__":
    main()
