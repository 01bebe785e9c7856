"""Pairs of models that a rule selects without looking at results; no pair is chosen by hand.

`effort`: a model with thinking off, then the same model with thinking on. `cascade`: within one maker's generation of
instruction-tuned models with published sizes, each smaller model, then each larger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Final, Literal, NamedTuple

GENERATIONS: Final[tuple[tuple[tuple[str, int], ...], ...]] = (
    (("Llama-3.2-1B-Instruct", 10), ("Llama-3.2-3B-Instruct", 30)),
    (
        ("Qwen2.5-3B-Instruct", 30),
        ("Qwen2.5-7B-Instruct", 70),
        ("Qwen2.5-14B-Instruct", 140),
        ("Qwen2.5-32B-Instruct", 320),
    ),
    (("Qwen3-0.6B", 6), ("Qwen3-1.7B", 17), ("Qwen3-4B", 40), ("Qwen3-8B", 80)),
    (("gemma-2-9b-it", 90), ("gemma-2-27b-it", 270)),
    (("Phi-3-mini-128k-instruct", 38), ("Phi-3-medium-128k-instruct", 140)),
)
"""Dense models of a generation from small to large, with their parameters in hundreds of millions: a token's price."""


class Sized(NamedTuple):
    """A pair, and the prices of a token of each model, in proportion to the parameters."""

    first: str
    then: str
    kind: Literal["effort", "cascade"]
    prices: tuple[int, int]

    @property
    def name(self) -> str:
        """`FIRST → THEN`."""
        return f"{self.first} → {self.then}"


def sized_pairs(models: Sequence[str]) -> list[Sized]:
    """All pairs that the rule selects from these models."""
    there = set(models)
    effort = [Sized(name, f"{name}-think", "effort", (1, 1)) for name in sorted(there) if f"{name}-think" in there]
    cascades = [
        Sized(small, large, "cascade", (price, dearer))
        for generation in GENERATIONS
        for (small, price), (large, dearer) in combinations(generation, 2)
        if {small, large} <= there
    ]
    return effort + cascades


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values in their order, adjusted for multiple tests (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, at in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = worst
    return adjusted
