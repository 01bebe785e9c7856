"""Labels that are asked for one at a time: the same threshold and guarantee as with all labels, from far fewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.calibration.asking import Question, calibrate_by_asking
from justenough.calibration.calibration import calibrate, calibration_from_json
from justenough.calibration.certified import RiskControlled
from justenough.errors import InputError, NothingCertified
from justenough.gate import Decide
from justenough.trace import Trace
from tests.builders import step, trace
from tests.unit.calibration.test_decider import runs


def without_grades(traces: Sequence[Trace]) -> list[Trace]:
    return [replace(one, steps=tuple(replace(step, correct=None) for step in one.steps)) for one in traces]


class Person:
    """Judges by the grades, and counts."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        self.grades = {(one.task, one.id, step.answer): step.correct for one in traces for step in one.steps}
        self.questions: list[Question] = []

    def __call__(self, question: Question) -> bool:
        self.questions.append(question)
        return bool(self.grades[question])


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(40, 150),
    decide=st.sampled_from(["first", "every"]),
    patience=st.integers(1, 2),
    min_tokens=st.integers(0, 5),
    max_harm=st.sampled_from([0.02, 0.05, 0.1, 0.3]),
)
def test_threshold_and_guarantee_are_those_of_all_labels(
    seed: int, n: int, decide: Decide, patience: int, min_tokens: int, max_harm: float
) -> None:
    graded = runs(n, seed=seed)
    person = Person(graded)
    patience = 1 if decide == "first" else patience
    method = RiskControlled(max_harm=max_harm, confidence=0.9)
    try:
        full = calibrate(graded, method=method, decide=decide, patience=patience, min_tokens=min_tokens)
    except NothingCertified:
        full = None
    try:
        asked = calibrate_by_asking(
            without_grades(graded), person, method=method, decide=decide, patience=patience, min_tokens=min_tokens
        )
    except NothingCertified:
        asked = None
    assert (full is None) == (asked is None)
    assert len(person.questions) == len(set(person.questions))
    if full is not None and asked is not None:
        for key in ("threshold", "guarantee", "method", "n", "fitted_on", "max_steps", "rows", "problems", "max_harm"):
            assert getattr(asked, key) == getattr(full, key), key
        assert asked.judged == len(person.questions)
        assert asked.judged_in_full is not None
        assert asked.judged <= asked.judged_in_full


def test_a_thousand_problems_take_a_handful_of_labels() -> None:
    graded = [
        trace(
            step(0.001 * number, answer="1" if number % 50 else "2", correct=number % 50 > 0),
            step(0.1, answer="1", correct=True),
            id=f"p-{number}",
        )
        for number in range(1000)
    ]
    person = Person(graded)
    asked = calibrate_by_asking(without_grades(graded), person)
    full = calibrate(graded, method="risk")
    assert asked.threshold == full.threshold
    # At 1 % and 95 % four harms among 1,000 pass; each takes the last answer and the one where it stopped.
    assert asked.judged == len(person.questions) == 10
    assert asked.judged_in_full == 1020
    assert (asked.labels, asked.verdict, asked.n_right, asked.n_wrong) == ("asked", "cannot tell", 0, 5)


def test_the_file_of_such_a_calibration_reads_back() -> None:
    graded = runs(200)
    asked = calibrate_by_asking(graded, Person(graded), method=RiskControlled(max_harm=0.2), decide="every")
    assert calibration_from_json(asked.to_json()) == asked


def test_graded_answers_are_not_asked_for() -> None:
    graded = runs(200)
    asked = calibrate_by_asking(graded, Person([]), method=RiskControlled(max_harm=0.2), decide="every")
    assert (asked.judged, asked.judged_in_full) == (0, 0)


def test_traces_of_one_step_say_that_the_last_answers_are_missing() -> None:
    single = [trace(step(0.1 * number), id=f"p-{number}") for number in range(50)]
    with pytest.raises(NothingCertified, match="last step"):
        calibrate_by_asking(single, Person([]))


def test_grades_without_answers_count() -> None:
    """The exchange format allows them: what is right is known, though no text is."""
    bare = [
        trace(
            step(0.001 * number, answer=None, correct=number % 2 > 0),
            step(0.1, answer=None, correct=True),
            id=f"p-{number}",
        )
        for number in range(400)
    ]
    for decide in ("first", "every"):
        method = RiskControlled(max_harm=0.02)
        full = None
        try:
            full = calibrate(bare, method=method, decide=decide)
        except NothingCertified:
            with pytest.raises(NothingCertified):
                calibrate_by_asking(bare, Person([]), method=method, decide=decide)
        if full is not None:
            asked = calibrate_by_asking(bare, Person([]), method=method, decide=decide)
            assert (asked.threshold, asked.judged) == (full.threshold, 0)
            assert (asked.n_right, asked.n_wrong) == (full.n_right, full.n_wrong)


def test_one_text_with_two_grades_is_read_step_by_step() -> None:
    rows = [
        trace(step(0.001 * number, answer="1", correct=False), step(0.1, answer="1", correct=True), id=f"p-{number}")
        for number in range(400)
    ]
    method = RiskControlled(max_harm=0.02)
    full = calibrate(rows, method=method)
    asked = calibrate_by_asking(rows, Person([]), method=method)
    assert (asked.threshold, asked.judged) == (full.threshold, 0)


def test_problems_of_two_tasks_may_share_an_id() -> None:
    graded = [replace(one, task=task) for task in ("a", "b") for one in runs(150, seed=3 if task == "a" else 4)]
    person = Person(graded)
    method = RiskControlled(max_harm=0.2)
    asked = calibrate_by_asking(without_grades(graded), person, method=method, decide="every")
    assert asked.threshold == calibrate(graded, method=method, decide="every").threshold
    assert {question.task for question in person.questions} == {"a", "b"}


def test_a_patience_that_waits_for_later_steps_is_refused() -> None:
    with pytest.raises(InputError, match="only the first decides"):
        calibrate_by_asking(runs(100), Person([]), patience=2)
