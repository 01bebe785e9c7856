"""Recorded answers judged anew."""

from __future__ import annotations

from justenough.grading import open_grader
from justenough.grading.regrade import agreeing, regraded
from justenough.trace import Probe, Step, Trace


def trace(*steps: Step, target: str | None = None) -> Trace:
    return Trace(id="a", model="m", target=target, steps=steps)


def test_answers_are_judged_against_the_target() -> None:
    result = regraded(
        trace(
            Step(text="It is 42.0", answer="it is 42.0", tokens=1, correct=False),
            Step(text="hm", answer=None, tokens=1),
            Step(tokens=1, answer="43"),
            target="42",
        ),
        open_grader("number"),
    )
    assert [step.correct for step in result.steps] == [True, None, False]


def test_without_a_target_alike_answers_become_the_last_one() -> None:
    probe = Probe(answer="so: 1/2", correct=None, tokens=2, text="so: 1/2")
    result = regraded(
        trace(Step(text="thinking", probe=probe, tokens=1), Step(answer="3", tokens=1), Step(answer="0.5", tokens=1)),
        open_grader("number"),
    )
    assert [step.answer == result.steps[-1].answer for step in result.steps] == [True, False, True]
    assert [step.correct for step in result.steps] == [None, None, None]


def test_without_a_last_answer_nothing_agrees() -> None:
    result = regraded(trace(Step(answer="3", tokens=1), Step(answer=None, tokens=1)), open_grader("exact"))
    assert [step.answer for step in result.steps] == ["3", None]


def test_agreement_with_the_last_answer_as_a_grade() -> None:
    steps = (Step(answer="0.5", tokens=1), Step(answer=None, tokens=1), Step(answer="3", tokens=1))
    result = agreeing(trace(*steps, Step(answer="1/2", tokens=1), target="7"), open_grader("number"))
    assert [step.correct for step in result.steps] == [True, False, False, True]
    result = agreeing(trace(Step(answer="3", tokens=1), Step(answer=None, tokens=1)), open_grader("exact"))
    assert [step.correct for step in result.steps] == [False, False]
