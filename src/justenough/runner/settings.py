"""Settings of a run, and the observer that watches it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from justenough.errors import InputError
from justenough.gate import Decision
from justenough.runner.branching import Branching, next_branch
from justenough.trace import Shape, Step, Token

Extend = Literal["refine", "wait", "effort", "cascade", "vote", "branch"]

SAMPLED: Final = ("vote", "branch")
"""Ways to extend whose steps are samples with a common vote."""
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
    branching: Branching | None = None
    """Where the samples of `extend` `branch` begin; only that needs it."""

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.max_tokens < 1 or self.top_k < 1:
            raise InputError("steps, tokens and top-k must be at least 1", hint="give positive numbers")
        if not 0 <= self.temperature <= 10:
            raise InputError(f"temperature {self.temperature} is outside 0 to 10", hint="0.6 to 1 is usual")
        if (self.extend == "branch") != (self.branching is not None):
            raise InputError("`branch` needs to know where samples begin, and only it does", hint="--branching NAME")
        if self.branching is not None and self.temperature == 0:
            raise InputError("at temperature 0 every branch repeats its first sample", hint="raise --temperature")

    def can_extend(self, steps: Sequence[Step]) -> bool:
        """Whether there is a place for a step after `steps`, apart from `max_steps`."""
        return self.branching is None or not steps or next_branch(steps, self.branching) is not None


class Observer(Protocol):
    """Watches a run as it happens."""

    def token(self, token: Token, *, step: int) -> None:
        """A token of a step has arrived; its `entropy` is in bits."""

    def step(self, step: Step, decision: Decision) -> None:
        """A step has ended and the gate has decided."""
