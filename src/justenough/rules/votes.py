"""Parallel thinking: all samples are drawn and vote, plainly or by weight of their own entropy, at equal tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from justenough.errors import InputError
from justenough.rules.rules import MissingField, Rule, Stopped
from justenough.trace import Step, Trace


def sampled(step: Step) -> bool:
    """Whether a step is a sample beside others, its own answer kept apart from the majority's."""
    return "sample" in step.extra


def own_answer(step: Step) -> tuple[str | None, bool]:
    """A sample's own answer and whether it is right: extended by `vote`, the step's answer is the majority's."""
    if not sampled(step):
        return step.answer, step.is_correct
    answer = step.extra["sample"]
    return (answer if isinstance(answer, str) else None), bool(step.extra.get("sample_correct"))


def entropy_weights(bits: Sequence[float]) -> list[float]:
    """`m / (m + H)` with m the mean over the samples: 1 for no entropy, a half for the usual, whatever the scale."""
    mean = sum(bits) / len(bits) if bits else 0.0
    return [mean / (mean + value) if mean > 0 else 1.0 for value in bits]


def elected(answers: Sequence[str | None], weights: Sequence[float]) -> str | None:
    """The answer of the largest weight in all, the earliest where several are; None where nobody answered."""
    totals: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + weight
    return max(totals, key=lambda answer: totals[answer]) if totals else None


@dataclass(frozen=True, slots=True)
class Vote:
    """All samples vote; `weighted`, each by `m / (m + H)`, with H its entropy and m the mean of the problem's samples.

    `samples` takes only the first so many. The steps must have been extended by `vote`. The tokens are those of all
    samples, so plain and weighted votes of as many samples cost the same.
    """

    weighted: bool = False
    samples: int | None = None

    @property
    def name(self) -> str:
        """`vote` or `vote-entropy`, with `:N` for the first N samples."""
        head = "vote-entropy" if self.weighted else "vote"
        return head if self.samples is None else f"{head}:{self.samples}"

    def replay(self, trace: Trace) -> Stopped:
        """After the last sample taken, with the answer that is voted for."""
        if trace.shape == "streaming" or not all(sampled(step) for step in trace.steps):
            raise MissingField(self.name, "each sample's own answer (extend vote)")
        steps = trace.steps[: self.samples]
        voices = [own_answer(step) for step in steps]
        answers = [answer for answer, _ in voices]
        weights = [1.0] * len(steps)
        if self.weighted:
            bits = [step.usable_bits(trace.signal) for step in steps]
            known = [value for value in bits if value is not None]
            if len(known) < len(bits):
                raise MissingField(self.name, "the entropies of every sample")
            weights = entropy_weights(known)
        voted = elected(answers, weights)
        return Stopped(
            step=len(steps),
            tokens=trace.tokens_to(len(steps)),
            correct=any(right for answer, right in voices if answer == voted and answer is not None),
            unanswered=voted is None,
            early=len(steps) < len(trace.steps),
        )


def _open(text: str, *, weighted: bool) -> Rule:
    if text and (not text.isdigit() or int(text) < 1):
        raise InputError(f"the rule vote:{text} needs a whole number of samples, at least 1", hint="vote:4")
    return Vote(weighted=weighted, samples=int(text) if text else None)


VOTES: Final[Mapping[str, Callable[[str], Rule]]] = MappingProxyType(
    {
        "vote": lambda text: _open(text, weighted=False),
        "vote-entropy": lambda text: _open(text, weighted=True),
    }
)
"""Name → rule from what stands behind its colon, empty for all samples."""
