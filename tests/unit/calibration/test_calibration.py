import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.calibration.calibration import (
    Calibration,
    calibrate,
    calibration_from_json,
    load_calibration,
)
from justenough.calibration.labelled import Labelled, Labels, draw, examples_of, gathered
from justenough.calibration.thresholds import METHODS, RiskControlled
from justenough.errors import (
    GatingRefused,
    InputError,
    ModelMismatch,
    NotEnoughExamples,
    NothingCertified,
    SignalMismatch,
)
from justenough.gate import GateSettings
from justenough.signal.signal import Signal
from justenough.trace import Json
from tests.builders import SIGNAL, population, step, trace

TRACES = population(200)
MADE = calibrate(TRACES)


def changed(**values: Json) -> Json:
    """The JSON of a good calibration with other values."""
    return MADE.to_json() | values


def test_a_calibration_holds_its_evidence() -> None:
    right = [one.steps[0].bits(SIGNAL) for one in TRACES if one.steps[0].correct]
    assert MADE.threshold == pytest.approx(sum(bits or 0.0 for bits in right) / len(right))
    assert (MADE.method, MADE.n, MADE.n_right, MADE.verdict) == ("mean", 200, len(right), "separates")
    assert (MADE.model, MADE.task, MADE.shape, MADE.max_steps, MADE.decide) == (
        "model",
        "task",
        "sequential",
        2,
        "first",
    )
    assert MADE.cohens_d is not None
    assert MADE.cohens_d.interval is not None
    assert MADE.auroc_within_groups is not None
    assert set(MADE.thresholds) == set(MADE.threshold_outcomes) == set(METHODS)
    assert MADE.fitted_on == tuple(sorted(one.hashed_id for one in TRACES))
    stopped = [one for one in TRACES if (one.steps[0].bits(SIGNAL) or 0.0) <= (MADE.threshold or 0.0)]
    harm = sum(not one.steps[0].is_correct and one.steps[-1].is_correct for one in stopped)
    rescue = sum(one.steps[0].is_correct and not one.steps[-1].is_correct for one in stopped)
    (warning,) = MADE.warnings
    assert warning.startswith("the threshold carries no guarantee of accuracy; on these examples it changes it by ")
    assert warning.endswith(f" points (harm {harm}, rescue {rescue} of 200 problems)")
    settings = GateSettings.of(MADE)
    assert (settings.threshold, settings.signal, settings.max_steps) == (MADE.threshold, SIGNAL, 2)


@pytest.mark.parametrize("method", ["mean", "info", "bayes", "universal", RiskControlled(max_harm=0.2)])
def test_it_survives_its_file(method: str | RiskControlled, tmp_path: Path) -> None:
    made = calibrate(TRACES, method=method, n=120, seed=3)
    path = tmp_path / "calibration.json"
    path.write_text(made.dumps(), encoding="utf-8")
    assert load_calibration(path) == made
    assert (made.guarantee is not None) == (not isinstance(method, str))
    assert made.dumps() == load_calibration(path).dumps()


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_file() -> None:
    again = [one for one in TRACES[:20] for one in (one, replace(one, seed=7, steps=(step(0.9), step(0.1))))]
    ordered, shuffled = (gathered(held).labelled for held in (again, random.Random(1).sample(again, len(again))))

    def drawn(labelled: Labelled, n: int | None, seed: int) -> list[tuple[str, int]]:
        columns = draw(labelled, n, seed=seed).columns
        return list(zip(columns.hashed_ids.tolist(), columns.seeds.tolist(), strict=True))

    assert drawn(ordered, 10, 0) == drawn(shuffled, 10, 0)
    assert drawn(ordered, None, 0) == drawn(shuffled, None, 1)
    assert drawn(ordered, 10, 0) != drawn(ordered, 10, 1)
    assert calibrate(TRACES, n=50, seed=2) == calibrate(TRACES[::-1], n=50, seed=2)
    assert calibrate(TRACES, n=50, seed=2).threshold != calibrate(TRACES, n=50, seed=3).threshold


def test_traces_of_another_kind_are_refused() -> None:
    MADE.check(TRACES[0])
    with pytest.raises(SignalMismatch, match="top_k is 5, the calibration's 20"):
        MADE.check(replace(TRACES[0], signal=replace(SIGNAL, top_k=5)))
    with pytest.raises(ModelMismatch, match="the calibration is for model"):
        MADE.check(replace(TRACES[0], model="other"))
    with pytest.raises(SignalMismatch, match="sequential"):
        MADE.check(replace(TRACES[0], shape="streaming"))
    with pytest.raises(ModelMismatch, match="2 models"):
        calibrate([*TRACES, trace(model="other")])
    with pytest.raises(SignalMismatch, match="mix"):
        calibrate([*TRACES, trace(shape="streaming")])
    with pytest.raises(SignalMismatch, match="temperature"):
        calibrate([*TRACES, trace(signal=replace(SIGNAL, temperature=1.0))])


def test_a_pooling_may_be_chosen_afresh_and_a_tail_where_logprobs_are_recorded() -> None:
    assert calibrate(TRACES, signal=replace(SIGNAL, pooling="maximum")).signal.pooling == "maximum"
    bucket = replace(SIGNAL, tail="bucket")
    with pytest.raises(SignalMismatch, match="tail"):
        calibrate(TRACES, signal=bucket)
    rows = [[-0.5, *[-3.0] * 19]]
    rich = [replace(one, steps=(step(top_logprobs=rows, correct=one.steps[0].correct),)) for one in TRACES]
    assert calibrate(rich, signal=bucket, force=True).signal == bucket


def test_a_signal_that_does_not_separate_is_refused_unless_forced() -> None:
    blind = population(600, right=0.5, wrong=0.5)
    with pytest.raises(GatingRefused, match=r"absent.*; the interval of AUROC, .* is below 0\.6"):
        calibrate(blind)
    forced = calibrate(blind, force=True)
    assert forced.verdict == "absent"
    assert forced.warnings[0].startswith("forced: gating is not advisable")
    # Easy problems, mostly right, have low entropies and hard ones high, whichever way they are answered.
    by_level = [
        trace(step(index % 7 / 10 + hard, correct=bool(index % 8) != hard), id=f"p-{index}", group=str(hard))
        for index in range(600)
        for hard in [index % 2 == 1]
    ]
    with pytest.raises(GatingRefused, match=r"AUROC within groups, .* must be above 0\.6 \(the figure itself is not"):
        calibrate(by_level)


def test_a_refusal_names_the_limit_and_how_many_examples_would_pass() -> None:
    levels = [replace(one, group=f"level-{at % 20}") for at, one in enumerate(population(60, seed=3, right=0.55))]
    limit = r"within groups, 0\.\d+ \[0\.\d+ to 0\.\d+\], must be above 0\.6"
    with pytest.raises(GatingRefused, match=limit) as refused:
        calibrate(levels)
    [enough] = re.findall(r"about (\d+) examples instead of 60 would pass", str(refused.value))
    assert int(enough) > 60


def test_few_examples_are_a_warning_for_the_mean_and_an_error_for_what_cannot_be_fitted() -> None:
    few = calibrate(TRACES, n=5, seed=1)
    assert few.verdict == "cannot tell"
    assert few.needed > 0
    assert any(warning.startswith("separation: cannot tell: need") for warning in few.warnings)
    right = [one for one in TRACES if one.steps[0].correct]
    assert calibrate(right[:3]).threshold is not None
    with pytest.raises(NotEnoughExamples, match="wrong answers") as missing:
        calibrate(right[:3], method="bayes")
    assert missing.value.needed == 2
    with pytest.raises(NotEnoughExamples) as absent:
        calibrate(TRACES, n=201)
    assert absent.value.needed == 1
    with pytest.raises(NothingCertified) as uncertain:
        calibrate(TRACES, method="risk")
    assert uncertain.value.needed == 99
    with pytest.raises(NotEnoughExamples, match="no trace"):
        calibrate([])
    with pytest.raises(InputError, match="n is 0"):
        calibrate(TRACES, n=0)


def test_never_stop_is_a_calibration_without_a_threshold() -> None:
    bits = [(0.1, True), (0.5, True), *[(0.35, False), (0.4, False), (0.45, False)] * 8]
    made = calibrate(
        [trace(step(value, correct=right), id=f"p-{index}") for index, (value, right) in enumerate(bits)],
        method="bayes",
        force=True,
    )
    assert (made.threshold, made.threshold_outcomes["bayes"]) == (None, "never_stop")
    assert any("likelier wrong than right" in warning for warning in made.warnings)
    assert calibration_from_json(json.loads(made.dumps())) == made


def test_steps_without_a_usable_signal_are_left_out_and_counted() -> None:
    blind = [trace(step(0.5, tokens=10), id=f"blind-{index}") for index in range(3)]
    made = calibrate([*TRACES, *blind])
    assert (made.n, made.warnings[0]) == (
        200,
        "3 of 203 problems lack a usable signal at step 1 and were left out",
    )
    assert made.threshold == MADE.threshold
    with pytest.raises(NotEnoughExamples, match="usable signal"):
        calibrate(blind)


def test_harm_is_that_of_a_run_of_max_steps() -> None:
    late = [
        trace(step(0.1, answer="2", correct=False), step(0.1, answer="2", correct=False), step(0.1), id=f"p-{index}")
        for index in range(60)
    ]
    risk = RiskControlled(max_harm=0.05)
    assert calibrate(late, method=risk, max_steps=2).guarantee is not None
    with pytest.raises(NothingCertified):
        calibrate(late, method=risk)
    with pytest.raises(InputError, match="max_steps is 0"):
        calibrate(late, method=risk, max_steps=0)


def test_a_thought_of_one_step_is_whole_and_a_sequence_of_one_step_broke_off() -> None:
    short = [*TRACES[:-1], replace(TRACES[-1], steps=TRACES[-1].steps[:1])]
    assert examples_of(gathered(short).labelled).final is None
    streamed = [replace(one, shape="streaming") for one in short]
    final = examples_of(gathered(streamed).labelled).final
    assert final is not None
    assert final.tolist() == [one.steps[-1].is_correct for one in short]
    assert examples_of(gathered([replace(one, steps=one.steps[:1]) for one in streamed]).labelled).final is None


def test_last_answers_that_nobody_graded_do_not_pass_for_harmless() -> None:
    ungraded = [replace(one, steps=(one.steps[0], replace(one.steps[1], correct=None))) for one in TRACES]
    assert examples_of(gathered(ungraded).labelled).final is None
    with pytest.raises(NothingCertified, match="last step"):
        calibrate(ungraded, method="risk")
    unanswered = [replace(one, steps=(one.steps[0], step(0.1, answer=None, correct=None))) for one in TRACES]
    final = examples_of(gathered(unanswered).labelled).final
    assert final is not None
    assert not final.any()


@pytest.mark.parametrize("labels", ["graded", "agreement"])
def test_agreement_stands_in_for_labels_where_there_are_none(labels: Labels) -> None:
    plain = [
        replace(one, steps=tuple(replace(part, correct=None) for part in one.steps))
        for one in population(200, rescued=1.0)
    ]
    if labels == "graded":
        with pytest.raises(InputError, match="not graded"):
            calibrate(plain)
        return
    made = calibrate(plain, labels=labels)
    assert made.threshold == calibrate(population(200, rescued=1.0)).threshold
    assert any("label-free" in warning for warning in made.warnings)
    with pytest.raises(InputError, match="last step"):
        calibrate([replace(one, steps=one.steps[:1]) for one in plain], labels=labels)


def test_unanswered_counts_as_wrong() -> None:
    mixed = [*TRACES, trace(step(0.9, answer=None, correct=None), step(0.1), id="none")]
    assert calibrate(mixed).n_wrong == MADE.n_wrong + 1


def test_an_unknown_method_is_refused_by_naming_the_known() -> None:
    with pytest.raises(InputError, match="mean, info, bayes, universal, risk"):
        calibrate(TRACES, method="median")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([], "is no calibration"),
        ({}, "here: this is no calibration"),
        (changed(version=2), "version 2"),
        ({key: value for key, value in MADE.to_json().items() if key != "decide"}, "here: decide: missing"),
        (changed(threshold="low"), "threshold is 'low'"),
        (changed(threshold=float("nan")), "threshold is nan, expected a finite number"),
        (changed(threshold=True), "threshold is True"),
        (changed(sd_wrong="wide"), "sd_wrong"),
        (changed(decide="last"), "decide is 'last'"),
        (changed(shape="round"), "shape is 'round'"),
        (changed(labels="guessed"), "labels is 'guessed'"),
        (changed(model=7), "model is 7"),
        (changed(max_steps=2.5), "max_steps is 2.5"),
        (changed(max_steps=0), "max_steps"),
        (changed(min_tokens=-1), "min_tokens"),
        (changed(signal=None), "signal is None, expected an object"),
        (changed(signal={"tail": "clip"}), "signal: unknown tail treatment"),
        (changed(signal={"pooling": "median"}), "pooling"),
        (changed(cohens_d={"value": 1.0}), "cohens_d.low is missing"),
        (
            changed(auroc={"value": "high", "low": None, "high": None, "n": 3}),
            "auroc.value is 'high', expected a finite number",
        ),
        (changed(warnings="none"), "warnings is 'none', expected a list"),
        (changed(fitted_on=[1]), r"fitted_on\[0\] is 1, expected text"),
        (changed(thresholds={"mean": "low"}), "thresholds"),
        (changed(max_harm=0), "max_harm is 0.0, expected a number between 0 and 1"),
        (changed(confidence=95.0), "confidence is 95.0"),
        (changed(rows="many"), "rows is 'many'"),
        (changed(threshold_outcomes=None), "threshold_outcomes is None, expected an object"),
    ],
)
def test_a_bad_calibration_is_refused_by_what_is_bad(value: Json, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        calibration_from_json(value, where="here")


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        load_calibration(tmp_path / "absent.json")
    for content in (b"{", b"\xff\xfe\x00"):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(InputError, match="is not JSON"):
            load_calibration(tmp_path / "bad.json")


def test_it_is_frozen_and_a_stand_in_signal_calibrates_alike() -> None:
    with pytest.raises(AttributeError):
        MADE.threshold = 1.0  # type: ignore[misc]
    length = Signal(kind="length", top_k=None)
    scalar = [
        replace(
            one, signal=length, steps=(replace(one.steps[0], uncertainty=one.steps[0].bits(SIGNAL)), *one.steps[1:])
        )
        for one in TRACES
    ]
    made: Calibration = calibrate(scalar)
    assert (made.threshold, made.signal.kind) == (MADE.threshold, "length")


def test_a_saved_calibration_is_the_same_when_it_is_loaded(tmp_path: Path) -> None:
    fitted = calibrate(population(60, seed=2))
    for path in (tmp_path / "one.json", str(tmp_path / "two.json")):
        fitted.save(path)
        assert load_calibration(path) == fitted
    with pytest.raises(InputError, match="cannot write"):
        fitted.save(tmp_path / "one.json" / "below-a-file.json")


@pytest.mark.parametrize("depth", [300, 50_000])
def test_a_file_that_is_nested_too_deeply_is_refused_in_one_line(depth: int, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text("[" * depth + "]" * depth)
    with pytest.raises(InputError, match=r"nested too deeply|not JSON"):
        load_calibration(path)


def test_why_a_gate_never_stops() -> None:
    fit = calibrate(population(150, seed=2))
    assert fit.never_stops is None
    assert 0 < (fit.stopped or 0) <= 150
    assert fit.stopped == sum(trace.steps[0].bits(fit.signal) <= fit.threshold for trace in population(150, seed=2))  # type: ignore[operator]
    streaming = replace(fit, max_steps=1, shape="streaming")
    for one, reason in (
        (replace(fit, max_steps=1), "collect with --steps 2 or more"),
        (streaming, "a finer --splitter"),
        (
            replace(fit, threshold=None, threshold_outcomes={"mean": "never_stop"}),
            "it has no threshold (an answer is likelier",
        ),
        (replace(fit, threshold=-0.5), "its threshold -0.5 is below every score"),
        (replace(fit, stopped=0), "is below every score"),
    ):
        assert reason in (one.never_stops or "")
    # A stand-in may be negative, and an old file does not say how many examples are stopped.
    assert (
        replace(fit, threshold=-0.5, stopped=None, signal=replace(fit.signal, kind="loss", top_k=None)).never_stops
        is None
    )
