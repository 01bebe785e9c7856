"""When a token leaves the network: by the entropy at an off-ramp (DeeBERT) or by the margin between its two likeliest
tokens (CALM)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.signal.entropy import token_entropy

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Leaving(Protocol):
    """Decides at each off-ramp; the smaller the `threshold` of CALM, or the larger that of DeeBERT, the earlier."""

    @property
    def name(self) -> str:
        """The rule and its threshold, as the model's name carries it."""

    def leaves(self, logprobs: Floats) -> Bools:
        """Which tokens leave here (B,), from the natural log-probabilities (B, V) of the off-ramp's head."""


@dataclass(frozen=True, slots=True)
class DeeBert:
    """Leaves at the first layer whose entropy is below `bits` (DeeBERT, arXiv 2004.12993).

    Theirs: the rule, one threshold for all layers, chosen by hand for the speed wanted, and off-ramps trained with the
    backbone frozen. Theirs is about sentence classification by an encoder; ours is each token of a decoder, over the
    whole vocabulary and in bits (they take nats), and the state that is handed on for later tokens, which is CALM's.
    """

    bits: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.bits) or self.bits < 0:
            raise InputError(f"an entropy threshold of {self.bits} bits", hint="at least 0, which never leaves")

    @property
    def name(self) -> str:
        """`deebert@BITS`."""
        return f"deebert@{self.bits!r}"

    def leaves(self, logprobs: Floats) -> Bools:
        """Where the entropy is below the threshold."""
        return token_entropy(logprobs, tail="full") < self.bits


@dataclass(frozen=True, slots=True)
class Calm:
    """Leaves at the first layer whose softmax response, the probability of the likeliest token less that of the second,
    is at least `margin` (CALM, arXiv 2207.07061).

    Theirs: this measure, the propagation of the state, and a margin that is calibrated by Learn-then-Test so that the
    text stays consistent with the whole network's. Ours: the same margin at each position (they also let it decay), the
    risk as the share of *answers* that differ, and an exact binomial test, since that risk is 0 or 1.
    """

    margin: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.margin) or self.margin < 0:
            raise InputError(f"a margin of {self.margin}", hint="from 0 to 1; above 1 no token leaves")

    @property
    def name(self) -> str:
        """`calm@MARGIN`."""
        return f"calm@{self.margin!r}"

    def leaves(self, logprobs: Floats) -> Bools:
        """Where the margin is reached."""
        top = np.exp(np.partition(logprobs, -2, axis=1)[:, -2:])
        reached: Bools = top[:, 1] - top[:, 0] >= self.margin
        return reached


NEVER: Final = Calm(2.0)
"""Never leaves."""
