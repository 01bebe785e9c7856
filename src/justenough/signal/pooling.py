"""The poolings: each makes one number, higher = less sure, of the measured tokens of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import numpy as np

from justenough.signal.answers import answer_span
from justenough.signal.entropy import sequence_entropy

Field = Literal["entropies", "logprobs", "token_texts"]

WINDOW: Final = 16
"""Tokens in a window of the pooling `worst-window`."""

_LN2: Final = math.log(2)
_ONES: Final = np.ones(WINDOW)


class Measured(NamedTuple):
    """The measured tokens of a step: one entry for each token with log-probabilities."""

    entropies: Sequence[float]
    """Bits, shape (T,)."""
    logprobs: Sequence[float] | None = None
    """Natural log-probability of each chosen token, shape (T,)."""
    texts: Sequence[str] | None = None
    """Shape (T,); None if a token of the step is not among the entries."""
    scalar: float | None = None
    """A stand-in, for a step without token entropies."""
    tokens: int | None = None
    """Completion tokens behind a stand-in."""

    @property
    def length(self) -> int | None:
        """Entries, or a stand-in's tokens."""
        return len(self.entropies) or self.tokens

    def holds(self, field: Field) -> bool:
        """Whether the step has what a pooling of this field needs."""
        if field == "entropies":
            return len(self.entropies) > 0
        parallel = self.logprobs if field == "logprobs" else self.texts
        return parallel is not None and len(parallel) == len(self.entropies) > 0


@dataclass(frozen=True, slots=True)
class Pooling:
    """A function of the measured tokens, and the field of a step that it needs besides the entropies."""

    measure: Callable[[Measured], float | None]
    needs: Field = "entropies"


def tokens_of(texts: Sequence[str], begin: int, end: int) -> tuple[int, int]:
    """The tokens that share a character with `begin:end` of their joined texts, as (first, past the last)."""
    first, last, length = len(texts), 0, 0
    for at, text in enumerate(texts):
        if length < end and length + len(text) > begin:
            first, last = min(first, at), at + 1
        length += len(text)
    return first, max(first, last)


def _answer(measured: Measured) -> float | None:
    """Mean over the tokens of the answer; None if the answer cannot be separated from the thought."""
    texts = measured.texts or ()
    span = answer_span("".join(texts))
    if span is None:
        return None
    first, last = tokens_of(texts, *span)
    return sequence_entropy(measured.entropies[first:last])


def _surprisal(measured: Measured) -> float | None:
    """Mean `-log2 p` of the chosen tokens, bits; None if one of them had the probability 0."""
    total = -math.fsum(measured.logprobs or ()) / _LN2
    return max(0.0, total / len(measured.entropies)) if math.isfinite(total) else None


def _last_quarter(measured: Measured) -> float:
    """Mean over the last quarter of the tokens."""
    bits = measured.entropies
    return sequence_entropy(bits[-max(1, math.ceil(len(bits) / 4)) :])


def _worst_window(measured: Measured) -> float:
    """The largest mean over `WINDOW` consecutive tokens (DeepConf's lowest group confidence, in entropy)."""
    bits = measured.entropies
    if len(bits) <= WINDOW:
        return sequence_entropy(bits)
    start = int(np.correlate(bits, _ONES, mode="valid").argmax())
    return sequence_entropy(bits[start : start + WINDOW])


def _ninetieth(measured: Measured) -> float:
    """The 90th percentile of the tokens, interpolated."""
    # Bit for bit equal to numpy.quantile, which takes longer than all other poolings together.
    bits = sorted(measured.entropies)
    below, weight = divmod(0.9 * (len(bits) - 1), 1)
    low, high = bits[int(below)], bits[min(int(below) + 1, len(bits) - 1)]
    return high - (high - low) * (1 - weight) if weight >= 0.5 else low + (high - low) * weight


POOLINGS: Final[Mapping[str, Pooling]] = MappingProxyType(
    {
        "mean": Pooling(lambda measured: sequence_entropy(measured.entropies)),
        "last-quarter": Pooling(_last_quarter),
        "worst-window": Pooling(_worst_window),
        "90th-percentile": Pooling(_ninetieth),
        "maximum": Pooling(lambda measured: max(measured.entropies)),
        "sum": Pooling(lambda measured: math.fsum(measured.entropies)),
        "answer-span": Pooling(_answer, "token_texts"),
        "surprisal": Pooling(_surprisal, "logprobs"),
    }
)
"""The poolings by name, in bits; the paper uses `mean`."""


def pool(measured: Measured, pooling: str) -> float | None:
    """One number for a step; None if the step lacks what the pooling needs.

    A step without any token raises `LogprobsError`.
    """
    if not measured.entropies:
        return sequence_entropy(())
    chosen = POOLINGS[pooling]
    return chosen.measure(measured) if measured.holds(chosen.needs) else None
