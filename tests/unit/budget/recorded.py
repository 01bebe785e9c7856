"""Recorded runs for the tests of the budget."""

from __future__ import annotations

import numpy as np

from justenough.budget import (
    Recorded,
    cross_fit,
)
from justenough.trace import Trace
from tests.builders import step, trace


def runs(n: int, *, seed: int = 0, signal: bool = True, gain: float = 0.7, steps: int = 3) -> list[Trace]:
    """Right and wrong answers apart by entropy, or not at all; wrong ones are mended by each further step."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        right = bool(rng.random() < 0.6)
        taken = []
        for _ in range(steps):
            bits = abs(float(rng.normal(0.3 if right or not signal else 0.9, 0.2)))
            taken.append(step(answer="1", correct=right, tokens=int(rng.integers(20, 60)), entropy=bits))
            right = right or bool(rng.random() < gain)
        made.append(trace(*taken, id=f"p-{number}"))
    return made


TRACES = runs(300)


HELD = Recorded.of(TRACES)


KNOWN = cross_fit(TRACES)


FIRST, ALL = sum(t.tokens_to(1) for t in TRACES), sum(t.tokens for t in TRACES)
