"""The stopping rules of other authors, each from its publication, replayed on what was recorded after each step.

No rule stops at a step without an answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from justenough.errors import InputError
from justenough.rules.deepconf import DeepConf as DeepConf
from justenough.rules.elicited import Elicited, answer_value, candidate_entropy, first_stop
from justenough.rules.rules import MissingField, Rule, Stopped
from justenough.trace import Trace

_HESITATION: Final = re.compile(r"\b(?:wait|hold|but|okay|no|hmm)\b", re.IGNORECASE)


def _recorded(values: Sequence[float] | None, rule: str, what: str) -> Sequence[float]:
    if not values:
        raise MissingField(rule, f"the token {what} of every answer")
    return values


@dataclass(frozen=True, slots=True)
class HaltCoT:
    """Stops once the distribution of answers is sharp: its entropy is below `threshold` in `consecutive` steps in a row
    (HALT-CoT, ICML 2025 workshop, openreview CX5c7C1CZa).

    The entropy is that of a softmax over the candidate answers' log-probabilities, each by its first token. It is exact
    where a probe records `candidates` or `top_logprobs`. Elsewhere the sum of the token entropies along the recorded
    answer is an approximation: by the chain rule the expected sum is the entropy of the whole answer, and the recorded
    answer is one sample of it. The authors take .6 bits, .5 to .7 for mathematics, .8 for StrategyQA and .7 for
    CommonsenseQA.
    """

    threshold: float = 0.6
    """Bits."""
    consecutive: int = 2

    @property
    def name(self) -> str:
        """`halt-cot:BITS:STEPS`."""
        return f"halt-cot:{self.threshold:g}:{self.consecutive}"

    def caveat(self, trace: Trace) -> str | None:
        """What differs from the authors' rule on such traces."""
        if any(candidate_entropy(step.probe) is not None for step in trace.steps):
            return None
        return "approximation: no candidate answers are recorded, so the entropy is estimated along the sampled answer"

    def replay(self, trace: Trace) -> Stopped:
        """At the first step that ends a run of sharp answers."""
        run = number = 0

        def stops(answer: Elicited | None) -> bool:
            nonlocal run, number
            probe = trace.steps[number].probe
            number += 1
            bits = candidate_entropy(probe, answer.begin) if answer is not None and trace.shape == "streaming" else None
            if answer is not None and bits is None:
                bits = math.fsum(_recorded(answer.entropies, self.name, "entropies"))
            run = run + 1 if bits is not None and bits < self.threshold else 0
            return run >= self.consecutive

        return first_stop(trace, self.name, stops)


@dataclass(frozen=True, slots=True)
class Dynasor:
    """Stops when the last `agreeing` probed answers are equal and no probe hesitates (Dynasor, arXiv 2412.20993).

    The words of hesitation are those of the authors' program, as whole words, anywhere in the probe's text; equal
    numbers are equal answers. The authors' effort `mid` takes 3 probes.
    """

    agreeing: int = 3

    @property
    def name(self) -> str:
        """`dynasor:K`."""
        return f"dynasor:{self.agreeing}"

    def replay(self, trace: Trace) -> Stopped:
        """At the first step that ends a run of equal answers without hesitation."""
        answers: list[str | Fraction | None] = []

        def stops(answer: Elicited | None) -> bool:
            if answer is not None and not answer.spoken:
                raise MissingField(self.name, "the text of every answer")
            certain = answer is not None and not _HESITATION.search(answer.spoken)
            answers.append(answer_value(answer.answer) if answer is not None and certain else None)
            window = answers[-self.agreeing :]
            return len(window) == self.agreeing and window[0] is not None and len(set(window)) == 1

        return first_stop(trace, self.name, stops)


@dataclass(frozen=True, slots=True)
class Deer:
    """Stops when the tokens of a trial answer are likely: their mean probability exceeds `confidence` (DEER, arXiv
    2504.15895; its default is .95).

    As in the authors' program the mean is arithmetic and leaves out the trial's first token, a trial of one token never
    stops, and the final answer is generated again: at a stop in a stream the trial's tokens count twice.
    """

    confidence: float = 0.95

    @property
    def name(self) -> str:
        """`deer:PROBABILITY`."""
        return f"deer:{self.confidence:g}"

    def caveat(self, trace: Trace) -> str | None:
        """What differs from the authors' rule on such traces."""
        temperature = trace.signal.temperature
        if not temperature or trace.shape == "sequential":
            return None
        return (
            f"approximation: the authors' trial answers are greedy, these were sampled at temperature {temperature:g}"
        )

    def replay(self, trace: Trace) -> Stopped:
        """At the first step whose trial answer is that likely."""

        def stops(answer: Elicited | None) -> bool:
            if answer is None:
                return False
            trial = _recorded(answer.logprobs, self.name, "log-probabilities")
            counted = trial[0 if answer.begin else 1 :]
            return bool(counted) and math.fsum(map(math.exp, counted)) / len(counted) > self.confidence

        return first_stop(trace, self.name, stops, again=True)


@dataclass(frozen=True, slots=True)
class Eat:
    """Stops when the entropy of the first token after the thought has settled: its exponential moving variance is below
    `variance` (EAT, arXiv 2509.26522).

    With the weight α of the newest step, `M ← (1-α)M + αx` and `V ← (1-α)V + α(x-M)²`, and no stop in the first 4/α
    steps, as in the authors' program, which takes α from .05 to .3. If the cue is told apart, the token is the first
    one after it: their variant with an answer prompt. The limit of the variance is ours.
    """

    variance: float = 1e-3
    """Bits²."""
    weight: float = 0.2

    @property
    def name(self) -> str:
        """`eat:BITS²`."""
        return f"eat:{self.variance:g}"

    @property
    def earliest(self) -> int:
        """The first step at which it may stop."""
        return math.floor(4 / self.weight) + 1

    def replay(self, trace: Trace) -> Stopped:
        """At the first step, after the warm-up, at which the variance is that low."""
        seen, mean, variance = 0, 0.0, 0.0

        def stops(answer: Elicited | None) -> bool:
            nonlocal seen, mean, variance
            if answer is None:
                return False
            bits = _recorded(answer.entropies, self.name, "entropies")[0]
            mean = bits if not seen else (1 - self.weight) * mean + self.weight * bits
            variance = (1 - self.weight) * variance + self.weight * (bits - mean) ** 2
            seen += 1
            return seen > 4 / self.weight and variance < self.variance

        return first_stop(trace, self.name, stops, most=1)  # one token shows its distribution


def not_applicable(rule: Rule, steps: int) -> str | None:
    """Why a rule cannot stop any trace of at most `steps` steps before its end; None if it can."""
    if not isinstance(rule, Eat) or rule.earliest < steps:
        return None
    return f"more than {rule.earliest} steps, its first stop is at step {rule.earliest}; these have at most {steps}"


def caveat(rule: Rule, trace: Trace) -> str | None:
    """What differs from the authors' rule on such traces; None if nothing does."""
    return rule.caveat(trace) if isinstance(rule, HaltCoT | Deer) else None


def _number(rule: str, text: str, *, whole: bool = False) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf or (whole and (value < 1 or value % 1)):
        kind = "a whole number that is at least 1" if whole else "a number that is at least 0"
        raise InputError(f"the rule {rule}:{text} needs {kind}", hint="for example deer:0.95 or halt-cot:0.6:2")
    return value


def _halt_cot(text: str) -> Rule:
    bits, colon, consecutive = text.partition(":")
    rule = HaltCoT(_number("halt-cot", bits)) if bits or colon else HaltCoT()
    return replace(rule, consecutive=int(_number("halt-cot", consecutive, whole=True))) if colon else rule


RIVALS: Final[Mapping[str, Callable[[str], Rule]]] = MappingProxyType(
    {
        "halt-cot": _halt_cot,
        "dynasor": lambda text: Dynasor(int(_number("dynasor", text, whole=True))) if text else Dynasor(),
        "deer": lambda text: Deer(_number("deer", text)) if text else Deer(),
        "eat": lambda text: Eat(_number("eat", text)) if text else Eat(),
        "deepconf": lambda text: DeepConf(_number("deepconf", text)) if text else DeepConf(),
    }
)
"""Name → rule from the text after its colon, which is empty for the default."""

LIVE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "adadec": "a live model, for its look-ahead: justenough collect --model adadec:embedded",
        "calm": "a live model, for its layers: justenough collect --model calm:models/embedded",
        "deebert": "a live model, for its layers: justenough collect --model deebert:models/embedded@0.01",
    }
)
"""Rules that no recording can replay, because they choose other tokens or layers; they are backends. Name → what is
missing, and the command that runs them; `python -m benchmarks.live_rules` compares them."""
