"""The diagnosis: verdict, gain of extension, length, and each defect."""

from __future__ import annotations

from dataclasses import replace

import pytest

from justenough.errors import InputError
from justenough.evaluation.diagnosis import diagnose
from justenough.trace import Trace
from tests.builders import SIGNAL, population, step, trace

UNSURE = [-3.0] * 20
"""Log-probabilities of one token."""


def test_a_model_that_knows() -> None:
    found = diagnose(population(200, seed=1))
    assert found.advisable
    assert found.extension_gain is not None
    assert found.extension_gain.value > 0.1
    assert found.to_json()["verdict"] == "separates"


def test_a_model_that_does_not() -> None:
    found = diagnose(population(400, seed=1, right=0.5, wrong=0.5))
    assert (found.advisable, found.separation.verdict) == (False, "absent")


def test_difficulty_alone_is_not_knowing() -> None:
    """Groups explain it all: within each, right and wrong answers have the same entropies."""
    easy = [
        replace(made, id=f"e{made.id}", group="easy")
        for made in population(200, seed=1, right=0.2, wrong=0.2, accuracy=0.9)
    ]
    hard = [
        replace(made, id=f"h{made.id}", group="hard")
        for made in population(200, seed=2, right=0.9, wrong=0.9, accuracy=0.1)
    ]
    found = diagnose(easy + hard).separation
    assert found.cohens_d is not None
    assert found.cohens_d.value > 1
    assert found.within_groups is not None
    assert found.within_groups.value < 0.65
    assert found.verdict != "separates"
    assert found.gating_refused


def test_length_alone_is_seen() -> None:
    stand_in = replace(SIGNAL, kind="stand-in", top_k=None)
    traces = [
        trace(
            step(uncertainty=0.2 + 0.3 * (number % 2), tokens=10 + 30 * (number % 2), correct=number % 2 == 0),
            id=str(number),
            signal=stand_in,
        )
        for number in range(100)
    ]
    found = diagnose(traces)
    assert found.length_auroc == 1.0
    # Within a length there is nothing left to tell.
    assert found.auroc_within_lengths is None


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (trace(step(0.5), signal=replace(SIGNAL, top_k=5)), "top_k_below_20"),
        (trace(step(0.5), signal=replace(SIGNAL, logits="processed")), "processed_logits"),
        (trace(step(*[0.5] * 99, tokens=100), id="x"), "fewer_entries"),
        (trace(step(0.5, tokens=2), id="x"), "fewer_entries"),
        (trace(step(0.5, tokens=2), id="x"), "low_coverage"),
        (trace(step(top_logprobs=[UNSURE] * 99 + [UNSURE[1:]]), id="x"), "merged_entries"),
        (trace(step(top_logprobs=[UNSURE[1:]] * 2), id="x"), "merged_entries"),
        (trace(step(top_logprobs=[UNSURE[1:]] * 2), id="x"), "missing_signal"),
        (trace(step(top_logprobs=[UNSURE, UNSURE[1:]]), signal=replace(SIGNAL, top_k=None)), "merged_entries"),
        (trace(step(0.5, correct=None), id="x"), "ungraded"),
        (trace(replace(step(0.5, correct=False), finish="length"), id="x"), "truncated"),
        (trace(step(0.5, answer=None, correct=None), id="x"), "unanswered"),
        (trace(replace(step(), tokens=5, entropies=None), id="x"), "missing_signal"),
        (trace(step(0.5), id="x"), "constant_signal"),
    ],
)
def test_defects_are_named(made: Trace, kind: str) -> None:
    sound = trace(step(0.5), id="sound", signal=made.signal)
    kinds = [defect.kind for defect in diagnose([sound, made]).defects]
    assert kind in kinds


def test_what_is_no_defect_is_not_named() -> None:
    whole = replace(step(*[0.5] * 99, tokens=100), finish="stop")
    more = step(top_logprobs=[UNSURE, [*UNSURE, -9.0]])
    found = diagnose([trace(whole, id="the end's token was counted"), trace(more, id="the sampled token was added")])
    assert found.defects == ()
    assert found.measured == 2


def test_without_grades_nothing_can_be_told_but_the_defects() -> None:
    narrow = replace(SIGNAL, top_k=5)
    bare = [trace(step(0.1 * number, correct=None), id=str(number), signal=narrow) for number in range(40)]
    found = diagnose(bare)
    assert (found.advisable, found.measured, found.accuracy_first) == (False, 0, None)
    assert found.to_json()["verdict"] == "cannot tell: need 20 more"
    assert [(defect.kind, defect.problems) for defect in found.defects] == [("top_k_below_20", 40), ("ungraded", 40)]
    graded = [trace(step(0.5, correct=number % 2 == 0), id=f"g{number}", signal=narrow) for number in range(4)]
    some = diagnose([*bare, *graded])
    assert (some.problems, some.measured, some.accuracy_first) == (44, 4, 0.5)


def test_a_gain_is_of_what_was_graded_at_both_ends() -> None:
    wrong = step(0.5, correct=False)
    half = [trace(wrong, step(0.5, correct=None), id="u"), trace(wrong, step(0.5), id="g")]
    gain = diagnose(half).extension_gain
    assert gain is not None
    assert (gain.value, gain.n) == (1.0, 1)
    assert diagnose([trace(wrong)]).extension_gain is None


def test_unanswered_rows_may_be_left_out() -> None:
    traces = [*population(100, seed=3), trace(step(2.0, answer=None, correct=None), id="u")]
    assert diagnose(traces).problems == 101
    left = diagnose(traces, answered_only=True)
    assert left.problems == 100
    # What was left out is not counted as wrong either.
    assert "unanswered" not in [defect.kind for defect in left.defects]


def test_nothing_to_diagnose_is_an_error() -> None:
    with pytest.raises(InputError, match="no trace"):
        diagnose([])
    with pytest.raises(InputError, match="every first step is unanswered"):
        diagnose([trace(step(0.5, answer=None, correct=None))], answered_only=True)


def test_no_usable_signal_is_a_verdict_with_its_reason() -> None:
    found = diagnose([trace(step(0.5, tokens=9))])
    assert found.separation.verdict == "cannot tell"
    assert [defect.kind for defect in found.defects] == ["fewer_entries", "low_coverage"]
    assert "11.11%" in found.defects[0].detail


def test_runs_of_the_same_problem_do_not_narrow_the_intervals() -> None:
    once = population(60, seed=3)
    copies = [replace(one, seed=run) for one in once for run in range(10)]
    shown, repeated = diagnose(once), diagnose(copies)
    for name in ("cohens_d", "auroc"):
        single, several = getattr(shown.separation, name).interval, getattr(repeated.separation, name).interval
        assert several[1] - several[0] == pytest.approx(single[1] - single[0], rel=0.1)
    assert shown.extension_gain is not None
    assert repeated.extension_gain is not None
    assert repeated.extension_gain.interval == pytest.approx(shown.extension_gain.interval)
