"""Which bits are measured. A threshold is valid only for the signal that it was calibrated on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from justenough.entropy import TAILS, Tail, sequence_entropy
from justenough.errors import InputError, SignalMismatch

Logits = Literal["raw", "processed", "unknown"]

MIN_COVERAGE: Final = 0.95
"""Share of a step's tokens that must have come with log-probabilities; below it there is no stop."""
WINDOW: Final = 16
"""Tokens in a window of the pooling `worst-window`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What one number of uncertainty means, so that bits of one kind are never compared with bits of another."""

    kind: str = "entropy"
    """`entropy`, in bits, or the name of a stand-in scalar (higher = less sure)."""
    top_k: int | None = 20
    """Log-probabilities measured for each token; None for a stand-in."""
    tail: Tail = "renormalise"
    """What becomes of the mass outside the top k."""
    pooling: str = "mean"
    """How token entropies become one number for a step: a name in `POOLINGS`."""
    splitter: str = "completion"
    """Where a step ends: `completion`, `paragraph`, `sentence` or `tokens:N`."""
    logits: Logits = "unknown"
    """Whether log-probabilities are from before (`raw`) or after (`processed`) temperature and other samplers."""
    temperature: float | None = None
    """Sampling temperature; None where it was not recorded."""

    def __post_init__(self) -> None:
        if self.tail not in TAILS:
            raise InputError(f"unknown tail treatment {self.tail!r}", hint=f"one of {', '.join(TAILS)}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}", hint="at least 1; the paper takes 20")
        if self.kind == "entropy" and self.pooling not in POOLINGS:
            raise InputError(f"unknown pooling {self.pooling!r}", hint=f"one of {', '.join(POOLINGS)}")

    def differences(self, other: Signal) -> tuple[str, ...]:
        """What differs, as `top_k 20 is not 5`; empty where both measure the same."""
        return tuple(
            f"{field.name} {mine!r} is not {theirs!r}"
            for field in fields(self)
            if (mine := getattr(self, field.name)) != (theirs := getattr(other, field.name))
        )

    def require(self, other: Signal, *, what: str) -> None:
        """Raise `SignalMismatch` where `other`, the signal of `what`, measures something else."""
        if different := self.differences(other):
            raise SignalMismatch(
                f"{what} were measured differently: {'; '.join(different)}",
                hint="calibrate on traces of the same signal",
            )

    def to_json(self) -> dict[str, str | int | float | None]:
        """A JSON object, keys as in the exchange format."""
        return asdict(self)


def _last_quarter(entropies: Sequence[float]) -> float:
    """Mean over the last quarter of the tokens."""
    return sequence_entropy(entropies[-max(1, math.ceil(len(entropies) / 4)) :])


def _worst_window(entropies: Sequence[float]) -> float:
    """The largest mean over `WINDOW` consecutive tokens (DeepConf's lowest group confidence, in entropy)."""
    if len(entropies) <= WINDOW:
        return sequence_entropy(entropies)
    sums = np.convolve(np.asarray(entropies), np.ones(WINDOW), mode="valid")
    start = int(np.argmax(sums))
    return sequence_entropy(entropies[start : start + WINDOW])


def _ninetieth(entropies: Sequence[float]) -> float:
    """The 90th percentile of the tokens, interpolated."""
    return float(np.quantile(np.asarray(entropies), 0.9))


def _maximum(entropies: Sequence[float]) -> float:
    """The least sure token."""
    return max(entropies)


def _total(entropies: Sequence[float]) -> float:
    """The sum over the tokens: grows with length."""
    return math.fsum(entropies)


POOLINGS: Final[Mapping[str, Callable[[Sequence[float]], float]]] = MappingProxyType(
    {
        "mean": sequence_entropy,
        "last-quarter": _last_quarter,
        "worst-window": _worst_window,
        "90th-percentile": _ninetieth,
        "maximum": _maximum,
        "sum": _total,
    }
)
"""Ways from token entropies in bits, shape (T,), T ≥ 1, to one number; `mean` is the paper's."""


def pool(entropies: Sequence[float], pooling: str) -> float:
    """One number for a step from its token entropies (T,); an empty step raises `LogprobsError`."""
    if not entropies:
        return sequence_entropy(entropies)
    return POOLINGS[pooling](entropies)


def coverage(entries: int, tokens: int) -> float:
    """Entries of log-probabilities over tokens, at most 1; an empty step is covered by nothing."""
    return min(1.0, entries / tokens) if tokens > 0 else 0.0
