"""The answer after a step, as the published rivals read it.

In the streaming shape it is the elicited answer (`Step.probe`), whose tokens are spent at every step that a rule looks
at. In the sequential shape it is the text after the thought, which every step has without further tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from typing import Final, NamedTuple

import numpy as np

from justenough.rules.rules import MissingField
from justenough.signal.answers import answer_span
from justenough.signal.entropy import entropy_of
from justenough.signal.pooling import tokens_of
from justenough.signal.thought import THINK
from justenough.trace import Probe, Trace
from justenough.trace.batches import Batch
from justenough.trace.blocks import Floats
from justenough.trace.levels import Bools, Ints
from justenough.trace.sums import Sums

Values = Sequence[float] | None

_FRACTION: Final = re.compile(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}")
_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_LONGEST: Final = 60  # longer texts are not read as numbers

LACKING: Final = -math.inf
"""Stands for a value that the trace does not hold."""
PROBES: Final = "the probed answer of every step"


class Elicited(NamedTuple):
    """The answer after a step and the signal of its tokens; None where that was not recorded."""

    answer: str
    """As it was extracted."""
    spoken: str
    """All text after the thought, with the words before and after the answer."""
    entropies: Values
    """Bits of the answer's tokens, shape (T,)."""
    logprobs: Values
    """Natural log-probabilities of the chosen tokens, shape (T,)."""
    begin: int = 0
    """Number of tokens before the answer, such as a cue."""


def elicited(trace: Trace, number: int, *, rule: str) -> Elicited | None:
    """The answer after a step (from 1), or None if there is none; raises `MissingField` for what is not recorded.

    A cue such as "Answer:" is left out if the texts of the tokens show where it ends.
    """
    step = trace.steps[number - 1]
    if trace.shape == "streaming":
        probe = step.probe
        if probe is None:
            raise MissingField(rule, PROBES)
        if probe.answer is None:
            return None
        if probe.token_texts is None:
            return Elicited(probe.answer, probe.text or "", probe.entropies, probe.logprobs)
        return _parted(probe.answer, probe.token_texts, probe.entropies, probe.logprobs)
    if step.answer is None:
        # For example, the completion ended within its thought: no field is missing, there is just no answer.
        return None
    close = (trace.prompts.thought if trace.prompts is not None else THINK).close
    if all(other.token_texts is None for other in trace.steps):
        raise MissingField(rule, "the text of each token")
    if not any(close in other.text for other in trace.steps):
        raise MissingField(rule, f"the end of the thought ({close})")
    texts = step.token_texts
    if texts is None or close not in "".join(texts):
        return None
    return _parted(step.answer, texts, step.token_bits(trace.signal), step.logprobs, close=close)


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Numbers of the tokens of m answers: those of answer i are `begin[i]` to `end[i] - 1` among all values."""

    sums: Sums
    begin: Ints
    end: Ints

    def known(self, values: Floats) -> Floats:
        """One value of each answer, or `LACKING` where no token is recorded."""
        return np.where(self.end > self.begin, values, LACKING)

    def means(self) -> Floats:
        """The mean of each answer; `LACKING` where no token is recorded."""
        return self.known(self.sums.of(self.begin, self.end) / np.maximum(self.end - self.begin, 1))


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """The elicited answers of m steps as columns, with the fields of `Elicited`."""

    there: Bools
    """Whether there is an answer."""
    spoken: list[str]
    entropies: Parts
    logprobs: Parts
    begin: Ints


def answers_of(answers: Sequence[Elicited | None]) -> Answers:
    """Single answers as columns."""

    def parts(lists: list[Sequence[float]]) -> Parts:
        ends = np.cumsum([0, *map(len, lists)])
        return Parts(Sums(np.array(list(chain.from_iterable(lists)), dtype=np.float64)), ends[:-1], ends[1:])

    return Answers(
        there=np.array([one is not None for one in answers], dtype=np.bool_),
        spoken=["" if one is None else one.spoken for one in answers],
        entropies=parts([(one and one.entropies) or () for one in answers]),
        logprobs=parts([(one and one.logprobs) or () for one in answers]),
        begin=np.array([0 if one is None else one.begin for one in answers], dtype=np.int64),
    )


def elicited_answers(batch: Batch) -> Answers:
    """Like `elicited`, for all steps of a batch of streams; none at a last step, or at one without a probe."""
    probes = batch.probes
    codes, answers = probes.coded("answer")
    there = np.array([answer is not None for answer in answers])[codes]
    there[batch.offsets[1:] - 1] = False
    spoken, texts = [text or "" for text in probes.texts("text")], probes.token_texts()
    first, last, size, begin = np.zeros((4, probes.size), dtype=np.int64)
    for place in np.flatnonzero(there).tolist() if "token_texts" in probes.columns else ():
        if (parted := texts[place]) is not None:
            size[place] = len(parted)
            if (span := _span(parted)) is None:
                there[place] = False
            else:
                first[place], last[place], begin[place], spoken[place] = span

    def parts(name: str) -> Parts:
        if (numbers := probes.numbers(name)) is None:
            return Parts(Sums(np.zeros(0)), np.zeros_like(begin), np.zeros_like(begin))
        starts, ends = numbers.offsets[:-1], numbers.offsets[1:]
        fits = size == ends - starts
        return Parts(
            Sums(numbers.values),
            np.where(fits & (size > 0), starts + first, starts),
            np.where(size > 0, np.where(fits, starts + last, starts), ends),
        )

    return Answers(there, spoken, parts("entropies"), parts("logprobs"), begin)


def _parted(answer: str, texts: Sequence[str], bits: Values, logprobs: Values, *, close: str = "") -> Elicited | None:
    """The answer without thought and cue; None if nothing else is there. Without `close` the text has no thought."""
    if (span := _span(texts, close=close)) is None:
        return None
    first, last, begin, spoken = span
    return Elicited(
        answer=answer,
        spoken=spoken,
        entropies=tuple(bits[first:last]) if bits is not None and len(bits) == len(texts) else None,
        logprobs=tuple(logprobs[first:last]) if logprobs is not None and len(logprobs) == len(texts) else None,
        begin=begin,
    )


def _span(texts: Sequence[str], *, close: str = "") -> tuple[int, int, int, str] | None:
    """The first token of the answer and the one after its last, the number of tokens before it, and its text."""
    text = "".join(texts)
    span = answer_span(text, elicited=not close)
    if span is None:
        return None
    first, last = tokens_of(texts, *span)
    spoken = text.rpartition(close)[2] if close else text
    return first, last, max(0, first - tokens_of(texts, len(text) - len(spoken), len(text))[0]), spoken


def candidate_entropy(probe: Probe | None, begin: int = 0) -> float | None:
    """The entropy in bits over the candidate answers, by the log-probability of each one's first token.

    A probe records them under `candidates` (answer → natural log-probability, if the options are known), or under
    `top_logprobs` (a row for each token; the first row of the answer is read). None if neither is recorded: one
    candidate alone is no distribution, and a candidate without a log-probability could be the likely one.
    """
    if probe is None:
        return None
    options, rows = probe.extra.get("candidates"), probe.extra.get("top_logprobs")
    row = options if isinstance(options, dict) else rows[begin] if isinstance(rows, list) and begin < len(rows) else ()
    entries = row.values() if isinstance(row, dict) else row if isinstance(row, list) else ()
    values = [entry.get("logprob") if isinstance(entry, dict) else entry for entry in entries]
    known = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return entropy_of(known) if 1 < len(known) == len(values) else None


@lru_cache(maxsize=4096)
def answer_value(answer: str) -> str | Fraction:
    """The number that an answer states, so that 1/2, 0.5 and \\frac{1}{2} are equal; other answers stay text."""
    plain = _THOUSANDS.sub("", _FRACTION.sub(r"\1/\2", answer.strip().strip("$")))
    # A long text or one with an exponent could be a number that takes minutes to build.
    if len(plain) <= _LONGEST and "e" not in plain.lower():
        try:
            return Fraction(plain[:-1]) / 100 if plain.endswith("%") else Fraction(plain)
        except (ValueError, ZeroDivisionError):
            pass
    return answer.strip()
