"""The stopping rules of other authors, each from its publication, replayed on what was recorded after each step.

Rules that are fitted on labels are in `fitted`, votes in `deepconf` and `votes`. docs/explanation/rules.md compares
all rules, and names for each the source that its definition was read from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import ClassVar, Final

import numpy as np

from justenough.errors import InputError
from justenough.rules.deepconf import DeepConf
from justenough.rules.dynamics import CodeStop, EsCot, Leash
from justenough.rules.elicited import candidate_entropy
from justenough.rules.looks import Bools, FirstPassage, Ints, Looks, agreeing, in_a_row
from justenough.rules.quantities import CANDIDATES, FIRST_BITS, HESITATES, TRIAL, Quantity
from justenough.rules.rules import Rule
from justenough.trace import Trace


@dataclass(frozen=True, slots=True)
class AnswerConvergence(FirstPassage):
    """Stops when the last `agreeing` answers are equal (answer convergence, arXiv 2506.02536).

    Equal numbers are equal answers. In a stream every earlier step must be probed for its answer.
    """

    agreeing: int = 2
    head: ClassVar[str] = "answer-convergence"

    def holds(self, looks: Looks) -> Bools:
        """At the end of each run of equal answers."""
        return looks.agreeing >= self.agreeing


@dataclass(frozen=True, slots=True)
class HaltCoT(FirstPassage):
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
    head: ClassVar[str] = "halt-cot"
    knobs: ClassVar[int] = 2
    reads: ClassVar[tuple[Quantity, ...]] = (CANDIDATES,)

    def caveat(self, trace: Trace) -> str | None:
        """What differs from the authors' rule on such traces."""
        if any(candidate_entropy(step.probe) is not None for step in trace.steps):
            return None
        return "approximation: no candidate answers are recorded, so the entropy is estimated along the sampled answer"

    def holds(self, looks: Looks) -> Bools:
        """At the end of each run of sharp answers."""
        return in_a_row(looks.values[CANDIDATES] < self.threshold) >= self.consecutive


@dataclass(frozen=True, slots=True)
class Dynasor(FirstPassage):
    """Stops when the last `agreeing` probed answers are equal and no probe hesitates (Dynasor, arXiv 2412.20993).

    The words of hesitation are those of the authors' program, as whole words, anywhere in the probe's text; equal
    numbers are equal answers. The authors' effort `mid` takes 3 probes.
    """

    agreeing: int = 3
    head: ClassVar[str] = "dynasor"
    reads: ClassVar[tuple[Quantity, ...]] = (HESITATES,)

    def holds(self, looks: Looks) -> Bools:
        """At the end of each run of equal answers without hesitation."""
        return looks.once(_without_hesitation) >= self.agreeing


def _without_hesitation(looks: Looks) -> Ints:
    """How many answers in a row, up to this one, are equal, and none of them hesitates."""
    return agreeing(np.where(looks.values[HESITATES] == 0, looks.answers, -1))


@dataclass(frozen=True, slots=True)
class Deer(FirstPassage):
    """Stops when the tokens of a trial answer are likely: their mean probability exceeds `confidence` (DEER, arXiv
    2504.15895; its default is .95).

    As in the authors' program the mean is arithmetic and leaves out the trial's first token, a trial of one token never
    stops, and the final answer is generated again: at a stop in a stream the trial's tokens count twice.
    """

    confidence: float = 0.95
    head: ClassVar[str] = "deer"
    chances: ClassVar[tuple[str, ...]] = ("confidence",)
    reads: ClassVar[tuple[Quantity, ...]] = (TRIAL,)
    again: ClassVar[bool] = True

    def caveat(self, trace: Trace) -> str | None:
        """What differs from the authors' rule on such traces."""
        temperature = trace.signal.temperature
        if not temperature or trace.shape == "sequential":
            return None
        return (
            f"approximation: the authors' trial answers are greedy, these were sampled at temperature {temperature:g}"
        )

    def holds(self, looks: Looks) -> Bools:
        """Where the trial answer is that likely."""
        return looks.values[TRIAL] > self.confidence


@dataclass(frozen=True, slots=True)
class Eat(FirstPassage):
    """Stops when the entropy of the first token after the thought has settled: its exponential moving variance is below
    `variance` (EAT, arXiv 2509.26522).

    With the weight α of the newest step, `M ← (1-α)M + αx` and `V ← (1-α)V + α(x-M)²`, and no stop in the first 4/α
    steps, as in the authors' program, which takes α from .05 to .3. If the cue is told apart, the token is the first
    one after it: their variant with an answer prompt. The limit of the variance is ours.
    """

    variance: float = 1e-3
    """Bits²."""
    weight: float = 0.2
    head: ClassVar[str] = "eat"
    reads: ClassVar[tuple[Quantity, ...]] = (FIRST_BITS,)
    most: ClassVar[int | None] = 1
    """One token shows its distribution."""

    def __post_init__(self) -> None:
        if not 1e-9 <= self.weight <= 1:
            raise InputError(f"the rule eat has the weight {self.weight}", hint="from 1e-9 to 1; authors: 0.2")

    @property
    def earliest(self) -> int:
        """The first step at which it may stop."""
        return math.floor(4 / self.weight) + 1

    def holds(self, looks: Looks) -> Bools:
        """After the warm-up, where the variance is that low."""
        bits = looks.values[FIRST_BITS]
        counted, settled = np.cumsum(np.isfinite(bits), axis=1), np.full(bits.shape, np.nan)
        mean, variance = np.zeros(len(bits)), np.zeros(len(bits))
        for step, value in enumerate(bits.T):
            # Steps without an answer change nothing.
            there = np.isfinite(value)
            moved = np.where(counted[:, step] == 1, value, (1 - self.weight) * mean + self.weight * value)
            mean = np.where(there, moved, mean)
            spread = (1 - self.weight) * variance + self.weight * (value - mean) ** 2
            variance = np.where(there, spread, variance)
            settled[there, step] = variance[there]
        return (counted > 4 / self.weight) & (settled < self.variance)


def not_applicable(rule: Rule, steps: int) -> str | None:
    """Why a rule cannot stop any trace of at most `steps` steps before its end; None if it can."""
    if not isinstance(rule, FirstPassage) or rule.earliest == 1 or rule.earliest < steps:
        return None
    return f"more than {rule.earliest} steps, its first stop is at step {rule.earliest}; these have at most {steps}"


def caveat(rule: Rule, trace: Trace) -> str | None:
    """What differs from the authors' rule on such traces; None if nothing does."""
    return rule.caveat(trace) if isinstance(rule, FirstPassage) else None


def _number(text: str, default: float, *, rule: str, example: str, most: float = math.inf) -> float:
    """A setting of the same kind as the default; `rule` is the whole name."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    whole = isinstance(default, int)
    if not 0 <= value < math.inf or value > most or (whole and (not 1 <= value <= _LARGEST or value % 1)):
        kind = "a whole number that is at least 1" if whole else "a number that is at least 0"
        kind = kind if most == math.inf else f"a number from 0 to {most:g}"
        raise InputError(f"the rule {rule} needs {kind}, not {text!r}", hint=f"for example {example}")
    return type(default)(value)


_LARGEST: Final = 1e15
"""Larger whole numbers could not be compared with arrays of 64 bits."""


def _opened(make: type[FirstPassage]) -> Callable[[str], FirstPassage]:
    """Opens `HEAD[:SETTING[:SETTING…]]`; the authors' settings stand for those that are not given."""
    authors = make()
    defaults, example = authors.settings(), authors.name

    def opened(text: str) -> FirstPassage:
        parts, rule = text.split(":") if text else [], f"{make.head}:{text}"
        if len(parts) > len(defaults):
            raise InputError(f"the rule {rule} has {len(parts)} settings", hint=f"at most {len(defaults)}: {example}")
        free, settings = make.unbounded, dict[str, float | None]()
        for (name, default), part in zip(defaults.items(), parts, strict=False):
            most = 1.0 if name in make.chances else math.inf
            given = name in free and part == "none"
            settings[name] = free[name] if given else _number(part, default, rule=rule, example=example, most=most)
        return make(**settings)

    return opened


_PASSAGES: Final = (AnswerConvergence, HaltCoT, Dynasor, Deer, Eat, EsCot, CodeStop, Leash)
RIVALS: Final[Mapping[str, Callable[[str], Rule]]] = MappingProxyType(
    {
        **{make.head: _opened(make) for make in _PASSAGES},
        "deepconf": lambda text: DeepConf(
            _number(text, 0.0, rule=f"deepconf:{text}", example="deepconf:17") if text else None
        ),
    }
)
"""Name → rule from the text after its colon, which is empty for the authors' settings."""

GRIDS: Final[Mapping[str, tuple[FirstPassage, ...]]] = MappingProxyType(
    {
        "answer-convergence": tuple(AnswerConvergence(k) for k in (2, 3, 4, 5, 8, 12)),
        "halt-cot": tuple(HaltCoT(bits, k) for bits, k in product((0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0), (1, 2, 3))),
        "dynasor": tuple(Dynasor(k) for k in (1, 2, 3, 4, 5, 8, 12)),
        "deer": tuple(Deer(p) for p in (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)),
        "eat": tuple(Eat(10.0**power, weight) for power, weight in product(range(-5, 1), (0.1, 0.2, 0.3))),
        "es-cot": tuple(EsCot(jump, level) for jump, level in product((1, 2, 3, 5, 10, 15), (0.01, 0.05, 0.1))),
        "code-stop": tuple(
            CodeStop(low, bound, high=max(low, 0.95))
            for low, bound in product((0.8, 0.9, 0.95, 0.99), (1.0, 2.0, 4.0, 8.0, math.inf))
        ),
        "leash": (Leash(), *(Leash(fall, limit=None) for fall in (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0))),
    }
)
"""Name → the settings among which labels choose. They were fixed before any data was seen and hold the authors' own."""

LIVE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "adadec": "a live model, for its look-ahead: justenough collect --model adadec:embedded",
        "calm": "a live model, for its layers: justenough collect --model calm:models/embedded"
        " --steps 1 --temperature 0.8",
        "deebert": "a live model, for its layers: justenough collect --model deebert:models/embedded@0.01",
    }
)
"""Rules that no recording can replay, because they choose other tokens or layers; they are backends. Name → what is
missing, and the command that runs them; `python -m benchmarks.live_rules` compares them."""
