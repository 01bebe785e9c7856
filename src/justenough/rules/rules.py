"""Stopping rules behind one interface, replayed on recorded traces with the tokens that each would really have caused.

The entropy gate is one of them. A rule that needs what a trace does not hold raises `MissingField`, which names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from justenough.errors import InputError
from justenough.gate import Decide, GateSettings, replay
from justenough.trace import Trace


class Stopped(NamedTuple):
    """Where a rule stops one problem and what that means."""

    step: int
    """1-based."""
    tokens: int
    """Completion tokens that the rule would have caused, probes that it needs included."""
    correct: bool
    unanswered: bool
    early: bool
    """Whether steps were left undone that the trace holds."""


class MissingField(InputError):
    """A rule needs what the trace does not hold; `rule` and `field` name both."""

    def __init__(self, rule: str, field: str) -> None:
        super().__init__(f"{rule} needs {field}, which the traces do not hold", hint="collect anew with that recorded")
        self.rule = rule
        self.field = field


class Rule(Protocol):
    """Decides, from what was known at each step, where a problem stops."""

    @property
    def name(self) -> str:
        """The name in tables."""

    def replay(self, trace: Trace) -> Stopped:
        """Where it stops; raises `MissingField`."""


def stopped_at(trace: Trace, step: int, *, probe_tokens: int = 0) -> Stopped:
    """The outcome of stopping after `step` (1-based); `probe_tokens` are spent besides."""
    answered = trace.steps[step - 1]
    return Stopped(
        step=step,
        tokens=trace.tokens_to(step) + probe_tokens,
        correct=answered.is_correct,
        unanswered=answered.is_unanswered,
        early=step < len(trace.steps),
    )


@dataclass(frozen=True, slots=True)
class AllSteps:
    """Never stops: the reference."""

    name: str = "all-steps"

    def replay(self, trace: Trace) -> Stopped:
        """At the last step."""
        return stopped_at(trace, len(trace.steps))


@dataclass(frozen=True, slots=True)
class FixedSteps:
    """Always the same number of steps; `always-one-step` is the baseline that early stopping must beat in accuracy."""

    steps: int

    @property
    def name(self) -> str:
        """`always-one-step`, `always-2-steps`, …"""
        return "always-one-step" if self.steps == 1 else f"always-{self.steps}-steps"

    def replay(self, trace: Trace) -> Stopped:
        """At that step, or the last one recorded."""
        return stopped_at(trace, min(self.steps, len(trace.steps)))


@dataclass(frozen=True, slots=True)
class FixedBudget:
    """Stops after the first step at which so many tokens were spent, however sure the model is."""

    tokens: int

    @property
    def name(self) -> str:
        """`fixed-budget:N`."""
        return f"fixed-budget:{self.tokens}"

    def replay(self, trace: Trace) -> Stopped:
        """After the step that reaches the budget."""
        for step in range(1, len(trace.steps)):
            if trace.tokens_to(step) >= self.tokens:
                return stopped_at(trace, step)
        return stopped_at(trace, len(trace.steps))


@dataclass(frozen=True, slots=True)
class Oracle:
    """Stops where the rule may decide if and only if the answer there is right: what no rule can beat at no harm."""

    decide: Decide = "first"
    name: str = "oracle"

    def replay(self, trace: Trace) -> Stopped:
        """At the first step (`first`), or any (`every`), whose answer is right; else at the last."""
        last = 1 if self.decide == "first" else len(trace.steps)
        for step in range(1, last + 1):
            if trace.steps[step - 1].is_correct:
                return stopped_at(trace, step)
        return stopped_at(trace, len(trace.steps))


@dataclass(frozen=True, slots=True)
class EntropyGate:
    """The gate of this library, under a name."""

    name: str
    settings: GateSettings = field(default_factory=GateSettings)

    def replay(self, trace: Trace) -> Stopped:
        """Where the gate stops, or at the last step recorded."""
        return stopped_at(trace, replay(trace, self.settings)[-1].step)


@dataclass(frozen=True, slots=True)
class AnswerConvergence:
    """Stops when the last `agreeing` answers are equal (answer convergence, arXiv 2506.02536).

    In the streaming shape every step before must be probed for its answer, and those tokens count.
    """

    agreeing: int = 2

    @property
    def name(self) -> str:
        """`answer-convergence:K`."""
        return f"answer-convergence:{self.agreeing}"

    def replay(self, trace: Trace) -> Stopped:
        """At the first step that ends a run of equal answers."""
        probed = 0
        for number in range(1, len(trace.steps) + 1):
            window = [step.answer for step in trace.steps[max(0, number - self.agreeing) : number]]
            if len(window) == self.agreeing and window[0] is not None and len(set(window)) == 1:
                return stopped_at(trace, number, probe_tokens=probed)
            if number < len(trace.steps):
                probed += _probe_cost(self.name, trace, number)
        return stopped_at(trace, len(trace.steps), probe_tokens=probed)


def _probe_cost(rule: str, trace: Trace, step: int) -> int:
    """Tokens of the elicitation after a step that the run did not stop at; a sequential step answers by itself."""
    if trace.shape == "sequential":
        return 0
    probe = trace.steps[step - 1].probe
    if probe is None:
        raise MissingField(rule, "the probed answer of every step")
    return probe.tokens


BASELINES: Final = ("always-one-step", "always-2-steps", "all-steps", "oracle", "fixed-budget", "answer-convergence")


def open_rule(
    name: str, *, decide: Decide = "first", others: Mapping[str, Callable[[str], Rule]] = MappingProxyType({})
) -> Rule:
    """A rule by name: `always-one-step`, `always-N-steps`, `all-steps`, `oracle`, `fixed-budget:N`,
    `answer-convergence[:K]`, and `others`, each from what stands behind its colon. Entropy gates are made of
    calibrations."""
    head, _, number = name.partition(":")
    if head in others:
        return others[head](number)
    if number and (not number.isdigit() or int(number) < 1):
        raise InputError(f"the rule {name!r} has no whole number behind its colon", hint="fixed-budget:500")
    if head == "all-steps":
        return AllSteps()
    if head == "oracle":
        return Oracle(decide)
    if head == "always-one-step":
        return FixedSteps(1)
    if head.startswith("always-") and head.endswith("-steps") and head[7:-6].isdigit() and int(head[7:-6]) > 0:
        return FixedSteps(int(head[7:-6]))
    if head == "fixed-budget" and number:
        return FixedBudget(int(number))
    if head == "answer-convergence":
        return AnswerConvergence(int(number or 2))
    raise InputError(
        f"unknown rule {name!r}", hint=f"one of {', '.join((*BASELINES, *others))}, entropy-METHOD, or all"
    )
