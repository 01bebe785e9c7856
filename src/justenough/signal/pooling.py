"""From what a step's tokens said to one number, higher = less sure: the named poolings, and where the answer stands."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

import numpy as np

from justenough.signal.entropy import sequence_entropy

Field = Literal["entropies", "logprobs", "token_texts"]

WINDOW: Final = 16
"""Tokens in a window of the pooling `worst-window`."""
CLOSE: Final = "</think>"
"""Ends a thought."""

_LN2: Final = math.log(2)
_ONES: Final = np.ones(WINDOW)
_CUE: Final = re.compile(r"(?:\*\*)?\b(?:final\s+)?answer(?:\*\*)?\s*:\s*(?:\*\*)?[^\S\n]*", re.IGNORECASE)
_BOXED: Final = re.compile(r"\\boxed\s*\{")


class Measured(NamedTuple):
    """What is known of a step's tokens, one entry for each that came with log-probabilities."""

    entropies: Sequence[float]
    """Bits, shape (T,)."""
    logprobs: Sequence[float] | None = None
    """Natural log-probability of each chosen token, shape (T,)."""
    texts: Sequence[str] | None = None
    """Shape (T,); None where a token of the step is not among the entries."""
    scalar: float | None = None
    """A stand-in, where that is all there is."""
    tokens: int | None = None
    """Completion tokens behind a stand-in."""

    @property
    def length(self) -> int | None:
        """Entries, or a stand-in's tokens."""
        return len(self.entropies) or self.tokens

    def holds(self, field: Field) -> bool:
        """Whether a pooling that needs the field can be taken."""
        if field == "entropies":
            return len(self.entropies) > 0
        parallel = self.logprobs if field == "logprobs" else self.texts
        return parallel is not None and len(parallel) == len(self.entropies) > 0


@dataclass(frozen=True, slots=True)
class Pooling:
    """One way to a number, and the field of a step that it needs beside the entropies."""

    measure: Callable[[Measured], float | None]
    needs: Field = "entropies"


def answer_span(text: str, *, elicited: bool = False) -> tuple[int, int] | None:
    """Where the answer stands, as (begin, end) in `text`; None where no answer can be told from the thought.

    It stands behind the last cue such as "Answer:" up to the end of that line, or in the last `\\boxed{…}`; where a
    closed thought is followed by neither, or the text was elicited as an answer, it is all of it.
    """
    closed = text.rfind(CLOSE)
    start = closed + len(CLOSE) if closed >= 0 else 0
    cues = list(_CUE.finditer(text, start))
    if cues:
        begin = cues[-1].end()
        line = text.find("\n", begin)
        return _stripped(text, begin, len(text) if line < 0 else line)
    boxes = list(_BOXED.finditer(text, start))
    if boxes:
        return _stripped(text, boxes[-1].end(), _closing_brace(text, boxes[-1].end()))
    return _stripped(text, start, len(text)) if closed >= 0 or elicited else None


def _stripped(text: str, begin: int, end: int) -> tuple[int, int] | None:
    inside = text[begin:end]
    begin += len(inside) - len(inside.lstrip())
    end = begin + len(inside.strip())
    return (begin, end) if begin < end else None


def _closing_brace(text: str, begin: int) -> int:
    depth = 1
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return at
    return len(text)


def tokens_of(texts: Sequence[str], begin: int, end: int) -> tuple[int, int]:
    """The tokens that share a character with `begin:end` of their joined texts, as (first, past the last)."""
    first, last, seen = len(texts), 0, 0
    for at, text in enumerate(texts):
        if seen < end and seen + len(text) > begin:
            first, last = min(first, at), at + 1
        seen += len(text)
    return first, max(first, last)


def _answer(measured: Measured) -> float | None:
    """Mean over the tokens of the answer alone; None where there is none to be told from the thought."""
    texts = measured.texts or ()
    span = answer_span("".join(texts))
    if span is None:
        return None
    first, last = tokens_of(texts, *span)
    return sequence_entropy(measured.entropies[first:last])


def _surprisal(measured: Measured) -> float | None:
    """Mean `-log2 p` of the chosen tokens, bits; None where one had no probability at all."""
    total = -math.fsum(measured.logprobs or ()) / _LN2
    return max(0.0, total / len(measured.entropies)) if math.isfinite(total) else None


def _mean(measured: Measured) -> float:
    """Mean over all tokens: the paper's."""
    return sequence_entropy(measured.entropies)


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
    # To the last bit as numpy.quantile, which costs a step more than all other poolings together.
    bits = sorted(measured.entropies)
    below, weight = divmod(0.9 * (len(bits) - 1), 1)
    low, high = bits[int(below)], bits[min(int(below) + 1, len(bits) - 1)]
    return high - (high - low) * (1 - weight) if weight >= 0.5 else low + (high - low) * weight


def _maximum(measured: Measured) -> float:
    """The least sure token."""
    return max(measured.entropies)


def _total(measured: Measured) -> float:
    """The sum over the tokens: grows with length."""
    return math.fsum(measured.entropies)


POOLINGS: Final[Mapping[str, Pooling]] = MappingProxyType(
    {
        "mean": Pooling(_mean),
        "last-quarter": Pooling(_last_quarter),
        "worst-window": Pooling(_worst_window),
        "90th-percentile": Pooling(_ninetieth),
        "maximum": Pooling(_maximum),
        "sum": Pooling(_total),
        "answer-span": Pooling(_answer, "token_texts"),
        "surprisal": Pooling(_surprisal, "logprobs"),
    }
)
"""Ways from a step's tokens to one number in bits; `mean` is the paper's."""


def pool(measured: Measured, pooling: str) -> float | None:
    """One number for a step; None where the pooling needs what is not there, or finds no answer.

    A step without any token raises `LogprobsError`.
    """
    if not measured.entropies:
        return sequence_entropy(())
    chosen = POOLINGS[pooling]
    return chosen.measure(measured) if measured.holds(chosen.needs) else None
