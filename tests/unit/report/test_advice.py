"""The answer on the first screen: yes, no or not yet, with one reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from justenough.evaluation import Evaluation, Figures
from justenough.report.advice import Advice, advice, beaten_by, cautions
from justenough.report.data import Contents
from justenough.report.templates import sentences
from justenough.stats import Estimate
from tests.reports import calibrated, contents_of, never_stops, one_step, uncalibrated


def with_figures(contents: Contents, **changes: object) -> Contents:
    """The contents with other figures of the gate."""
    gated = replace(contents.evaluation.gated, **changes)  # type: ignore[arg-type]
    return replace(contents, evaluation=replace(contents.evaluation, gated=gated))


def with_rules(contents: Contents, rules: Mapping[str, Figures]) -> Contents:
    return replace(contents, evaluation=replace(contents.evaluation, rules=rules))


def with_separation(contents: Contents, **changes: object) -> Contents:
    separation = replace(contents.evaluation.separation, **changes)  # type: ignore[arg-type]
    return replace(contents, evaluation=replace(contents.evaluation, separation=separation))


def change(low: float, high: float) -> Estimate:
    return Estimate(0.005, low, high, 90)


@pytest.fixture
def good(contents: Contents) -> Contents:
    """A gate that saves 40 %, loses nothing, and is better than all simple rules."""
    better = with_rules(with_separation(contents, verdict="separates"), {})
    return with_figures(
        better,
        saving=Estimate(0.4, 0.35, 0.45, 90),
        accuracy_change=Estimate(0.005, -0.004, 0.02, 90),
        harm=Estimate(0.002, 0.0, 0.01, 90),
        stopped=0.7,
    )


def test_yes_gives_the_saving_the_margin_and_the_harm(good: Contents) -> None:
    assert advice(good) == Advice(
        "Yes",
        "the gate saves 40.0 % [35.0 to 45.0] of the tokens, the accuracy is not more than 1 percentage point worse"
        f" than with all {good.evaluation.steps} steps, and 0.2 % of the problems lose a right answer",
    )


@pytest.mark.parametrize(("guarantee", "answer"), [("harm is at most 1 %", "Yes"), (None, "Not yet")])
def test_a_certificate_needs_no_verdict_on_the_signal(good: Contents, guarantee: str | None, answer: str) -> None:
    assert good.calibration is not None
    unknown = with_separation(good, verdict="cannot tell", needed=10)
    assert advice(replace(unknown, calibration=replace(good.calibration, guarantee=guarantee))).answer == answer


def test_one_step_is_a_no() -> None:
    result = advice(contents_of(one_step()))
    assert result.answer == "No"
    assert "only one step" in result.reason


def test_unknown_tokens_are_a_not_yet(good: Contents) -> None:
    assert advice(with_figures(good, saving=None)).sentence == (
        "Not yet: the traces have no token counts, so the saving cannot be measured."
    )


def test_too_few_problems_are_a_not_yet_with_the_number_needed(good: Contents) -> None:
    result = advice(with_separation(good, verdict="cannot tell", needed=1234))
    assert result.answer == "Not yet"
    assert result.reason.endswith("about 1,234 more are needed")


@pytest.mark.parametrize(("area", "words"), [(Estimate(0.512, 0.4, 0.6, 90), " (AUROC 0.512)"), (None, "")])
def test_no_separation_is_a_no(good: Contents, area: Estimate | None, words: str) -> None:
    result = advice(with_separation(good, verdict="absent", auroc=area))
    assert result == Advice(
        "No", f"the entropy of step 1 does not separate right answers from wrong ones well enough{words}"
    )


def test_a_weak_signal_that_groups_explain_is_a_no(good: Contents) -> None:
    assert advice(with_separation(good, verdict="weak", within_groups=Estimate(0.6, 0.5, 0.7, 90))).answer == "No"
    assert advice(with_separation(good, verdict="weak", within_groups=Estimate(0.7, 0.65, 0.8, 90))).answer == "Yes"


@pytest.mark.parametrize(
    ("outcome", "answer", "words"),
    [
        ("nothing_certified", "No", "so it never stops (no threshold can be certified on these examples)"),
        ("too_few_wrong", "Not yet", "so it never stops (too few wrong answers among the examples)"),
        ("ok", "No", "so it never stops"),
    ],
)
def test_a_gate_without_a_threshold(good: Contents, outcome: str, answer: str, words: str) -> None:
    settings = replace(good.settings, threshold=None)
    outcomes = {good.evaluation.method: outcome}
    evaluation = replace(with_figures(good, stopped=0.0).evaluation, threshold_outcomes=outcomes)
    result = advice(replace(good, settings=settings, evaluation=evaluation))
    assert result == Advice("No" if answer == "No" else "Not yet", f"the gate has no threshold, {words}")


def test_a_threshold_that_stops_nothing_is_a_no(good: Contents) -> None:
    assert advice(with_figures(good, stopped=0.0)).reason == "the gate stopped at no problem, so it saved no tokens"


def rule_like(gated: Figures, *, saving: float, gain: float) -> Figures:
    estimate = Estimate(saving, saving, saving, 90)
    change = Estimate(gated.accuracy_change.value + gain, None, None, 90)
    return replace(gated, accuracy=gated.accuracy + gain, accuracy_change=change, saving=estimate)


def test_a_simpler_rule_that_does_better_is_a_no_which_names_the_best_one(good: Contents) -> None:
    gated = good.evaluation.gated
    rules = {
        "always-one-step": rule_like(gated, saving=0.6, gain=0.0),
        "always-2-steps": rule_like(gated, saving=0.5, gain=0.02),
        "fixed-budget:9": rule_like(gated, saving=0.3, gain=0.05),
        "dynasor:3": rule_like(gated, saving=0.9, gain=0.05),
    }
    result = with_rules(good, rules)
    assert [name for name, _ in beaten_by(result.evaluation)] == ["always-2-steps", "always-one-step"]
    assert advice(result).sentence == (
        "No: a rule that uses no entropy does better here: always-2-steps saves 50.0 % of the tokens at +2.5 points of"
        " accuracy, the gate saves 40.0 % of the tokens at +0.5 points."
    )
    assert any("always-one-step" in caution and "always-2-steps" in caution for caution in cautions(result))


def test_a_gate_that_stops_nothing_is_not_compared_with_simpler_rules() -> None:
    assert beaten_by(never_stops().evaluation) == []


def test_a_gate_that_costs_tokens_is_a_no(good: Contents) -> None:
    assert advice(with_figures(good, saving=Estimate(-0.1, -0.2, 0.0, 90))).sentence == (
        "No: the gate saves no tokens (−10.0 %)."
    )


def test_a_certain_loss_is_a_no(good: Contents) -> None:
    result = advice(with_figures(good, accuracy_change=change(-0.08, -0.02)))
    assert result.answer == "No"
    assert "(95 % interval −8.0 to −2.0), which is a loss of more than 1 percentage point" in result.reason


@pytest.mark.parametrize(("low", "answer"), [(-0.0101, "Not yet"), (-0.0099, "Yes")])
def test_a_possible_loss_beyond_the_margin_is_a_not_yet(good: Contents, low: float, answer: str) -> None:
    result = advice(with_figures(good, accuracy_change=change(low, 0.02)))
    assert result.answer == answer
    assert ("is still possible" in result.reason) == (answer == "Not yet")


def test_good_figures_without_a_calibration_are_a_not_yet(good: Contents) -> None:
    result = advice(replace(good, calibration=None))
    assert result.answer == "Not yet"
    assert "run `justenough calibrate`" in result.reason


def test_the_answer_praises_no_gate_that_the_cautions_warn_of() -> None:
    for case in (calibrated(60), uncalibrated()):
        contents = contents_of(case)
        if beaten_by(contents.evaluation):
            assert advice(contents).answer != "Yes"


def warned(contents: Contents, **changes: object) -> Evaluation:
    return replace(contents.evaluation, **changes)  # type: ignore[arg-type]


def test_cautions_name_what_limits_the_figures(good: Contents) -> None:
    evaluation = warned(good, left_out=7, unanswered=1500, warnings=("seeds differ",), missing={"calm": "layers"})
    assert good.calibration is not None
    calibration = replace(good.calibration, decide="every", warnings=("few examples",))
    assert cautions(replace(good, evaluation=evaluation, calibration=calibration)) == [
        "The calibration uses `every`, but this report uses `first`.",
        "Warning of the calibration: few examples.",
        "7 problems are left out because the threshold was fitted on them.",
        "Seeds differ.",
        "1,500 problems ended without an answer; they count as wrong.",
    ]


def test_rules_that_were_not_replayed_are_no_caution(good: Contents) -> None:
    evaluation = warned(good, missing={"calm": "layers"})
    assert not any("calm" in caution for caution in cautions(replace(good, evaluation=evaluation)))


def test_without_a_calibration_the_first_caution_is_about_the_draws() -> None:
    contents = contents_of(uncalibrated())
    notes = [note for note in cautions(contents) if note.startswith("No calibration was given.")]
    assert len(notes) == 1
    assert f"{contents.evaluation.draws.draws} draws of {contents.evaluation.draws.n} examples" in notes[0]


def test_the_measured_line_is_neutral(good: Contents) -> None:
    line = sentences("measured", good)
    assert "tokens saved 40.0 %, change in accuracy +0.5 points [−0.4 to +2.0]." in line
    assert "The entropy of step 1 separates right and wrong answers" in line
    assert sentences("measured", with_separation(good, verdict="cannot tell")).endswith("[−0.4 to +2.0].")
    assert "only weakly separates" in sentences("measured", with_separation(good, verdict="weak"))


def test_the_baselines_line_compares_with_single_steps_and_the_oracle(good: Contents) -> None:
    line = sentences(
        "baselines", with_figures(good, saving_vs_first=-1.5, saving_vs_last=0.25, oracle_share=0.8).evaluation
    )
    assert line.startswith(
        "The gate uses 2.50 times the tokens of step 1 alone and 0.75 times the tokens of the last step alone. An"
        " oracle"
    )
    assert line.endswith("the gate reaches 80.0 % of that.")
    bare = with_figures(good, saving_vs_first=None, saving_vs_last=None, oracle_share=None)
    assert sentences("baselines", bare.evaluation).startswith("An oracle")
