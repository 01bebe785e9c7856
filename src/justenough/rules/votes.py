"""Parallel thinking: all samples vote, with equal weights or with weights from their own entropy, at equal tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from justenough.rules.rules import MissingField, Rule, Stopped, whole_number
from justenough.trace import Step, Trace


def sampled(step: Step) -> bool:
    """Whether a step is one of several samples and has its own answer apart from the majority's."""
    return "sample" in step.extra


def own_answer(step: Step) -> tuple[str | None, bool]:
    """A sample's own answer and whether it is right; in a run extended by `vote` the step has the majority's."""
    if not sampled(step):
        return step.answer, step.is_correct
    answer = step.extra["sample"]
    return (answer if isinstance(answer, str) else None), bool(step.extra.get("sample_correct"))


def entropy_weights(bits: Sequence[float]) -> list[float]:
    """`m / (m + H)` with m the mean over the samples: 1 without entropy, a half at the mean, on any scale."""
    mean = sum(bits) / len(bits) if bits else 0.0
    return [mean / (mean + value) if mean > 0 else 1.0 for value in bits]


def elected(answers: Sequence[str | None], weights: Sequence[float]) -> str | None:
    """The answer with the largest total weight, the earliest of equal ones; None if there is no answer."""
    totals: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + weight
    return max(totals, key=lambda answer: totals[answer]) if totals else None


@dataclass(frozen=True, slots=True)
class Vote:
    """All samples vote. With `weighted` a sample has the weight `m / (m + H)`: H is its entropy, m the problem's mean.

    With `samples` only the first samples vote. The run must have been extended by `vote`. The tokens are those of all
    samples, so plain and weighted votes of the same number of samples cost the same.
    """

    weighted: bool = False
    samples: int | None = None

    @property
    def name(self) -> str:
        """`vote` or `vote-entropy`, with `:N` for the first N samples."""
        head = "vote-entropy" if self.weighted else "vote"
        return head if self.samples is None else f"{head}:{self.samples}"

    def replay(self, trace: Trace) -> Stopped:
        """After the last sample that votes, with the elected answer."""
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
        right = any(correct for answer, correct in voices if answer == voted and answer is not None)
        tokens, early = trace.tokens_to(len(steps)), len(steps) < len(trace.steps)
        return Stopped(len(steps), tokens, right, voted is None, early=early)


def _open(text: str, *, weighted: bool) -> Rule:
    head = Vote(weighted).name
    samples = whole_number(text, rule=f"{head}:{text}", example=f"{head}:4") if text else None
    return Vote(weighted=weighted, samples=samples)


VOTES: Final[Mapping[str, Callable[[str], Rule]]] = MappingProxyType(
    {"vote": lambda text: _open(text, weighted=False), "vote-entropy": lambda text: _open(text, weighted=True)}
)
"""Name → rule from the text after its colon, which is empty for all samples."""
