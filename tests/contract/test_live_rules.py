"""Rules that stop live runs decide as on recordings: any rule, any trace, any distance of the looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from justenough.errors import InputError
from justenough.rules.live import LiveRule, Watch
from justenough.rules.rules import EntropyGate, FixedBudget, Rule, Stopped
from justenough.trace import SHAPES, Shape, Trace
from tests.contract.test_rules import RULES, drawn, head, sure, takes


def live(rule: Rule, widest: int = 8, narrowest: int = 1, *, shape: Shape) -> LiveRule | None:
    """The rule for live runs; None if it cannot stop them."""
    if isinstance(rule, EntropyGate):
        rule = replace(rule, settings=replace(rule.settings, shape=shape))
    try:
        return LiveRule(rule, widest, narrowest) if takes(rule, shape) else None
    except InputError:
        return None


LIVE: Final = [rule for rule in RULES if any(live(rule, shape=shape) for shape in SHAPES)]
Promise = Callable[[Rule, Trace, st.DataObject], None]


def test_only_the_oracle_and_elections_cannot_stop_a_live_run() -> None:
    assert {head(rule) for rule in RULES} - {head(rule) for rule in LIVE} == {
        "oracle",
        "vote",
        "vote-entropy",
        "deepconf",
    }


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=60)
@given(data=st.data())
def test_with_a_look_at_every_step_a_rule_stops_as_on_the_recording(shape: Shape, data: st.DataObject) -> None:
    seen = drawn(data, shape)
    for rule in LIVE:
        if (ruled := live(rule, 1, shape=shape)) is None:
            continue
        note(f"{rule}")
        own, stopped = ruled.rule.replay(seen), ruled.replay(seen)
        if isinstance(rule, FixedBudget) and shape == "streaming":
            # A live run has taken no probe that a budget could count.
            assert stopped.step >= own.step
            continue
        assert stopped.step == own.step
        if head(rule) == "eat":
            # It needs one token of a probe, but a live run takes the whole probe.
            assert stopped.tokens >= own.tokens
        elif not isinstance(rule, EntropyGate):
            assert stopped == own


def followed(ruled: LiveRule, of: Trace) -> Stopped:
    """A live run on a trace: step by step, with a probe only where one is taken."""
    watch, probes = Watch(ruled, replace(of, steps=())), 0
    for number, step in enumerate(of.steps, 1):
        last, probed = number == len(of.steps), watch.probes_next
        hidden = of.shape == "streaming" and not probed
        shown = replace(step, probe=None, answer=None, correct=None) if hidden else step
        if last or watch.stops(shown):
            probe = step.probe.tokens if step.probe is not None else 0
            again = probe if probed and not last and ruled.again else 0
            return Stopped(
                number, of.tokens_to(number) + probes + again, step.is_correct, step.is_unanswered, early=not last
            )
        probes += step.probe.tokens if probed and step.probe is not None else 0
    raise AssertionError


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=60)
@given(data=st.data(), widest=st.integers(1, 5), narrowest=st.integers(1, 5))
def test_a_live_run_stops_where_its_replay_does_and_pays_the_same(
    shape: Shape, data: st.DataObject, widest: int, narrowest: int
) -> None:
    seen = drawn(data, shape, most=14)
    for rule in LIVE:
        ruled = live(rule, max(widest, narrowest), narrowest, shape=shape)
        if ruled is not None:
            note(f"{rule}")
            assert followed(ruled, seen) == ruled.replay(seen)


@pytest.mark.parametrize("shape", SHAPES)
def test_they_stop_early_where_the_model_is_sure(shape: Shape) -> None:
    """Without this the promises above might be kept by never stopping."""
    stops = {head(rule) for rule in LIVE if (ruled := live(rule, shape=shape)) and ruled.replay(sure(shape)).early}
    assert {"deer", "answer-convergence", "dynasor", "halt-cot", "code-stop", "eat", "cusum", "fixed-budget"} <= stops
