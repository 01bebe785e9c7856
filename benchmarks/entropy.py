"""Entropy of log-probabilities against NumPy's own floor: `python -m benchmarks.entropy`.

The floor is one `np.exp` pass over the same (T, 20) array; the textbook form normalises, takes logarithms and sums.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import alternating, write
from justenough.entropy import entropy_of, token_entropy

TOKENS = 20_000


def textbook(logprobs: NDArray[np.float64]) -> NDArray[np.float64]:
    """`-Σ p log2 p` as it is written down."""
    probabilities = np.exp(logprobs)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    bits: NDArray[np.float64] = -np.sum(probabilities * np.log2(probabilities + 1e-12), axis=1)
    return bits


def main() -> None:
    """Time blocks and single tokens."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(TOKENS, 100)) * 4
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    block = np.ascontiguousarray(-np.sort(-logprobs, axis=1)[:, :20])
    row = tuple(block[0].tolist())
    out = np.empty_like(block)
    seconds = alternating(
        {
            "np.exp, one pass": lambda: np.exp(block, out=out),
            "token_entropy": lambda: token_entropy(block),
            "textbook form": lambda: textbook(block),
            "entropy_of, 2,000 single tokens": lambda: [entropy_of(row, top_k=20) for _ in range(2000)],
        },
        rounds=15,
    )
    floor = seconds["np.exp, one pass"]
    single = seconds.pop("entropy_of, 2,000 single tokens") / 2000
    print(f"({TOKENS:,}, 20) block, median of 15 rounds, side by side")
    for name, value in seconds.items():
        print(f"{name:>20}: {1e6 * value / TOKENS:7.3f} µs a token, {value / floor:5.2f} x the floor")
    print(f"{'single token':>20}: {1e6 * single:7.2f} µs")
    write(
        "entropy",
        {
            "tokens": TOKENS,
            "ratio_to_exp": {name: value / floor for name, value in seconds.items()},
            "single_token_us": 1e6 * single,
        },
    )


if __name__ == "__main__":
    main()
