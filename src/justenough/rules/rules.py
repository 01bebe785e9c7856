"""Stopping rules with one interface, replayed on recorded traces with the tokens that each rule would really cause.

The entropy gate is one of them. A rule that needs a field which the trace does not hold raises `MissingField`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from justenough.errors import InputError
from justenough.gate import Decide, GateSettings, replay
from justenough.trace import Step, Trace


class Stopped(NamedTuple):
    """Where a rule stops one problem, and the outcome."""

    step: int
    """From 1."""
    tokens: int
    """Completion tokens that the rule would cause, with the probes that it needs."""
    correct: bool
    unanswered: bool
    """Whether there is no answer."""
    early: bool
    """Whether the trace holds later steps."""


class MissingField(InputError):
    """A rule needs a field that the trace does not hold."""

    def __init__(self, rule: str, field: str) -> None:
        super().__init__(f"{rule} needs {field}, which the traces do not hold", hint="collect again and record that")
        self.rule, self.field = rule, field


class Rule(Protocol):
    """Decides where a problem stops, from what is known at each step."""

    @property
    def name(self) -> str:
        """The name in tables."""

    def replay(self, trace: Trace) -> Stopped:
        """Where it stops; raises `MissingField`."""


def stopped_at(trace: Trace, step: int, *, probe_tokens: int = 0) -> Stopped:
    """The outcome of a stop after `step` (from 1); `probe_tokens` were spent on probes before it."""
    last, tokens = trace.steps[step - 1], trace.tokens_to(step) + probe_tokens
    return Stopped(step, tokens, last.is_correct, last.is_unanswered, early=step < len(trace.steps))


def tokens_of_stops(trace: Trace) -> list[int]:
    """For each step, the tokens of a run that stops after it."""
    if trace.shape == "sequential":
        return list(accumulate(step.total_tokens for step in trace.steps))
    thought = accumulate(step.tokens for step in trace.steps)
    return [spent + probe_cost(step) for spent, step in zip(thought, trace.steps, strict=True)]


def probe_cost(step: Step) -> int:
    """Tokens of the step's probe; 0 if there was none."""
    return 0 if step.probe is None else step.probe.tokens


@dataclass(frozen=True, slots=True)
class AllSteps:
    """Never stops: the reference."""

    name: str = "all-steps"

    def replay(self, trace: Trace) -> Stopped:
        """At the last step."""
        return stopped_at(trace, len(trace.steps))


@dataclass(frozen=True, slots=True)
class FixedSteps:
    """Always the same number of steps. Early stopping must be more accurate than `always-one-step`."""

    steps: int

    @property
    def name(self) -> str:
        """`always-one-step`, `always-2-steps`, …"""
        return "always-one-step" if self.steps == 1 else f"always-{self.steps}-steps"

    def replay(self, trace: Trace) -> Stopped:
        """At that step, or at the last one if there are fewer."""
        return stopped_at(trace, min(self.steps, len(trace.steps)))


@dataclass(frozen=True, slots=True)
class FixedBudget:
    """Stops after the first step that reaches a number of tokens, whatever the signal is."""

    tokens: int

    @property
    def name(self) -> str:
        """`fixed-budget:N`."""
        return f"fixed-budget:{self.tokens}"

    def replay(self, trace: Trace) -> Stopped:
        """After the step that reaches the budget."""
        reached = (step for step, spent in enumerate(tokens_of_stops(trace), 1) if spent >= self.tokens)
        return stopped_at(trace, next(reached, len(trace.steps)))


@dataclass(frozen=True, slots=True)
class Oracle:
    """Knows all grades. It stops at the first checkpoint where stopping costs nothing: the answer there is right, or
    the last answer is wrong. So no rule that may decide at the same places saves more without harm.

    If a later one of these checkpoints takes fewer tokens, because its answer was shorter to elicit, it stops there.
    """

    decide: Decide = "first"
    name: str = "oracle"

    def replay(self, trace: Trace) -> Stopped:
        """After step 1 (`first`) or any step (`every`) that costs nothing; otherwise after the last step."""
        last = len(trace.steps)
        spent, hopeless = tokens_of_stops(trace), not trace.steps[-1].is_correct
        places = range(1, last) if self.decide == "every" else range(1, min(2, last))
        harmless = [step for step in places if hopeless or trace.steps[step - 1].is_correct]
        return stopped_at(trace, min((*harmless, last), key=lambda step: spent[step - 1]))


@dataclass(frozen=True, slots=True)
class EntropyGate:
    """The gate of this library, under a name. It pays for its probes if its signal is read off elicited answers."""

    name: str
    settings: GateSettings = field(default_factory=GateSettings)

    def replay(self, trace: Trace) -> Stopped:
        """Where the gate stops, or at the last recorded step."""
        step = replay(trace, self.settings)[-1].step
        probes = 0
        if trace.shape == "streaming" and trace.signal.probed and self.settings.threshold is not None:
            before = step - 1 if self.settings.decide == "every" else min(step - 1, 1)
            probes = sum(map(probe_cost, trace.steps[:before]))
        return stopped_at(trace, step, probe_tokens=probes)


_LAYERS: Final = "it changes the layers of a live model: justenough collect --model hf:PATH --exits DIR --leave "
_BRANCHES: Final = "it samples branches from a live model: justenough collect --extend branch --branching "
NO_RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "eager": f"{_BRANCHES}eager:2",
        "entropy-gated": f"{_BRANCHES}entropy-gated:2:3",
        "calm": f"{_LAYERS}softmax@0.9",
        "deebert": f"{_LAYERS}entropy@0.1",
        "adadec": "it chooses other tokens of a live model: justenough collect --model adadec:hf:PATH@BITS",
        **{
            name: f"it divides a budget: justenough budget TRACES --total TOKENS --policy {name}"
            for name in ("clear", "greedy", "uniform", "entropy-proportional")
        },
        **{
            name: f"labels fit it: justenough evaluate TRACES --rules {name}:tuned"
            for name in ("cusum", "learn-stop", "conformal-thinking")
        },
    }
)
"""Names of published systems that no such rule has → what runs them."""
BASELINES: Final = ("always-one-step", "always-2-steps", "all-steps", "oracle", "fixed-budget")


def open_rule(
    name: str, *, decide: Decide = "first", others: Mapping[str, Callable[[str], Rule]] = MappingProxyType({})
) -> Rule:
    """A rule by its name: `always-one-step`, `always-N-steps`, `all-steps`, `oracle`, `fixed-budget:N`,
    or one of `others`, which get the text after the colon. Entropy gates need a calibration instead."""
    head, colon, number = name.partition(":")
    if head in others:
        return others[head](number)
    if head == "fixed-budget":
        return FixedBudget(whole_number(number, rule=name, example="fixed-budget:500"))
    plain: dict[str, Rule] = {"all-steps": AllSteps(), "oracle": Oracle(decide), "always-one-step": FixedSteps(1)}
    steps = re.fullmatch(r"always-(\d+)-steps", head)
    if colon and (steps or head in plain):
        raise InputError(f"the rule {name!r} has a setting, and {head} takes none", hint=head)
    if head in plain:
        return plain[head]
    if steps:
        return FixedSteps(whole_number(steps[1], rule=name, example="always-2-steps"))
    known = ", ".join((*BASELINES, *others))
    hint = NO_RULES.get(head, f"one of {known}, entropy-METHOD, or all")
    raise InputError(f"unknown rule {name!r}", hint=hint)


def whole_number(text: str, *, rule: str, example: str) -> int:
    """The whole number in the name of a rule; raises `InputError` if it is none, or 0."""
    # More digits than any number of tokens has could not be compared with arrays of 64 bits.
    if re.fullmatch("0*[1-9][0-9]{0,17}", text) is None:
        raise InputError(f"the rule {rule!r} has no whole number that is at least 1", hint=f"for example {example}")
    return int(text)
