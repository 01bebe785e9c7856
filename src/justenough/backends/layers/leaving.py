"""Rules for early exits: the entropy at an off-ramp (DeeBERT), or the margin between the two most likely tokens (CALM).

An off-ramp is a head behind a layer; it predicts the next token from the state there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.signal.entropy import token_entropy

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Leaving(Protocol):
    """Decides at each off-ramp. A smaller margin (CALM) or a larger threshold (DeeBERT) gives earlier exits."""

    @property
    def name(self) -> str:
        """The rule and its threshold, as part of the model's name."""

    def leaves(self, logprobs: Floats) -> Bools:
        """Which tokens exit here, shape (B,), from the natural log-probabilities (B, V) of the off-ramp."""


@dataclass(frozen=True, slots=True)
class DeeBert:
    """Exits at the first layer whose entropy is below `bits` (DeeBERT, arXiv 2004.12993).

    From the publication: the rule, one threshold for all layers that is chosen by hand for the desired speed, and
    off-ramps that are trained while the backbone is frozen. The publication classifies sentences with an encoder, in
    nats. Here the rule decides for each token of a decoder, over the whole vocabulary and in bits, and later tokens use
    the state that CALM propagates.
    """

    bits: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.bits) or self.bits < 0:
            hint = "use a number of at least 0; with 0 no token exits early"
            raise InputError(f"the entropy threshold is {self.bits} bits", hint=hint)

    @property
    def name(self) -> str:
        """The rule with its threshold, `deebert@BITS`."""
        return f"deebert@{self.bits!r}"

    def leaves(self, logprobs: Floats) -> Bools:
        """True where the entropy is below the threshold."""
        return token_entropy(logprobs, tail="full") < self.bits


@dataclass(frozen=True, slots=True)
class Calm:
    """Exits at the first layer where the most likely token leads the second by a probability of at least `margin`.

    CALM, arXiv 2207.07061. From the publication: this measure, the propagation of the state, and a margin that
    Learn-then-Test calibrates for consistency with the whole network. Different here: the margin is the same at each
    position (the publication also lets it decay), the risk is the share of *answers* that differ, and the test is an
    exact binomial test, because the loss of one problem is 0 or 1.
    """

    margin: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.margin) or self.margin < 0:
            hint = "use a number from 0 to 1; above 1 no token exits early"
            raise InputError(f"the margin is {self.margin}", hint=hint)

    @property
    def name(self) -> str:
        """The rule with its margin, `calm@MARGIN`."""
        return f"calm@{self.margin!r}"

    def leaves(self, logprobs: Floats) -> Bools:
        """True where the margin is reached."""
        top = np.exp(np.partition(logprobs, -2, axis=1)[:, -2:])
        reached: Bools = top[:, 1] - top[:, 0] >= self.margin
        return reached
