"""Every figure against a count by hand, and the promised keys."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from justenough.calibration.calibration import Calibration, calibrate
from justenough.calibration.thresholds import Info, Mean
from justenough.errors import InputError, ModelMismatch, SignalMismatch
from justenough.evaluation import evaluate, recommend, table_of
from justenough.evaluation.draws import calibration_draws
from justenough.gate import DECIDES, GateSettings
from justenough.rules.rules import EntropyGate, Oracle
from justenough.trace import Probe, Step, Trace
from tests.builders import SIGNAL, population, step, trace

PROMISED = {
    "problems", "unanswered", "accuracy_first", "accuracy_full", "accuracy_gated", "accuracy_change_ci",
    "tokens_first", "tokens_last", "tokens_full", "tokens_gated", "saving", "saving_vs_first", "saving_vs_last",
    "decide", "oracle_saving", "oracle_share", "cohens_d", "cohens_d_ci", "auroc", "auroc_ci", "auroc_within_groups",
    "verdict", "harm", "rescue", "thresholds", "threshold_outcomes", "rules", "draws",
}  # fmt: skip


def fixed(threshold: float | None, subject: Calibration) -> Calibration:
    return replace(subject, threshold=threshold, thresholds={**subject.thresholds, "mean": threshold}, fitted_on=())


def by_hand() -> list[Trace]:
    """Four problems: stopped right, stopped wrong (harm), stopped right where the last is wrong (rescue), extended."""
    return [
        trace(step(0.1, 0.1), step(0.2, 0.2, 0.2), id="a"),
        trace(step(0.2, 0.2, correct=False, answer="9"), step(0.2, 0.2, 0.2), id="b"),
        trace(step(0.3, 0.3), step(0.2, 0.2, 0.2, correct=False, answer="9"), id="c"),
        trace(step(0.9, 0.9, correct=False, answer="9"), step(0.2, 0.2, 0.2, correct=None, answer=None), id="d"),
    ]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return replace(calibrate(population(200, seed=1)), fitted_on=())


def test_figures_by_hand(calibration: Calibration) -> None:
    subject = evaluate(by_hand(), calibration=fixed(0.5, calibration), draws=5)
    assert (subject.problems, subject.left_out, subject.unanswered) == (4, 0, 1)
    assert (subject.accuracy_first, subject.accuracy_full, subject.gated.accuracy) == (0.5, 0.5, 0.5)
    assert (subject.tokens_first, subject.tokens_last, subject.tokens_full, subject.gated.tokens) == (8, 12, 20, 11)
    assert subject.gated.saving is not None
    assert subject.gated.saving.value == pytest.approx(1 - 11 / 20)
    assert subject.gated.saving_vs_first == pytest.approx(1 - 11 / 8)
    assert subject.gated.saving_vs_last == pytest.approx(1 - 11 / 12)
    assert subject.gated.harm is not None
    assert subject.gated.rescue is not None
    assert (subject.gated.harm.value, subject.gated.rescue.value, subject.gated.stopped) == (0.25, 0.25, 0.75)
    # The oracle stops a, c and d at step 1, where stopping costs nothing: 2 + 5 + 2 + 2 of 20 tokens.
    assert subject.oracle_saving == pytest.approx(1 - 11 / 20)
    assert subject.gated.oracle_share == pytest.approx(1.0)
    hopeless = [trace(step(0.1, correct=False), step(0.1, correct=False), id=str(number)) for number in range(20)]
    assert evaluate(hopeless, rules="always-one-step", draws=2).rules["always-one-step"].oracle_share == 1.0
    needed = [trace(step(0.1, correct=False), step(0.1), id=str(number)) for number in range(20)]
    assert evaluate(needed, rules="always-one-step", draws=2).rules["always-one-step"].oracle_share is None


def silent(n: int) -> list[Trace]:
    """Traces without any signal, whose answers converge."""
    return [trace(*[step(correct=True, tokens=5)] * 3, id=str(number)) for number in range(n)]


@pytest.mark.parametrize("rules", ["answer-convergence", "all"])
def test_rules_that_need_no_signal_are_replayed_without_one(rules: str) -> None:
    results = evaluate(silent(6), rules=rules, draws=3, resamples=20)
    assert results.rules["answer-convergence:2"].tokens == 6 * 10
    assert results.gated.tokens == 6 * 15
    assert "usable signal" in results.warnings[-1]
    assert results.draws.reasons == {"no_signal": 3}
    if rules == "all":
        assert "entropy-mean" in results.missing
        assert "entropy-mean" not in results.rules
    assert json.loads(json.dumps(results.to_json(), allow_nan=False)) == results.to_json()


@pytest.mark.parametrize(
    ("kind", "one", "named"),
    [
        ("probe-score", step(entropy=0.2), "`entropy`, which is ignored: signal.kind is 'probe-score'"),
        ("entropy", step(uncertainty=0.2, tokens=2), "`uncertainty`, which is ignored: signal.kind is 'entropy'"),
    ],
)
def test_a_signal_of_another_kind_is_not_ignored_in_silence(kind: str, one: Step, named: str) -> None:
    signal = replace(SIGNAL, kind=kind)
    traces = [trace(one, one, id=str(number), signal=signal) for number in range(6)]
    assert any(named in warning for warning in evaluate(traces, rules="all-steps", draws=2, resamples=5).warnings)
    assert evaluate(population(20), rules="all-steps", draws=2, resamples=5).warnings == ()


def test_of_many_numbers_of_steps_only_a_few_are_shown() -> None:
    long = [trace(*[step(0.5, tokens=2)] * 181, id=str(number)) for number in range(4)]
    fixed_steps = [name for name in evaluate(long, draws=2, resamples=5).rules if name.startswith("always-")]
    assert fixed_steps == [
        "always-one-step",
        "always-4-steps",
        "always-13-steps",
        "always-49-steps",
        "always-180-steps",
    ]
    assert evaluate(long, rules="always-77-steps", draws=2, resamples=5).rules.keys() == {"always-77-steps"}


def test_no_rule_without_harm_saves_more_than_the_oracle() -> None:
    """A gate that harms nobody once reached 138 % of the oracle's saving."""
    rng = np.random.default_rng(3)
    traces = [
        trace(
            *[
                replace(
                    step(float(rng.random()), correct=bool(rng.random() < 0.5), tokens=int(rng.integers(1, 9))),
                    probe=Probe(answer="1", correct=True, tokens=int(rng.integers(1, 30))),
                )
                for _ in range(int(rng.integers(1, 7)))
            ],
            id=str(number),
            shape="streaming",
        )
        for number in range(60)
    ]
    for decide in DECIDES:
        harmless = Oracle(decide)
        best = 1 - sum(harmless.replay(one).tokens for one in traces) / sum(one.tokens for one in traces)
        results = evaluate(traces, rules="oracle", decide=decide, draws=2, resamples=5)
        assert results.oracle_saving == pytest.approx(best)
        for one in traces:
            for at in range(1, len(one.steps) + 1) if decide == "every" else (1, len(one.steps)):
                if one.steps[at - 1].is_correct or not one.steps[-1].is_correct:
                    assert harmless.replay(one).tokens <= one.tokens_to(at)


def test_the_promised_keys_are_there_and_plain_json(calibration: Calibration) -> None:
    value = evaluate(population(60, seed=3), calibration=calibration, draws=10).to_json()
    assert value.keys() >= PROMISED
    text = json.dumps(value, allow_nan=False)
    assert json.loads(text) == value
    rules = value["rules"]
    assert isinstance(rules, dict)
    for name in ("always-one-step", "all-steps", "oracle", "entropy-mean", "entropy-risk", "answer-convergence:2"):
        figures = rules[name]
        assert isinstance(figures, dict)
        assert {"accuracy", "accuracy_change", "accuracy_change_ci", "saving", "saving_ci", "harm"} <= figures.keys()
    for value_ in (value["accuracy_first"], value["saving"], value["auroc"]):
        assert isinstance(value_, float)
        assert -10 < value_ <= 1


def test_problems_of_the_calibration_are_left_out() -> None:
    traces = population(120, seed=4)
    subject = calibrate(traces, n=20, seed=1)
    evaluation = evaluate(traces, calibration=subject, draws=5)
    assert (evaluation.problems, evaluation.left_out) == (100, 20)
    everything = calibrate(traces)
    with pytest.raises(InputError, match="none is left"):
        evaluate(traces, calibration=everything)


def test_other_signals_and_models_are_refused(calibration: Calibration) -> None:
    with pytest.raises(SignalMismatch, match="top_k"):
        evaluate([trace(step(0.5), signal=replace(SIGNAL, top_k=5))], calibration=calibration)
    with pytest.raises(ModelMismatch, match="other"):
        evaluate([trace(step(0.5), model="other")], calibration=calibration)
    with pytest.raises(InputError, match="mix"):
        evaluate([trace(step(0.5)), trace(step(0.5), model="other", id="q")])
    with pytest.raises(InputError, match="no trace"):
        evaluate([])


def test_never_stopping_is_all_steps(calibration: Calibration) -> None:
    evaluation = evaluate(population(50, seed=5), calibration=fixed(None, calibration), draws=5)
    assert evaluation.gated.tokens == evaluation.tokens_full
    assert evaluation.gated.saving is not None
    assert evaluation.gated.saving.value == 0.0
    assert evaluation.gated.accuracy_change.value == 0.0


def test_cross_fitted_draws_use_no_problem_twice() -> None:
    traces = population(80, seed=6)
    table = table_of(traces, SIGNAL)
    settings = GateSettings(signal=SIGNAL, max_steps=2)
    draws, means = calibration_draws(table, Mean(), settings, n=10, draws=40, seed=0)
    again, _ = calibration_draws(table, Mean(), settings, n=10, draws=40, seed=0)
    assert draws == again
    assert draws.saving.p5 <= draws.saving.mean <= draws.saving.p95
    assert means.averaged
    # By hand: the first draw's threshold, decided on the other 70.
    drawn = np.random.default_rng((0, 0)).choice(80, size=10, replace=False)
    threshold = table.rows(drawn).examples().right.mean()
    others = np.setdiff1d(np.arange(80), drawn)
    stopped = table.bits[others, 0] <= threshold
    spent = np.where(stopped, table.spent[others, 0], table.spent[others, -1]).sum()
    assert draws.savings[0] == pytest.approx(1 - spent / table.spent[others, -1].sum())


def test_a_refused_draw_counts_as_never_stopping() -> None:
    traces = [trace(step(0.1 * (number % 7 + 1)), step(0.1), id=str(number)) for number in range(30)]
    table = table_of(traces, SIGNAL)
    draws, _ = calibration_draws(table, Info(), GateSettings(signal=SIGNAL, max_steps=2), n=10, draws=20, seed=0)
    assert draws.refused == 1.0
    assert draws.reasons == {"too_few_wrong": 20}
    assert draws.saving.mean == 0.0
    assert draws.threshold is None


def test_a_wanted_rule_alone(calibration: Calibration) -> None:
    names = "oracle, fixed-budget:3,entropy-info"
    evaluation = evaluate(population(40, seed=7), calibration=calibration, rules=names, draws=3)
    assert set(evaluation.rules) == {"oracle", "fixed-budget:3", "entropy-info"}
    with pytest.raises(InputError, match="unknown rule"):
        evaluate(population(40, seed=7), rules="magic", draws=3)
    with pytest.raises(InputError, match="entropy-magic"):
        evaluate(population(40, seed=7), rules="entropy-magic", draws=3)


def test_the_recommended_gate_by_table_is_the_gate_itself() -> None:
    traces = population(220, seed=9)
    evaluation = evaluate(traces, pool=population(200, seed=10), rules="recommended", draws=3)
    settings = recommend(population(200, seed=10)).settings
    gate = EntropyGate("recommended", settings)
    same = [replace(subject, signal=settings.signal) for subject in traces]
    assert evaluation.rules["recommended"].tokens == sum(gate.replay(subject).tokens for subject in same)


def test_too_few_problems_for_a_recommendation_are_reported() -> None:
    evaluation = evaluate(population(150, seed=11), rules="recommended,all-steps", draws=3)
    assert set(evaluation.rules) == {"all-steps"}
    assert "100 labelled problems" in evaluation.missing["recommended"]


def test_rules_are_a_list_or_a_text() -> None:
    traces = population(60, seed=2)
    as_text = evaluate(traces, rules="oracle,entropy-mean", draws=5)
    as_list = evaluate(traces, rules=["oracle", "entropy-mean"], draws=5)
    assert as_list == as_text
    assert set(as_list.rules) == {"oracle", "entropy-mean"}
    with pytest.raises(InputError, match="unknown rule 'magic'"):
        evaluate(traces, rules=["oracle", "magic"], draws=5)
