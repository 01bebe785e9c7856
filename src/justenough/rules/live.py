"""A rule of the bench, run live on one problem: the same class as on recorded traces, and so the same stops.

A rule never looks ahead. So after each look the run replays the rule on what it has shown so far, with one more step
that is still to come; if the rule stops before that step, the run stops now.

In a stream the rule looks at few steps far from a stop and at every step near it: the distance between two looks
doubles while the answers change, and is the shortest again once two answers in a row are equal. The rule sees the steps
since the last look as one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from justenough.errors import InputError
from justenough.rules.dynamics import PLATEAU
from justenough.rules.elicited import answer_value
from justenough.rules.looks import FirstPassage
from justenough.rules.rivals import RIVALS
from justenough.rules.rules import (
    AllSteps,
    EntropyGate,
    FixedBudget,
    FixedSteps,
    Rule,
    Stopped,
    open_rule,
    probe_cost,
    stopped_at,
)
from justenough.signal.thought import THINK
from justenough.trace import Step, Trace

T = TypeVar("T")

WIDEST: Final = 8
"""Most steps from one look to the next."""
_LIVE: Final = (FirstPassage, AllSteps, FixedSteps, FixedBudget, EntropyGate)
_SPACING: Final = re.compile(r"(?:([0-9]{1,9})-)?([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class LiveRule:
    """A rule with the distance of its looks, for live runs and to replay them.

    In a stream each look of a rule that reads answers costs a whole probe. A budget of tokens counts the thought only.
    """

    rule: Rule
    """The rule of the bench."""
    widest: int = WIDEST
    """Most steps from one look to the next, in streams."""
    narrowest: int = 1
    """Fewest steps from one look to the next."""

    def __post_init__(self) -> None:
        if not isinstance(self.rule, _LIVE):
            hint = "a published rule such as deer:0.95, always-N-steps or fixed-budget:N"
            raise InputError(f"{self.rule.name} cannot stop a live run", hint=hint)
        if not 1 <= self.narrowest <= self.widest:
            reason = f"probes every {self.narrowest} to {self.widest} steps"
            raise InputError(reason, hint="a number of steps such as 4, or a range such as 1-8")

    @property
    def name(self) -> str:
        """The rule's name; if it reads answers with the distance of its looks: `deer:0.95@1-8`."""
        if not self.elicits:
            return self.rule.name
        least = "" if self.narrowest == self.widest else f"{self.narrowest}-"
        return f"{self.rule.name}@{least}{self.widest}"

    @property
    def elicits(self) -> bool:
        """Whether the rule reads elicited answers, for which a stream must be probed."""
        return isinstance(self.rule, FirstPassage) and self.rule.elicits

    @property
    def again(self) -> bool:
        """Whether the final answer of a stopped stream is generated anew."""
        return isinstance(self.rule, FirstPassage) and self.rule.again

    @property
    def needs_logprobs(self) -> bool:
        """Whether the rule reads log-probabilities."""
        if isinstance(self.rule, FirstPassage):
            return any(quantity.logprobs for quantity in self.rule.reads)
        return isinstance(self.rule, EntropyGate)

    @property
    def needs_rows(self) -> bool:
        """Whether the rule reads all top log-probabilities of the thought."""
        return isinstance(self.rule, FirstPassage) and PLATEAU in self.rule.reads

    def replay(self, trace: Trace) -> Stopped:
        """Where the live run stops, with its probes; raises `MissingField`."""
        watch = Watch(self, trace)
        ends = [number for number, step in enumerate(trace.steps[:-1], 1) if watch.take(step)]
        place = self.rule.replay(replace(trace, steps=(*watch.looks, trace.steps[-1]))).step
        early = place <= len(ends)
        number = ends[place - 1] if early else len(trace.steps)
        probes = 0
        if watch.probes:
            probes = sum(probe_cost(look) for look in watch.looks[: place - 1])
            probes += probe_cost(trace.steps[number - 1]) if early and self.again else 0
        return stopped_at(trace, number, probe_tokens=probes)


class Watch:
    """Follows one run step by step."""

    def __init__(self, live: LiveRule, trace: Trace) -> None:
        """Of `trace` everything is read except its steps."""
        streaming = trace.shape == "streaming"
        self.probes = live.elicits and streaming
        """Whether the steps at which the rule looks must be probed."""
        self.looks: list[Step] = []
        """The steps from one look to the next, each as one step."""
        self._live, self._trace = live, trace
        self._since: list[Step] = []
        """Steps since the last look."""
        self._distance = live.narrowest if self.probes else 1
        close = (trace.prompts.thought if trace.prompts is not None else THINK).close
        self._later = Step(tokens=0, text=close, entropies=(), top_logprobs=())
        """Stands for the steps that are still to come."""

    @property
    def probes_next(self) -> bool:
        """Whether the next step must be probed."""
        return self.probes and len(self._since) + 1 >= self._distance

    def take(self, step: Step) -> bool:
        """Take the next step; returns whether the rule looks at it."""
        # A live run has no probe where the rule does not look.
        self._since.append(step if self.probes or self._trace.shape == "sequential" else replace(step, probe=None))
        if len(self._since) < self._distance:
            return False
        look = joined(self._since)
        if self.probes:
            settled = bool(self.looks) and _same(look, self.looks[-1])
            self._distance = self._live.narrowest if settled else min(2 * self._distance, self._live.widest)
        self.looks.append(look)
        self._since = []
        return True

    def stops(self, step: Step) -> bool:
        """Take the next step; returns whether the run stops after it. Raises `MissingField`."""
        if not self.take(step):
            return False
        seen = replace(self._trace, steps=(*self.looks, self._later))
        return self._live.rule.replay(seen).step <= len(self.looks)


def open_live(name: str, spacing: str | None = None) -> LiveRule:
    """The rule of a name such as `deer:0.95`, `deer:0.95@8` or `deer:0.95@1-8`, with the distance of its looks.

    `spacing` is the distance if the name has none. Gates run by their calibrations and have no such names.
    """
    head, at, own = name.partition("@")
    if head.startswith("entropy-") or head in ("decider", "recommended"):
        raise InputError(f"{name} is a gate", hint="run it by its calibration")
    rule = open_rule(head, others=RIVALS)
    if (text := own if at else spacing) is None:
        return LiveRule(rule)
    if (distance := _SPACING.fullmatch(text)) is None:
        raise InputError(f"the probes of {head} are {text!r} steps apart", hint="such as 4, or a range such as 1-8")
    return LiveRule(rule, int(distance[2]), int(distance[1] or distance[2]))


def _same(look: Step, other: Step) -> bool:
    """Whether two probed answers are equal."""
    answers = [None if one.probe is None else one.probe.answer for one in (look, other)]
    return answers[0] is not None and answers[1] is not None and answer_value(answers[0]) == answer_value(answers[1])


def joined(steps: Sequence[Step]) -> Step:
    """Consecutive steps as one, with the answer and the probe of the last one."""
    last = steps[-1]
    if len(steps) == 1:
        return last
    return replace(
        last,
        text="".join(step.text for step in steps),
        tokens=sum(step.tokens for step in steps),
        entropies=_chain([step.entropies for step in steps]),
        top_logprobs=_chain([step.top_logprobs for step in steps]),
        logprobs=_chain([step.logprobs for step in steps]),
        token_texts=_chain([step.token_texts for step in steps]),
        confidences=_chain([step.confidences for step in steps]),
        # A mean over all tokens cannot be computed from the means of the parts.
        entropy=None,
        uncertainty=None,
    )


def _chain(parts: Sequence[Sequence[T] | None]) -> tuple[T, ...] | None:
    known = [part for part in parts if part is not None]
    return tuple(value for part in known for value in part) if len(known) == len(parts) else None
