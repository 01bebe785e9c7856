"""Settings of a run, and the observer that watches it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from justenough.errors import InputError
from justenough.gate import Decision
from justenough.trace import Shape, Step, Token

Extend = Literal["refine", "wait", "effort", "cascade", "vote"]

EFFORTS: Final = ("low", "medium", "high")
PROBE_TOKENS: Final = 64
"""Token limit of an answer that is elicited after the thought."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The settings of a run, apart from model and problem."""

    shape: Shape = "sequential"
    """Whether a step is a completion or a segment of one thought."""
    extend: Extend = "refine"
    """How a sequential run continues after a step."""
    max_steps: int = 4
    """Number of the step after which a run always ends."""
    max_tokens: int = 512
    """Token limit of one completion."""
    temperature: float = 0.8
    """Sampling temperature; entropies are measured before it if the backend can do so."""
    top_k: int = 20
    """Number of log-probabilities for each token."""
    seed: int = 0
    """Part of the key of the sampling noise, with problem, step and position."""
    splitter: str | None = None
    """Where a streaming step ends; None: at a paragraph."""

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.max_tokens < 1 or self.top_k < 1:
            raise InputError("steps, tokens and top-k must be at least 1", hint="give positive numbers")
        if not 0 <= self.temperature <= 10:
            raise InputError(f"temperature {self.temperature} is outside 0 to 10", hint="0.6 to 1 is usual")


class Observer(Protocol):
    """Watches a run as it happens."""

    def token(self, token: Token, *, step: int) -> None:
        """A token of a step has arrived; its `entropy` is in bits."""

    def step(self, step: Step, decision: Decision) -> None:
        """A step has ended and the gate has decided."""
