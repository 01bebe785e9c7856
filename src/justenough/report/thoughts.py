"""Single thoughts of a stream: where each rule stops along them, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from justenough.gate import replay
from justenough.report.data import Contents, Sheet
from justenough.report.words import count
from justenough.rules.rivals import RIVALS
from justenough.rules.rules import AllSteps, EntropyGate, MissingField, Rule
from justenough.trace import Trace


class Stop(NamedTuple):
    """Where a rule stops a thought."""

    rule: str
    step: int
    """From 1."""
    tokens: int
    """Of the thought up to there, and of the answers that the rule elicits."""
    right: bool
    """Whether the answer there is right."""


def stops_of(trace: Trace, contents: Contents) -> list[Stop]:
    """The stops of the gate, of the other thresholds, and of the published rules that the evaluation replayed."""
    pooled = replace(trace, signal=trace.signal.pooled_as(contents.settings.signal))
    stops = []
    for rule in _rules(contents):
        try:
            done = rule.replay(pooled)
        except MissingField:
            continue
        stops.append(Stop(rule.name, done.step, done.tokens, done.correct))
    return stops


def _rules(contents: Contents) -> Iterator[Rule]:
    evaluation, settings = contents.evaluation, contents.settings
    yield EntropyGate("the gate", settings)
    for method, threshold in evaluation.thresholds.items():
        # The other thresholds are values of the signal, not scores of a decider.
        if threshold is not None and method != evaluation.method and settings.decider is None:
            yield EntropyGate(f"entropy-{method}", replace(settings, threshold=threshold))
    for make in RIVALS.values():
        if (rule := make("")).name in evaluation.rules:
            yield rule
    yield AllSteps()


def chosen_thoughts(contents: Contents) -> list[int]:
    """Places of the problems that are drawn: one stopped at a right answer, one at a wrong one, and one that ran on.

    Thoughts that change their answer come first.
    """
    if contents.settings.shape != "streaming":
        return []
    places: dict[tuple[bool, bool], int] = {}
    order = sorted(enumerate(contents.traces), key=lambda one: one[1].steps[0].answer == one[1].steps[-1].answer)
    for at, trace in order:
        pooled = replace(trace, signal=trace.signal.pooled_as(contents.settings.signal))
        stop = replay(pooled, contents.settings)[-1].step
        early = stop < len(trace.steps)
        places.setdefault((early, early and trace.steps[stop - 1].is_correct), at)
    return sorted(places.values())


def thoughts(contents: Contents) -> Sheet | None:
    """The stops along the problems that are drawn."""
    rows = [
        (
            trace.problem or trace.id,
            stop.rule,
            f"step {stop.step}",
            count(stop.tokens),
            "right" if stop.right else "wrong",
        )
        for trace in (contents.traces[at] for at in chosen_thoughts(contents))
        for stop in stops_of(trace, contents)
    ]
    if not rows:
        return None
    note = "The tokens are those of the thought up to the stop, and of all answers that the rule elicits on its way."
    header = ("problem", "rule", "stops after", "tokens", "answer")
    return Sheet("thoughts", "Along single thoughts", header, rows, note)
