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
    diagnosis = diagnose(population(200, seed=1))
    assert diagnosis.advisable
    assert diagnosis.extension_gain is not None
    assert diagnosis.extension_gain.value > 0.1
    assert diagnosis.to_json()["verdict"] == "separates"


def test_a_model_that_does_not() -> None:
    diagnosis = diagnose(population(400, seed=1, right=0.5, wrong=0.5))
    assert (diagnosis.advisable, diagnosis.separation.verdict) == (False, "absent")


def test_difficulty_alone_is_not_knowing() -> None:
    """Groups explain it all: within each, right and wrong answers have the same entropies."""
    easy = [
        replace(sample, id=f"e{sample.id}", group="easy")
        for sample in population(200, seed=1, right=0.2, wrong=0.2, accuracy=0.9)
    ]
    hard = [
        replace(sample, id=f"h{sample.id}", group="hard")
        for sample in population(200, seed=2, right=0.9, wrong=0.9, accuracy=0.1)
    ]
    diagnosis = diagnose(easy + hard).separation
    assert diagnosis.cohens_d is not None
    assert diagnosis.cohens_d.value > 1
    assert diagnosis.within_groups is not None
    assert diagnosis.within_groups.value < 0.65
    assert diagnosis.verdict != "separates"
    assert diagnosis.gating_refused


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
    diagnosis = diagnose(traces)
    assert diagnosis.length_auroc == 1.0
    # Within a length there is nothing left to tell.
    assert diagnosis.auroc_within_lengths is None


@pytest.mark.parametrize(
    ("sample", "kind"),
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
def test_each_defect_has_a_name(sample: Trace, kind: str) -> None:
    sound = trace(step(0.5), id="sound", signal=sample.signal)
    kinds = [defect.kind for defect in diagnose([sound, sample]).defects]
    assert kind in kinds


def test_what_is_no_defect_is_not_named() -> None:
    whole = replace(step(*[0.5] * 99, tokens=100), finish="stop")
    more = step(top_logprobs=[UNSURE, [*UNSURE, -9.0]])
    diagnosis = diagnose(
        [trace(whole, id="the end's token was counted"), trace(more, id="the sampled token was added")]
    )
    assert diagnosis.defects == ()
    assert diagnosis.measured == 2


def test_without_grades_only_the_defects_are_reported() -> None:
    narrow = replace(SIGNAL, top_k=5)
    bare = [trace(step(0.1 * number, correct=None), id=str(number), signal=narrow) for number in range(40)]
    diagnosis = diagnose(bare)
    assert (diagnosis.advisable, diagnosis.measured, diagnosis.accuracy_first) == (False, 0, None)
    assert diagnosis.to_json()["verdict"] == "cannot tell: need 20 more"
    assert [(defect.kind, defect.problems) for defect in diagnosis.defects] == [
        ("top_k_below_20", 40),
        ("ungraded", 40),
    ]
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
    diagnosis = diagnose([trace(step(0.5, tokens=9))])
    assert diagnosis.separation.verdict == "cannot tell"
    assert [defect.kind for defect in diagnosis.defects] == ["fewer_entries", "low_coverage"]
    assert "11.11%" in diagnosis.defects[0].detail


def test_runs_of_the_same_problem_do_not_narrow_the_intervals() -> None:
    once = population(60, seed=3)
    copies = [replace(one, seed=run) for one in once for run in range(10)]
    plain, repeated = diagnose(once), diagnose(copies)
    for name in ("cohens_d", "auroc"):
        single, several = getattr(plain.separation, name).interval, getattr(repeated.separation, name).interval
        assert several[1] - several[0] == pytest.approx(single[1] - single[0], rel=0.1)
    assert plain.extension_gain is not None
    assert repeated.extension_gain is not None
    assert repeated.extension_gain.interval == pytest.approx(plain.extension_gain.interval)


def test_a_signal_that_the_kind_does_not_read_is_a_defect() -> None:
    one = step(entropy=0.2)
    traces = [trace(one, id=str(n), signal=replace(SIGNAL, kind="probe-score")) for n in range(3)]
    assert [(row.kind, row.problems) for row in diagnose(traces).defects if row.kind == "ignored_signal"] == [
        ("ignored_signal", 3)
    ]
    assert not any(row.kind == "ignored_signal" for row in diagnose([trace(one, id=str(n)) for n in range(3)]).defects)
