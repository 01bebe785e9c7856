"""The rival stopping rules, each from its publication, replayed on what was recorded after each step.

What a rule looks at is the answer that stands after the thought so far: the elicited one (`Step.probe`) in the
streaming shape, whose tokens are spent at every step that the rule looks at, and the tokens after `</think>` in the
sequential shape, which a step has anyway. No rule stops where there is no answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.rules.rules import MissingField, Rule, Stopped, stopped_at
from justenough.rules.votes import own_answer
from justenough.signal.answers import answer_span
from justenough.signal.pooling import tokens_of
from justenough.thought import THINK
from justenough.trace import Step, Trace

Floats = NDArray[np.float64]

_LEAST: Final = -1e4
"""A natural log-probability below this is as good as none."""
_HESITATION: Final = re.compile(r"\b(?:wait|hold|but|okay|no|hmm)\b", re.IGNORECASE)


class AnswerTokens(NamedTuple):
    """The answer after a step and the signal of its tokens; None where that was not recorded."""

    text: str
    entropies: Sequence[float] | None
    """Bits, shape (T,)."""
    logprobs: Sequence[float] | None
    """Natural log-probabilities of the chosen tokens, shape (T,)."""


def answer_tokens(trace: Trace, number: int, *, rule: str) -> AnswerTokens | None:
    """The answer after a step (1-based), or None where there is none; raises `MissingField` for what is not recorded.

    A cue such as "Answer:" is left out where the texts of the tokens tell it apart.
    """
    step = trace.steps[number - 1]
    if trace.shape == "streaming":
        probe = step.probe
        if probe is None:
            raise MissingField(rule, "the probed answer of every step")
        if probe.answer is None:
            return None
        if probe.token_texts is None:
            return AnswerTokens(probe.text or "", probe.entropies, probe.logprobs)
        return _answer_of(probe.token_texts, probe.entropies, probe.logprobs, elicited=True)
    if step.answer is None:
        # Cut before its thought was closed, say: nothing is lacking, there is just no answer.
        return None
    close = (trace.prompts.thought if trace.prompts is not None else THINK).close
    if all(other.token_texts is None for other in trace.steps):
        raise MissingField(rule, "the text of each token")
    if not any(close in other.text for other in trace.steps):
        raise MissingField(rule, f"the end of the thought ({close})")
    texts = step.token_texts
    if texts is None or close not in "".join(texts):
        return None
    return _answer_of(texts, step.token_bits(trace.signal), step.logprobs, elicited=False)


def _answer_of(
    texts: Sequence[str], bits: Sequence[float] | None, logprobs: Sequence[float] | None, *, elicited: bool
) -> AnswerTokens | None:
    """The answer alone, without thought and cue; None where there is nothing else."""
    said = "".join(texts)
    span = answer_span(said, elicited=elicited)
    if span is None:
        return None
    first, last = tokens_of(texts, *span)
    return AnswerTokens(
        text=said[span[0] : span[1]],
        entropies=tuple(bits[first:last]) if bits is not None and len(bits) == len(texts) else None,
        logprobs=tuple(logprobs[first:last]) if logprobs is not None and len(logprobs) == len(texts) else None,
    )


def _first(
    trace: Trace, rule: str, stops: Callable[[AnswerTokens | None], bool], *, most: int | None = None
) -> Stopped:
    """At the first step after which `stops` says so, else at the last.

    Every elicitation before the stop is spent; `most` of its tokens where the rule needs no more.
    """
    spent = 0
    for number in range(1, len(trace.steps)):
        if stops(answer_tokens(trace, number, rule=rule)):
            return stopped_at(trace, number, probe_tokens=spent)
        probe = trace.steps[number - 1].probe
        if trace.shape == "streaming" and probe is not None:
            spent += probe.tokens if most is None else min(most, probe.tokens)
    return stopped_at(trace, len(trace.steps), probe_tokens=spent)


def _entropies(answer: AnswerTokens, rule: str) -> Sequence[float]:
    if not answer.entropies:
        raise MissingField(rule, "the token entropies of every answer")
    return answer.entropies


@dataclass(frozen=True, slots=True)
class HaltCoT:
    """Stops once the answer's distribution is sharp (HALT-CoT, ICML 2025 workshop, openreview CX5c7C1CZa).

    The Shannon entropy of the answers predicted after a step is, by the chain rule, the expected sum of the token
    entropies along the answer; the recorded answer is one draw of it. The abstract gives no threshold: half a bit is
    ours.
    """

    threshold: float = 0.5
    """Bits."""
    consecutive: int = 1
    """Steps in a row whose answer must be that sharp."""

    @property
    def name(self) -> str:
        """`halt-cot:BITS`."""
        return f"halt-cot:{self.threshold:g}"

    def replay(self, trace: Trace) -> Stopped:
        """At the first step that ends a run of sharp answers."""
        run = 0

        def stops(answer: AnswerTokens | None) -> bool:
            nonlocal run
            sharp = answer is not None and math.fsum(_entropies(answer, self.name)) <= self.threshold
            run = run + 1 if sharp else 0
            return run >= self.consecutive

        return _first(trace, self.name, stops)


@dataclass(frozen=True, slots=True)
class Dynasor:
    """Stops when the last `agreeing` probed answers are equal and none hesitates (Dynasor, arXiv 2412.20993).

    The words of hesitation are those of the authors' program, taken as whole words; its effort `mid` takes 3 probes.
    """

    agreeing: int = 3

    @property
    def name(self) -> str:
        """`dynasor:K`."""
        return f"dynasor:{self.agreeing}"

    def replay(self, trace: Trace) -> Stopped:
        """At the first step that ends a run of equal answers given without hesitation."""
        answers: list[str | None] = []

        def stops(answer: AnswerTokens | None) -> bool:
            step = trace.steps[len(answers)]
            given = step.probe.answer if trace.shape == "streaming" and step.probe is not None else step.answer
            if answer is not None and not answer.text:
                raise MissingField(self.name, "the text of every answer")
            certain = answer is not None and not _HESITATION.search(answer.text)
            answers.append(given if certain else None)
            window = answers[-self.agreeing :]
            return len(window) == self.agreeing and window[0] is not None and len(set(window)) == 1

        return _first(trace, self.name, stops)


@dataclass(frozen=True, slots=True)
class Deer:
    """Stops when the trial answer's tokens are likely: their geometric mean probability exceeds `confidence` (DEER,
    arXiv 2504.15895; its default is .95)."""

    confidence: float = 0.95

    @property
    def name(self) -> str:
        """`deer:PROBABILITY`."""
        return f"deer:{self.confidence:g}"

    def replay(self, trace: Trace) -> Stopped:
        """At the first step whose answer is that likely."""

        def stops(answer: AnswerTokens | None) -> bool:
            if answer is None:
                return False
            if not answer.logprobs:
                raise MissingField(self.name, "the token log-probabilities of every answer")
            return math.exp(math.fsum(answer.logprobs) / len(answer.logprobs)) > self.confidence

        return _first(trace, self.name, stops)


@dataclass(frozen=True, slots=True)
class Eat:
    """Stops when the entropy of the first token after the end of thinking has settled: its exponential moving variance
    is below `variance` (EAT, arXiv 2509.26522).

    With the weight α of the newest step, `M ← (1-α)M + αx` and `V ← (1-α)V + α(x-M)²`, and no stop in the first 4/α
    steps, as in the authors' program, which takes α from .05 to .3. Where the cue is told apart, the token is the first
    one behind it: their variant with an answer prompt. The bound on the variance is ours.
    """

    variance: float = 1e-3
    """Bits²."""
    weight: float = 0.2

    @property
    def name(self) -> str:
        """`eat:BITS²`."""
        return f"eat:{self.variance:g}"

    def replay(self, trace: Trace) -> Stopped:
        """At the first step, after the warm-up, at which the variance is that low."""
        seen, mean, variance = 0, 0.0, 0.0

        def stops(answer: AnswerTokens | None) -> bool:
            nonlocal seen, mean, variance
            if answer is None:
                return False
            bits = _entropies(answer, self.name)[0]
            mean = bits if not seen else (1 - self.weight) * mean + self.weight * bits
            variance = (1 - self.weight) * variance + self.weight * (bits - mean) ** 2
            seen += 1
            return seen > 4 / self.weight and variance < self.variance

        # One token is all that is needed to see its distribution.
        return _first(trace, self.name, stops, most=1)


@dataclass(frozen=True, slots=True)
class DeepConf:
    """Independent samples, weak ones cut short, and a vote weighted by confidence (DeepConf online, arXiv 2508.15260).

    A token's confidence is `-mean(top-k logprobs)`, a group's the mean over a sliding window, a sample's the lowest of
    its groups. The `warmup` samples set the bar, at the percentile that keeps the share `keep` of them; a later sample
    ends at the token where a group falls below it and does not vote. Sampling ends when one answer holds `consensus`
    of the weight. With `bar` the bar is given, and no sample is needed to set it.

    A step is one sample. Where the run was extended by `vote` its own answer is in the step's `sample` and
    `sample_correct`; elsewhere a step's answer is its own, though the samples are then no longer independent. Where a
    trace holds fewer than `warmup` samples, the first half of them set the bar (ours: the paper has hundreds).
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
        begun = [float(group.min()) for group in groups[:first]]
        bar = self.bar if self.bar is not None else float(np.quantile(begun, 1 - self.keep))
        tokens, weights, right = 0, dict[str, float](), set[str]()
        number = 0
        for number, (step, group) in enumerate(zip(trace.steps, groups, strict=True), 1):
            below = np.flatnonzero(group < bar)
            cut = number > first and len(below) > 0
            # The group that falls below ends at its window's last token.
            tokens += min(step.tokens, self.window + int(below[0])) if cut else step.total_tokens
            answer, correct = own_answer(step)
            if answer is not None and not len(below):
                weights[answer] = weights.get(answer, 0.0) + float(group.min())
                if correct:
                    right.add(answer)
            if number >= max(first, 1) and weights and max(weights.values()) >= self.consensus * sum(weights.values()):
                break
        voted = max(weights, key=lambda answer: weights[answer]) if weights else None
        return Stopped(
            step=number,
            tokens=tokens,
            correct=voted in right,
            unanswered=voted is None,
            early=number < len(trace.steps),
        )


def confidences_of(step: Step, rule: str) -> Floats:
    """Each token's confidence in nats, shape (T,); raises `MissingField` where it is not recorded."""
    if step.top_logprobs:
        return np.array([_confidence(row) for row in step.top_logprobs])
    if not step.confidences:
        raise MissingField(rule, "the confidences (or top_logprobs) of every token")
    return np.array(step.confidences)


def _confidence(row: Sequence[float]) -> float:
    # An entry without any probability says nothing of how sure the others are.
    entries = [max(value, _LEAST) for value in row if value > -math.inf]
    return -math.fsum(entries) / len(entries)


def _groups(confidences: Floats, window: int) -> Floats:
    """Confidence of each group of `window` tokens in turn, or of all where there are fewer."""
    width = min(window, len(confidences))
    sums = np.cumsum(np.concatenate(([0.0], confidences)))
    means: Floats = (sums[width:] - sums[:-width]) / width
    return means


def _number(rule: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"the rule {rule}:{text} has no number behind its colon", hint="deer:0.95") from error
    if not math.isfinite(value) or value < 0:
        raise InputError(f"the rule {rule}:{text} needs a number that is at least 0", hint="deer:0.95")
    return value


def _dynasor(text: str) -> Rule:
    if not text:
        return Dynasor()
    value = _number("dynasor", text)
    if value != int(value) or value < 1:
        raise InputError(f"the rule dynasor:{text} needs a whole number, at least 1", hint="dynasor:3")
    return Dynasor(int(value))


RIVALS: Final[Mapping[str, Callable[[str], Rule]]] = MappingProxyType(
    {
        "halt-cot": lambda text: HaltCoT(_number("halt-cot", text)) if text else HaltCoT(),
        "dynasor": _dynasor,
        "deer": lambda text: Deer(_number("deer", text)) if text else Deer(),
        "eat": lambda text: Eat(_number("eat", text)) if text else Eat(),
        "deepconf": lambda text: DeepConf(_number("deepconf", text)) if text else DeepConf(),
    }
)
"""Name → rule from what stands behind its colon, empty for the default."""

LIVE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "adadec": "a live model, for its look-ahead: justenough collect --model adadec:embedded",
        "calm": "a live model, for its layers: justenough collect --model calm:models/embedded",
        "deebert": "a live model, for its layers: justenough collect --model deebert:models/embedded@0.01",
    }
)
"""Rules that no recording can replay, since they choose other tokens or layers; they enter as backends. Name → what is
missing, and the command that runs them; `python -m benchmarks.live_rules` compares them."""
