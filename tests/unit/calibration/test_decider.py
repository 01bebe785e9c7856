"""The decider: frozen numbers, the same live and on recorded runs, and never a look at a later step."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.calibration.calibration import Calibration, calibrate, calibration_from_json
from justenough.calibration.decider import FEATURES, features_of, fit_decider
from justenough.errors import GatingRefused, InputError, NotEnoughExamples, NothingCertified
from justenough.evaluation.evaluate import evaluate
from justenough.evaluation.table import table_of
from justenough.gate import GateSettings, Reason, replay
from justenough.trace import Json, Trace
from tests.builders import DECIDER, SIGNAL, step, trace

histories = st.lists(st.tuples(st.one_of(st.none(), st.floats(0, 4)), st.integers(1, 100)), min_size=1, max_size=6)


def runs(n: int, *, seed: int = 0, steps: int = 5, marked: bool = False) -> list[Trace]:
    """The answer becomes right at some step, or never; the signal falls from that step on, from a level of its own.

    With `marked`, the level of a problem that is never solved is far higher.
    """
    rng = np.random.default_rng(seed)
    made: list[Trace] = []
    for number in range(n):
        solved = int(rng.integers(0, steps + 2))
        level = float(rng.uniform(0.5, 2.0)) + (3.0 if marked and solved >= steps else 0.0)
        parts = []
        for at in range(steps):
            right = at >= solved
            bits = max(0.0, level * (0.3 if right else 1.0) + float(rng.normal(0, 0.05)))
            parts.append(step(bits, bits, answer="1" if right else "2", correct=right))
        made.append(trace(*parts, id=f"p-{number}"))
    return made


@pytest.fixture(scope="module")
def made() -> Calibration:
    return calibrate(runs(600), method="decider", decide="every", max_harm=0.05)


@given(history=histories, later=histories)
def test_a_score_depends_on_no_later_step(
    history: list[tuple[float | None, int]], later: list[tuple[float | None, int]]
) -> None:
    """The same scores whatever follows, in any order, and live as on recorded runs."""

    def columns(rows: list[tuple[float | None, int]]) -> list[float]:
        bits = np.array([math.nan if bits is None else bits for bits, _ in rows])
        tokens = np.array([float(tokens) for _, tokens in rows])
        scores: list[float] = DECIDER.scores(bits, tokens, np.array([0])).tolist()
        return scores

    alone = columns(history)
    for following in (later, later[::-1], []):
        np.testing.assert_array_equal(columns([*history, *following])[: len(history)], alone)
    run = DECIDER.begin()
    live = [run.after(bits, tokens) for bits, tokens in history]
    np.testing.assert_allclose([math.nan if one is None else one for one in live], alone, atol=2e-9)


def test_problems_do_not_see_each_other() -> None:
    bits, tokens = np.array([1.0, 0.5, 2.0, 0.1]), np.array([3.0, 4.0, 5.0, 6.0])
    both = features_of(bits, tokens, np.array([0, 2]), limit=4)
    np.testing.assert_array_equal(both[2:], features_of(bits[2:], tokens[2:], np.array([0]), limit=4))
    assert both[1].tolist() == [0.5, 0.75, 0.5, -0.5, math.log1p(7), 0.5]


def test_it_is_fitted_to_harmless_and_not_to_right(made: Calibration) -> None:
    """Problems that are never solved cost nothing to stop, so a decider may stop them although they are wrong."""
    decider = made.decider
    assert decider is not None
    assert decider.n == 300
    assert decider.carrying()[0][0] in ("minimum", "entropy", "change", "mean")
    assert len(decider.carrying()) == len(FEATURES)
    fresh = runs(400, seed=9)
    settings = GateSettings.of(made)
    stops = [replay(one, settings)[-1] for one in fresh]
    harm = sum(
        not one.steps[end.step - 1].correct and bool(one.steps[-1].correct)
        for one, end in zip(fresh, stops, strict=True)
    )
    early = [end for end in stops if end.reason is Reason.CONFIDENT]
    assert harm / 400 <= 0.05
    assert len(early) > 150
    assert all(end.score is not None and end.score <= (made.threshold or 0.0) for end in early)


def test_the_table_stops_where_the_gate_does(made: Calibration) -> None:
    fresh = runs(150, seed=3)
    for settings in (GateSettings.of(made), replace(GateSettings.of(made), patience=2, min_tokens=5, max_steps=4)):
        expected = [replay(one, settings)[-1].step - 1 for one in fresh]
        assert table_of(fresh, SIGNAL).stops(settings).tolist() == expected
        checkpoints = table_of(fresh, SIGNAL).checkpoints(settings)
        harms, _ = checkpoints.counts(np.array([made.threshold]))
        last = min(settings.max_steps, 5) - 1
        assert int(harms[0]) == sum(
            not one.steps[at].correct and bool(one.steps[last].correct) for one, at in zip(fresh, expected, strict=True)
        )


def test_evaluate_shows_the_decider_and_the_thresholds_of_the_signal(made: Calibration) -> None:
    fresh = [replace(one, id=f"other-{one.id}") for one in runs(100, seed=3)]
    shown = evaluate(fresh, calibration=made, draws=2, resamples=20, rules="entropy-mean")
    alone = shown.rules["entropy-mean"].saving
    assert shown.gated.saving is not None
    assert alone is not None
    assert shown.gated.saving.value == pytest.approx(
        1 - sum(2 * replay(one, GateSettings.of(made))[-1].step for one in fresh) / 1000
    )
    plain = GateSettings(threshold=made.thresholds["mean"], signal=SIGNAL, decide="every", max_steps=5)
    assert alone.value == pytest.approx(1 - sum(2 * replay(one, plain)[-1].step for one in fresh) / 1000)


def test_it_is_a_part_of_the_calibration_file(made: Calibration) -> None:
    assert made.method == "decider"
    assert made.guarantee is not None
    assert "300 examples" in made.guarantee
    assert any("the decider was fitted on 300 further labels" in warning for warning in made.warnings)
    assert calibration_from_json(json.loads(made.dumps())) == made
    assert GateSettings.of(made).decider == made.decider


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"version": 2}, "version 2, this is for version 1"),
        ({"weights": "none"}, "weights is 'none'"),
        ({"weights": [1.0]}, "other features"),
        ({"features": ["entropy"]}, "other features"),
        ({"scale": [0.0] * 6}, "scales"),
        ({"intercept": None}, "intercept"),
        ({"limit": 0}, "limit is 0"),
    ],
)
def test_a_bad_decider_is_refused(made: Calibration, changed: dict[str, Json], complaint: str) -> None:
    good = made.to_json()
    with pytest.raises(InputError, match=f"here: .*{complaint}"):
        calibration_from_json(good | {"decider": DECIDER.to_json() | changed}, where="here")


def test_it_needs_harm_to_learn_from_and_every_step() -> None:
    with pytest.raises(InputError, match="only the first decides"):
        calibrate(runs(50), method="decider")
    with pytest.raises(NotEnoughExamples, match="rarer kind there are 0"):
        fit_decider(np.ones(40), np.ones(40), np.arange(0, 40, 2), np.zeros(40, dtype=bool), limit=2)
    with pytest.raises(NothingCertified):
        calibrate(runs(100), method="decider", decide="every", max_harm=0.001)
    single = [replace(one, steps=one.steps[:1]) for one in runs(100)]
    with pytest.raises((NothingCertified, GatingRefused)):
        calibrate(single, method="decider", decide="every")


def test_giving_up_is_a_reason_of_its_own_and_shares_the_certificate() -> None:
    made = calibrate(runs(600, marked=True), method="decider", decide="every", max_harm=0.05, give_up=True)
    assert made.outlook is not None
    assert made.give_up is not None
    assert calibration_from_json(json.loads(made.dumps())) == made
    settings = GateSettings.of(made)
    fresh = runs(400, seed=9, marked=True)
    ends = [replay(one, settings)[-1] for one in fresh]
    reasons = {reason: [end.reason is reason for end in ends] for reason in (Reason.HOPELESS, Reason.CONFIDENT)}
    never = [not one.steps[-1].correct for one in fresh]
    hopeless = [bad for bad, gone in zip(never, reasons[Reason.HOPELESS], strict=True) if gone]
    assert len(hopeless) > 80
    assert sum(hopeless) / len(hopeless) > 0.9
    assert sum(reasons[Reason.CONFIDENT]) > 80
    harm = sum(
        not one.steps[end.step - 1].correct and bool(one.steps[-1].correct)
        for one, end in zip(fresh, ends, strict=True)
    )
    assert harm / 400 <= 0.05
    assert table_of(fresh, SIGNAL).stops(settings).tolist() == [end.step - 1 for end in ends]
    # A threshold of the signal alone never stops these problems: their signal stays high.
    alone = GateSettings.of(calibrate(runs(600, marked=True), method="risk", decide="every", max_harm=0.05))
    saved = [sum(5 - replay(one, which)[-1].step for one in fresh) for which in (settings, alone)]
    assert saved[0] > saved[1]
    patient = replace(settings, patience=2)
    expected = [replay(one, patient)[-1].step - 1 for one in fresh]
    assert table_of(fresh, SIGNAL).stops(patient).tolist() == expected


@pytest.mark.parametrize(("unsolved", "n", "seed"), [(8, 300, 0), (5, 500, 3)])
def test_it_gives_up_only_where_the_last_answer_is_unlikely_to_be_right(unsolved: int, n: int, seed: int) -> None:
    pool = runs(n, seed=seed)
    never = [one for one in pool if not one.steps[-1].correct]
    most_are_solved = [one for one in pool if one.steps[-1].correct] + never[:unsolved]
    made = calibrate(most_are_solved, method="decider", decide="every", max_harm=0.05, give_up=True)
    assert (made.outlook, made.give_up) == (None, None)
    assert "no limit for giving up is certified: no run is stopped as hopeless" in made.warnings


def test_giving_up_needs_graded_answers() -> None:
    with pytest.raises(InputError, match="agreement with the last answer cannot show that it is wrong"):
        calibrate(runs(50), method="decider", decide="every", labels="agreement", give_up=True)


def test_the_missing_labels_are_those_of_both_halves() -> None:
    with pytest.raises(NothingCertified) as refused:
        calibrate(runs(100), method="decider", decide="every", max_harm=0.02)
    # 149 labels certify 2 % where nothing is harmed.
    assert refused.value.needed == 2 * 149 - 1 - 100


def test_giving_up_needs_a_decider_and_its_threshold() -> None:
    with pytest.raises(InputError, match="needs the decider"):
        calibrate(runs(50), method="risk", decide="every", give_up=True)
    with pytest.raises(InputError, match="outlook and its threshold"):
        GateSettings(threshold=0.1, decide="every", outlook=DECIDER)
    plain = calibrate(runs(300), method="decider", decide="every", max_harm=0.1)
    assert (plain.outlook, plain.give_up) == (None, None)
    with pytest.raises(InputError, match="giving up needs an outlook"):
        calibration_from_json(plain.to_json() | {"give_up": 0.1})
