"""The calibrated combination: fitted, frozen, in a file and in the gate; too few labels are refused by number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.calibration.calibration import Calibration, calibrate, load_calibration
from justenough.calibration.thresholds import RiskControlled
from justenough.errors import InputError, NotEnoughExamples
from justenough.evaluation import evaluate, table_of
from justenough.gate import Gate, GateSettings, decisions
from justenough.signal.combination import Combination, combination_from_json, fit_rows, inputs_of
from justenough.signal.pooling import Measured
from justenough.signal.signal import Signal
from justenough.stats import auroc
from justenough.trace import Json, Token, Trace
from tests.builders import SIGNAL, step, trace


def two_faced(n: int, *, seed: int = 0) -> list[Trace]:
    """Wrong answers are either long or unsure at the end: no single pooling sees both."""
    rng = np.random.default_rng(seed)
    made: list[Trace] = []
    for number in range(n):
        right = bool(rng.random() < 0.6)
        length = 60 if rng.random() < (0.1 if right else 0.5) else 20
        bits = rng.gamma(1.0, rng.uniform(0.02, 0.3), size=length)
        if not right:
            bits[-5:] += rng.gamma(1.0, 0.2, size=5)
        first = step(*bits.tolist(), answer="1" if right else "2", correct=right)
        later = step(0.1, answer="1", correct=True, tokens=1)
        made.append(trace(first, later, id=f"p-{number}"))
    return made


def rows_of(measured: Sequence[Measured]) -> NDArray[np.float64]:
    return np.array([inputs_of(one) for one in measured], dtype=np.float64)


def test_it_tells_what_no_pooling_tells_alone() -> None:
    made = calibrate(two_faced(400), pooling="combination")
    held = two_faced(400, seed=9)
    found = {}
    for signal in (made.signal, SIGNAL, replace(SIGNAL, pooling="sum")):
        table = table_of(held, signal)
        right = table.correct[:, 0]
        found[signal.pooling] = auroc(table.bits[right, 0], table.bits[~right, 0]) or 0.0
    assert found["combination"] > max(found["mean"], found["sum"]) + 0.02
    assert made.signal.unit == "P(wrong)"
    assert any("200 further labels" in warning for warning in made.warnings)
    # Weights and threshold were fitted on other problems; both are left out of an evaluation.
    assert made.n == 200
    assert len(made.fitted_on) == 400


def test_too_few_labels_are_refused_by_number() -> None:
    with pytest.raises(NotEnoughExamples, match="100 labels") as raised:
        calibrate(two_faced(99), pooling="combination")
    assert raised.value.needed == 11
    measured = [Measured([0.1]) for _ in range(150)]
    with pytest.raises(NotEnoughExamples, match="10 of them right"):
        fit_rows(rows_of(measured), np.arange(150) < 145)
    with pytest.raises(NotEnoughExamples, match="there are 99"):
        fit_rows(rows_of(measured[:99]), np.arange(99) < 50)
    with pytest.raises(InputError, match="same signal"):
        fit_rows(rows_of(measured), np.arange(150) < 75)


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    return calibrate(two_faced(300), pooling="combination")


def test_live_and_replayed_it_is_the_same_to_the_last_bit(fitted: Calibration) -> None:
    settings = GateSettings.of(fitted)
    stopped = 0
    for made in two_faced(60, seed=5):
        gate = Gate(settings)
        for bits in made.steps[0].entropies or ():
            gate.feed(Token(text="", entropy=bits))
        live = gate.end_step()
        assert live == decisions(made.steps[:1], settings)[0]
        stopped += live.ends
    assert 0 < stopped < 60


def test_it_survives_its_file_and_is_evaluated(fitted: Calibration, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("made") / "calibration.json"
    path.write_text(fitted.dumps(), encoding="utf-8")
    read = load_calibration(path)
    assert read == fitted
    others = [replace(one, id=f"held-{one.id}") for one in two_faced(100, seed=3)]
    found = evaluate(two_faced(300) + others, calibration=read, rules="all-steps", draws=2, resamples=50)
    assert (found.left_out, found.problems) == (300, 100)
    assert found.signal.unit == "P(wrong)"


def test_a_certificate_comes_from_labels_that_the_weights_have_not_seen() -> None:
    made = calibrate(two_faced(600), pooling="combination", method=RiskControlled(max_harm=0.05))
    assert made.guarantee is not None
    assert f"{made.n} examples" in made.guarantee
    assert (made.n, made.signal.combination and made.signal.combination.n) == (300, 300)


@pytest.mark.parametrize("seed", range(4))
def test_an_input_that_one_trace_lacks_is_left_out_whichever_half_it_falls_into(seed: int) -> None:
    traces = two_faced(220)
    spoken = [replace(one, steps=(replace(one.steps[0], logprobs=(-0.1,) * one.steps[0].tokens),)) for one in traces]
    assert all(len(one.steps[0].entropies or ()) == one.steps[0].tokens for one in traces)
    made = calibrate(spoken, pooling="combination", seed=seed, force=True)
    # One step that lacks its log-probabilities.
    made = calibrate([traces[0], *spoken[1:]], pooling="combination", seed=seed, force=True)
    assert made.signal.combination is not None
    assert "surprisal" not in made.signal.combination.inputs


def test_what_it_needs_and_a_step_lacks_stops_nothing() -> None:
    needy = Combination(
        inputs=("mean", "surprisal"), centre=(0.0, 0.0), scale=(1.0, 1.0), weights=(1.0, 1.0), intercept=0.0, n=100
    )
    signal = replace(SIGNAL, pooling="combination", combination=needy)
    assert needy.needs == ("entropies", "logprobs")
    settings = GateSettings(signal=signal, threshold=1.0)
    assert decisions([step(0.1)], settings)[0].reason == "no_signal"
    assert decisions([replace(step(0.1), logprobs=(-0.1,))], settings)[0].action == "stop"
    with pytest.raises(InputError, match="needs logprobs"):
        calibrate(two_faced(20), signal=signal)


def test_a_stand_in_may_be_combined_with_length() -> None:
    rng = np.random.default_rng(0)
    measured = [Measured((), scalar=float(rng.random()), tokens=int(rng.integers(5, 500))) for _ in range(200)]
    correct = np.array([(one.scalar or 0) + (one.tokens or 0) / 500 < 1 for one in measured])
    made = fit_rows(rows_of(measured), correct)
    assert made.inputs == ("recorded", "length")
    values = np.array([made.value(one) for one in measured], dtype=np.float64)
    assert (auroc(values[correct], values[~correct]) or 0) > 0.95


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("inputs", ["mean", "median"]),
        ("inputs", "mean"),
        ("scale", [0.0]),
        ("weights", [1.0, 2.0]),
        ("weights", ["1"]),
        ("intercept", None),
        ("centre", [math.inf]),
        ("n", "many"),
    ],
)
def test_a_damaged_combination_is_refused(key: str, value: Json) -> None:
    good = Combination(inputs=("mean",), centre=(0.0,), scale=(1.0,), weights=(1.0,), intercept=0.0, n=100).to_json()
    assert combination_from_json(good).n == 100
    with pytest.raises(InputError, match=r"combination|input"):
        combination_from_json(good | {key: value})
    with pytest.raises(InputError, match="combination"):
        combination_from_json({"inputs": []})


def test_a_combination_and_its_pooling_go_together() -> None:
    with pytest.raises(InputError, match="fitted weights"):
        Signal(pooling="combination")
