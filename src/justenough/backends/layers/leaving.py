"""Rules for early exits: when a token leaves the network at an exit behind a layer.

An exit predicts the next token from the state behind its layer. CALM (arXiv 2207.07061) has three measures of
confidence: softmax response, hidden-state saturation and an early classifier. DeeBERT (arXiv 2004.12993) uses the
entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from justenough.backends.registry import split_number
from justenough.errors import InputError
from justenough.signal.entropy import token_entropy

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Behind(Protocol):
    """What a rule can see of B tokens at an exit. Each value is computed when a rule asks for it."""

    @property
    def logprobs(self) -> Floats:
        """Natural log-probabilities of the exit, (B, V)."""

    @property
    def similarity(self) -> Floats:
        """Cosine of the states before and behind the layer, (B,)."""

    @property
    def trust(self) -> Floats:
        """The chance that the exit predicts the token of the whole network, by the early classifier, (B,)."""


class Leaving(Protocol):
    """Decides at each exit. A smaller margin (CALM) or a larger threshold (DeeBERT) gives earlier exits."""

    @property
    def name(self) -> str:
        """The rule and its threshold, as part of the model's name."""

    def leaves(self, behind: Behind) -> Bools:
        """Which of the tokens exit here, shape (B,)."""


def _check(value: float, what: str, hint: str) -> None:
    if not math.isfinite(value) or value < 0:
        raise InputError(what, hint=hint)


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
        hint = "use a number of at least 0; with 0 no token exits early"
        _check(self.bits, f"the entropy threshold is {self.bits} bits", hint)

    @property
    def name(self) -> str:
        """The rule with its threshold, `deebert@BITS`."""
        return f"deebert@{self.bits!r}"

    def leaves(self, behind: Behind) -> Bools:
        """True where the entropy is below the threshold."""
        return token_entropy(behind.logprobs, tail="full") < self.bits


@dataclass(frozen=True, slots=True)
class Calm:
    """Exits at the first layer where the most likely token leads the second by a probability of at least `margin`.

    CALM's softmax response. From the publication: this measure, the propagation of the state, and a margin that
    Learn-then-Test calibrates for consistency with the whole network. Different here: the margin is the same at each
    position (the publication also lets it decay), the risk is about *answers*, and the test is an exact binomial test,
    because the loss of one problem is 0 or 1.
    """

    margin: float

    def __post_init__(self) -> None:
        hint = "use a number from 0 to 1; above 1 no token exits early"
        _check(self.margin, f"the margin is {self.margin}", hint)

    @property
    def name(self) -> str:
        """The rule with its margin, `calm@MARGIN`."""
        return f"calm@{self.margin!r}"

    def leaves(self, behind: Behind) -> Bools:
        """True where the margin is reached."""
        top = np.exp(np.partition(behind.logprobs, -2, axis=1)[:, -2:])
        reached: Bools = top[:, 1] - top[:, 0] >= self.margin
        return reached


@dataclass(frozen=True, slots=True)
class Saturation:
    """Exits at the first exit whose layer changes the state little: the cosine of its two states is at least `cosine`.

    CALM's hidden-state saturation. Only the tokens that leave need a head.
    """

    cosine: float

    def __post_init__(self) -> None:
        hint = "use a number from 0 to 1; above 1 no token exits early"
        _check(self.cosine, f"the cosine is {self.cosine}", hint)

    @property
    def name(self) -> str:
        """The rule with its threshold, `saturation@COSINE`."""
        return f"saturation@{self.cosine!r}"

    def leaves(self, behind: Behind) -> Bools:
        """True where the states are similar enough."""
        return behind.similarity >= self.cosine


@dataclass(frozen=True, slots=True)
class EarlyClassifier:
    """Exits where a linear classifier of the state gives at least `chance` that the exit predicts the right token.

    CALM's early classifier; the right token is that of the whole network. Here each exit has its own classifier, and it
    sees the normed state. Only the tokens that leave need a head.
    """

    chance: float

    def __post_init__(self) -> None:
        hint = "use a number from 0 to 1; above 1 no token exits early"
        _check(self.chance, f"the chance is {self.chance}", hint)

    @property
    def name(self) -> str:
        """The rule with its threshold, `classifier@CHANCE`."""
        return f"classifier@{self.chance!r}"

    def leaves(self, behind: Behind) -> Bools:
        """True where the classifier is sure enough."""
        return behind.trust >= self.chance


Measure = Literal["softmax", "saturation", "classifier", "entropy"]
_SHARES: Final = (0.9999, 0.9995, 0.999, 0.998, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
GRIDS: Final[Mapping[str, tuple[float, ...]]] = {
    "softmax": _SHARES,
    "saturation": (
        0.9999,
        0.9995,
        0.999,
        0.998,
        0.996,
        0.993,
        0.99,
        0.985,
        0.98,
        0.97,
        0.96,
        0.95,
        0.93,
        0.9,
        0.85,
        0.8,
    ),
    "classifier": _SHARES,
    "entropy": (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0),
}
"""Measure → the thresholds that are tested, the most cautious first. They are fixed before any of them is tested."""
_RULES: Final[Mapping[str, Callable[[float], Leaving]]] = {
    "softmax": Calm,
    "saturation": Saturation,
    "classifier": EarlyClassifier,
    "entropy": DeeBert,
}


def rule_of(measure: str, threshold: float) -> Leaving:
    """The rule of a measure with a threshold; raises `InputError` for an unknown measure."""
    if measure not in _RULES:
        raise InputError(f"there is no measure {measure!r}", hint=f"use one of {', '.join(_RULES)}")
    return _RULES[measure](threshold)


def parse_leave(spec: str) -> tuple[str, float | None]:
    """Measure and threshold of `MEASURE[@NUMBER]`; raises `InputError` for an unknown measure."""
    measure, number = split_number(spec)
    rule_of(measure, 0.0 if number is None else number)
    return measure, number
