"""Single thoughts of a stream: which ones are drawn, and the stops of the rules along them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from justenough.gate import replay
from justenough.report.data import Contents
from justenough.report.payload import problems
from justenough.report.thoughts import chosen_thoughts, stops_of, thoughts
from justenough.rules.rivals import AnswerConvergence
from tests.reports import contents_of, streamed


@pytest.fixture(scope="module")
def stream() -> Contents:
    return contents_of(streamed())


def test_the_drawn_thoughts_end_in_different_ways(stream: Contents) -> None:
    ends = []
    for at in chosen_thoughts(stream):
        trace = stream.traces[at]
        stop = replay(trace, stream.settings)[-1].step
        early = stop < len(trace.steps)
        ends.append((early, early and trace.steps[stop - 1].is_correct))
    assert len(ends) >= 2
    assert len(set(ends)) == len(ends)


def test_a_thought_that_changes_its_answer_is_preferred(stream: Contents) -> None:
    answers = [{step.answer for step in stream.traces[at].steps} for at in chosen_thoughts(stream)]
    assert max(map(len, answers)) > 1


def test_the_stops_are_those_of_the_rules(stream: Contents) -> None:
    trace = stream.traces[3]
    stops = {stop.rule: stop for stop in stops_of(trace, stream)}
    assert stops["the gate"].step == replay(trace, stream.settings)[-1].step
    convergence = AnswerConvergence(2).replay(trace)
    shown = stops["answer-convergence:2"]
    assert (shown.step, shown.tokens, shown.right) == (convergence.step, convergence.tokens, convergence.correct)
    # Two answers were elicited on the way, of 5 tokens each.
    assert shown.tokens == 40 * shown.step + 5 * shown.step
    assert stops["all-steps"].step == len(trace.steps)
    # It needs samples that were made next to each other.
    assert "deepconf" not in stops


def test_the_table_and_the_page_have_the_same_stops(stream: Contents) -> None:
    sheet = thoughts(stream)
    assert sheet is not None
    assert len(sheet.rows) == sum(len(stops_of(stream.traces[at], stream)) for at in chosen_thoughts(stream))
    row = problems(stream)[0]
    assert isinstance(row, dict)
    assert row["stops"] == [list(stop) for stop in stops_of(stream.traces[0], stream)]


def test_sequential_runs_are_not_drawn(contents: Contents) -> None:
    assert chosen_thoughts(contents) == []
    assert thoughts(contents) is None
    assert not any("stops" in row for row in problems(contents) if isinstance(row, dict))


def test_a_decider_is_drawn_without_the_thresholds_of_the_signal(stream: Contents) -> None:
    from tests.builders import DECIDER

    settings = replace(stream.settings, decider=DECIDER, threshold=0.1)
    names = [stop.rule for stop in stops_of(stream.traces[1], replace(stream, settings=settings))]
    assert not any(name.startswith("entropy-") for name in names)
