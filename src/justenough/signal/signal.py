"""Which bits are measured. A threshold is valid only for the signal that it was calibrated on."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final, Literal, get_args

from justenough.errors import InputError, SignalMismatch
from justenough.files import Json
from justenough.signal.combination import Combination
from justenough.signal.entropy import TAILS, Tail
from justenough.signal.pooling import POOLINGS, Field, Measured, pool

Logits = Literal["raw", "processed", "unknown"]

MIN_COVERAGE: Final = 0.95
"""Share of a step's tokens that must have log-probabilities; below it the run does not stop."""
COMBINATION: Final = "combination"
"""Name of the pooling that uses a fitted `Combination`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """How uncertainty is measured. Values of different signals are never compared."""

    kind: str = "entropy"
    """`entropy`, in bits, or the name of a stand-in scalar (higher = less sure)."""
    top_k: int | None = 20
    """Log-probabilities measured for each token; None for a stand-in."""
    tail: Tail = "renormalise"
    """How the mass outside the top k is treated."""
    pooling: str = "mean"
    """How token entropies become one number for a step: a name in `POOLINGS`, or `combination`."""
    splitter: str = "completion"
    """Where a step ends: `completion`, `paragraph`, `sentence` or `tokens:N`."""
    logits: Logits = "unknown"
    """Whether log-probabilities are from before (`raw`) or after (`processed`) temperature and other samplers."""
    temperature: float | None = None
    """Sampling temperature; None if it was not recorded."""
    combination: Combination | None = None
    """The fitted weights of the pooling `combination`, whose values are P(wrong) instead of bits."""

    def __post_init__(self) -> None:
        if self.tail not in TAILS:
            raise InputError(f"unknown tail treatment {self.tail!r}", hint=f"one of {', '.join(TAILS)}")
        if self.logits not in get_args(Logits):
            raise InputError(f"logits is {self.logits!r}", hint=f"one of {', '.join(get_args(Logits))}")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}", hint="at least 1; the paper takes 20")
        if (self.combination is not None) != (self.pooling == COMBINATION):
            raise InputError(
                "the pooling `combination` needs fitted weights, and only it has them",
                hint="justenough calibrate --pooling combination",
            )
        if self.kind == "entropy" and self.pooling not in (*POOLINGS, COMBINATION):
            names = ", ".join((*POOLINGS, COMBINATION))
            raise InputError(f"unknown pooling {self.pooling!r}", hint=f"one of {names}")

    @property
    def unit(self) -> str:
        """Unit of the values: `bits`, `P(wrong)`, or a stand-in's name."""
        if self.combination is not None:
            return "P(wrong)"
        return "bits" if self.kind == "entropy" else self.kind

    @property
    def probed(self) -> bool:
        """Whether the value comes from an elicited answer: the stand-in's name contains `probe` or `answer`."""
        return self.kind != "entropy" and ("probe" in self.kind or "answer" in self.kind)

    @property
    def needs(self) -> tuple[Field, ...]:
        """Fields of a step that the pooling needs."""
        if self.combination is not None:
            return self.combination.needs
        return (POOLINGS[self.pooling].needs,) if self.kind == "entropy" else ()

    def of(self, measured: Measured) -> float | None:
        """A step's value; None if the step lacks what the pooling needs."""
        if self.combination is not None:
            return self.combination.value(measured)
        return pool(measured, self.pooling) if measured.entropies else None

    def pooled_as(self, other: Signal) -> Signal:
        """This signal with the pooling of another one."""
        return replace(self, pooling=other.pooling, combination=other.combination)

    def differences(self, other: Signal, *, own: str = "this signal's") -> tuple[str, ...]:
        """The differences, as `top_k is 5, OWN 20`; empty if both measure the same.

        `own` says whose this signal is, for example `the calibration's`.
        """
        return tuple(
            f"{field.name} is {theirs!r}, {own} {mine!r}"
            for field in fields(self)
            if (mine := getattr(self, field.name)) != (theirs := getattr(other, field.name))
        )

    def require(self, other: Signal, *, what: str, own: str) -> None:
        """Raise `SignalMismatch` if `other`, the signal of `what`, measures something else.

        `own` says whose this signal is, for example `the calibration's`.
        """
        if different := self.differences(other, own=own):
            raise SignalMismatch(
                f"{what} were measured differently: {'; '.join(different)}",
                hint="calibrate on traces of the same signal",
            )

    def to_json(self) -> dict[str, Json]:
        """A JSON object, keys as in the exchange format; `combination` only if there is one."""
        plain: dict[str, Json] = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name != "combination"
        }
        return plain if self.combination is None else plain | {"combination": self.combination.to_json()}


def coverage(entries: int, tokens: int) -> float:
    """Entries of log-probabilities over tokens, at most 1; 0 for an empty step."""
    return min(1.0, entries / tokens) if tokens > 0 else 0.0
