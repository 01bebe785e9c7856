"""Steps, traces and labelled sets for tests: what a test does not name has a harmless default."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from justenough.calibration.decider import FEATURES, Decider
from justenough.calibration.thresholds import Examples
from justenough.signal.signal import Signal
from justenough.trace import Shape, Step, Trace

SIGNAL = Signal(top_k=20, logits="raw", temperature=0.6)
DECIDER = Decider(
    features=FEATURES,
    centre=(0.5, 0.5, 0.3, 0.0, 2.0, 0.5),
    scale=(0.2, 0.2, 0.2, 0.1, 1.0, 0.3),
    weights=(1.0, 0.5, 0.25, 2.0, -0.5, -1.0),
    intercept=-1.0,
    limit=4,
    n=100,
)
"""A decider with plain numbers."""


def step(
    *entropies: float,
    answer: str | None = "1",
    correct: bool | None = True,
    tokens: int | None = None,
    top_logprobs: Sequence[Sequence[float]] | None = None,
    entropy: float | None = None,
    uncertainty: float | None = None,
    text: str = "",
) -> Step:
    """A step whose tokens all came with an entropy, unless `tokens` says that there were more."""
    rows = None if top_logprobs is None else tuple(tuple(row) for row in top_logprobs)
    recorded = entropies or None
    return Step(
        text=text,
        answer=answer,
        correct=correct,
        tokens=len(rows or entropies or (0,)) if tokens is None else tokens,
        entropies=recorded,
        top_logprobs=rows,
        entropy=entropy,
        uncertainty=uncertainty,
    )


def trace(
    *steps: Step,
    id: str = "p-1",
    task: str = "task",
    model: str = "model",
    family: str | None = None,
    group: str | None = None,
    shape: Shape = "sequential",
    signal: Signal = SIGNAL,
    seed: int | None = None,
) -> Trace:
    """A trace of the given steps, or of one."""
    return Trace(
        id=id,
        task=task,
        model=model,
        family=family,
        group=group,
        shape=shape,
        signal=signal,
        seed=seed,
        steps=steps or (step(0.5),),
    )


def population(
    n: int,
    *,
    seed: int = 0,
    right: float = 0.3,
    wrong: float = 0.9,
    sd: float = 0.15,
    accuracy: float = 0.6,
    rescued: float = 0.8,
    steps: int = 2,
    model: str = "model",
) -> list[Trace]:
    """`n` traces whose first-step entropies are Gaussian around `right` or `wrong`, as the answer is; at least 0."""
    rng = np.random.default_rng(seed)
    made: list[Trace] = []
    for number in range(n):
        first = bool(rng.random() < accuracy)
        bits = max(0.0, float(rng.normal(right if first else wrong, sd)))
        last = first or bool(rng.random() < rescued)
        later = step(0.2, answer="1" if last else "2", correct=last)
        begun = step(bits, answer="1" if first else "2", correct=first)
        made.append(trace(begun, *[later] * (steps - 1), id=f"p-{number}", model=model, group=f"level-{number % 3}"))
    return made


def examples(right: Sequence[float], wrong: Sequence[float]) -> Examples:
    """Labelled entropies without a last step."""
    return Examples(
        entropy=np.array([*right, *wrong], dtype=np.float64), correct=np.arange(len(right) + len(wrong)) < len(right)
    )
