"""DeepConf: independent samples, a vote by confidence, and no tokens for samples that are not confident."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.rules.rules import MissingField, Stopped
from justenough.rules.votes import own_answer
from justenough.trace import Step, Trace

Floats = NDArray[np.float64]

_LEAST: Final = -1e4  # smaller natural log-probabilities count as this one


@dataclass(frozen=True, slots=True)
class DeepConf:
    """Independent samples, weak ones cut short, and a vote weighted by confidence (DeepConf online, arXiv 2508.15260).

    A token's confidence is `-mean(top-k logprobs)`. A group's is the mean over a sliding window, and a sample's is the
    lowest of its groups. The `warmup` samples set the bar, at the percentile that keeps the share `keep` of them. A
    later sample ends at the token at which a group falls below the bar, and does not vote. Sampling ends when one
    answer has `consensus` of the weight. If `bar` is given, no sample is needed to set it.

    A step is one sample. If the run was extended by `vote`, the sample's own answer is in `sample` and
    `sample_correct`; otherwise it is the step's answer, though the samples are then not independent. In a trace with
    fewer than `warmup` samples, the first half of them set the bar (ours: the paper has hundreds).
    """

    bar: float | None = None
    """Nats."""
    keep: float = 0.1
    """The paper's "low" keeps a tenth, its "high" nine tenths."""
    warmup: int = 16
    consensus: float = 0.95
    window: int = 2048

    @property
    def name(self) -> str:
        """`deepconf` or `deepconf:BAR`."""
        return "deepconf" if self.bar is None else f"deepconf:{self.bar:g}"

    def replay(self, trace: Trace) -> Stopped:
        """At the sample that brings consensus, with the answer that is voted for."""
        if trace.shape == "streaming":
            raise MissingField(self.name, "whole samples (shape sequential)")
        groups = [_groups(confidences_of(step, self.name), self.window) for step in trace.steps]
        warmup = self.warmup if len(groups) >= self.warmup else max(1, len(groups) // 2)
        first = warmup if self.bar is None else 0
        lowest = [float(group.min()) for group in groups[:first]]
        bar = self.bar if self.bar is not None else float(np.quantile(lowest, 1 - self.keep))
        number, tokens, weights, right = 0, 0, dict[str, float](), set[str]()
        for number, (step, group) in enumerate(zip(trace.steps, groups, strict=True), 1):
            below = np.flatnonzero(group < bar)
            cut = number > first and len(below) > 0
            # The group below the bar ends at the last token of its window.
            tokens += min(step.tokens, self.window + int(below[0])) if cut else step.total_tokens
            answer, correct = own_answer(step)
            if answer is not None and not len(below):
                weights[answer] = weights.get(answer, 0.0) + float(group.min())
                if correct:
                    right.add(answer)
            if number >= max(first, 1) and weights and max(weights.values()) >= self.consensus * sum(weights.values()):
                break
        voted = max(weights, key=lambda answer: weights[answer]) if weights else None
        return Stopped(number, tokens, voted in right, voted is None, early=number < len(trace.steps))


def confidences_of(step: Step, rule: str) -> Floats:
    """Each token's confidence in nats, shape (T,); raises `MissingField` if it is not recorded."""
    if step.top_logprobs:
        return np.array([_confidence(row) for row in step.top_logprobs])
    if not step.confidences:
        raise MissingField(rule, "the confidences (or top_logprobs) of every token")
    return np.array(step.confidences)


def _confidence(row: Sequence[float]) -> float:
    # An entry with probability 0 tells nothing about the others.
    entries = [max(value, _LEAST) for value in row if value > -math.inf]
    return -math.fsum(entries) / len(entries)


def _groups(confidences: Floats, window: int) -> Floats:
    """The mean of each window of tokens in turn, or of all tokens if there are fewer."""
    width = min(window, len(confidences))
    sums = np.cumsum(np.concatenate(([0.0], confidences)))
    means: Floats = (sums[width:] - sums[:-width]) / width
    return means
