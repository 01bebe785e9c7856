"""CUSUM, LearnStop and Conformal Thinking against their formulas, and what labels make of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from justenough.errors import NotEnoughExamples
from justenough.rules.fitted import FITTED, ConformalThinking, Cusum, LearnStop
from justenough.rules.looks import Bools, Looks, looks_of, passage
from justenough.trace import Trace
from tests.unit.rules.recorded import converging, streamed, streaming


def seen(traces: list[Trace]) -> tuple[Looks, Bools]:
    looks = looks_of(traces, [quantity for make in FITTED.values() for quantity in make.reads])
    return looks, np.array([[step.is_correct for step in trace.steps] for trace in traces])


LOOKS, RIGHT = seen(converging(300))


def test_cusum_sums_the_evidence_and_never_falls_below_none() -> None:
    rule = Cusum(edges=(0.5,), ratios=(1.0, -2.0), alarm=math.exp(2))
    values = [0.1, 0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.1]
    total, expected = 0.0, 0
    for number, value in enumerate(values, 1):
        total = max(0.0, total + (1.0 if value < 0.5 else -2.0))
        expected = expected or (number if total >= 2 else 0)
    made = streaming(*[streamed("1", (value,)) for value in values], streamed("1"))
    assert expected == 7
    assert rule.replay(made)[:2] == (7, 70 + 4 + 24)
    # An answer that is missing is no evidence.
    holed = streaming(*made.steps[:6], streamed(None, (0.1,)), *made.steps[6:])
    assert rule.replay(holed).step == 8


def test_cusum_learns_both_densities_and_stops_after_the_change() -> None:
    rules = Cusum.fitted(LOOKS, RIGHT)
    assert [rule.alarm for rule in rules] == sorted(rule.alarm for rule in rules)
    assert rules[0].ratios[0] > 1
    assert rules[0].ratios[-1] < -1
    stops, _ = passage(rules[2], LOOKS)
    saved = RIGHT[:, -1]
    assert RIGHT[np.arange(300), stops][saved].mean() > 0.98
    assert stops[saved].mean() < 9
    later, _ = passage(rules[-1], LOOKS)
    assert (later >= stops).all()


@pytest.mark.parametrize("make", [Cusum, LearnStop])
def test_equal_answers_teach_nothing(make: type[Cusum] | type[LearnStop]) -> None:
    looks, right = seen([streaming(*[replace(streamed("1", right=True), text="so")] * 3)] * 4)
    with pytest.raises(NotEnoughExamples):
        make.fitted(looks, right)


def test_learn_stop_scores_with_a_logistic_regression() -> None:
    (rule,) = LearnStop.fitted(LOOKS, RIGHT)
    stops, _ = passage(rule, LOOKS)
    lost = RIGHT[:, -1] & ~RIGHT[np.arange(300), stops]
    assert lost.mean() <= 0.15
    assert stops.mean() < 10
    # Likely answers, equal answers and few markers speak for a right answer.
    named = dict(zip(("logprob", "entropy", "stable"), rule.weights[3:6], strict=True))
    assert named["logprob"] > 0 > named["entropy"]
    assert named["stable"] > 0


@pytest.mark.parametrize(("n", "stops"), [(100, False), (160, False), (300, True)])
def test_learn_stop_needs_labels_for_its_bound(n: int, stops: bool) -> None:
    """ln(101/.05)/(2·.15²) is 169."""
    assert bool(LearnStop.fitted(LOOKS.rows(np.arange(n)), RIGHT[:n])) is stops


def test_learn_stop_reads_eight_features_and_nothing_later() -> None:
    from justenough.rules.fitted import _features

    made = streaming(
        *[
            replace(streamed(answer, (0.5, 0.7), sure=0.5), text=text, tokens=20)
            for answer, text in (("1", "wait, however"), ("2", "so"), ("2", "hmm"), ("1", ""), (None, "so"))
        ]
    )
    looks, _ = seen([made])
    rows = _features(looks, 5)[0]
    assert rows.shape == (5, 8)
    assert rows[2].tolist() == pytest.approx([0.06, 0.5, math.log(0.5), 0.6, 1, 2, 2 / 3, 3 / 60 * 100])
    assert rows[0].tolist() == pytest.approx([0.02, 0.0, math.log(0.5), 0.6, 0, 1, 1, 2 / 20 * 100])


def sure(*confidences: float) -> Trace:
    steps = [replace(streamed("1", (0.0,), sure=value), tokens=100) for value in confidences]
    return streaming(*steps, streamed("1"))


def test_conformal_thinking_stops_above_the_one_limit_or_below_the_other() -> None:
    rule = ConformalThinking(0.9, None)
    # .95 · .92 + .05 · .1 is below .9.
    assert rule.replay(sure(0.1, 0.92, 0.92)).step == 3
    assert rule.replay(sure(0.92)).step == 1
    # At 200 and 300 tokens the lower limit is .5 and .73 of .9995; before it does not count.
    lower = ConformalThinking(2.0, (0.0, 0.01, 200.0))
    assert lower.replay(sure(0.01, 0.55, 0.70)).step == 3
    assert lower.replay(sure(0.01, 0.2, 0.9)).step == 2


def test_conformal_thinking_keeps_its_target_on_the_labels() -> None:
    slack = math.sqrt(math.log(10) / 600)
    rules = ConformalThinking.fitted(LOOKS, RIGHT)
    assert rules
    for rule in rules:
        if rule.upper < math.inf:
            stops, _ = passage(replace(rule, lower=None), LOOKS)
            # A fifth of the problems ends wrong, so the smallest targets cannot be kept.
            assert 0.2 <= (~RIGHT[np.arange(300), stops]).mean() <= 0.5 - slack
        if rule.lower is not None:
            stops, _ = passage(replace(rule, upper=math.inf), LOOKS)
            assert (RIGHT[:, -1] & (stops < 11)).mean() <= 0.5 - slack
    assert ConformalThinking.fitted(LOOKS.rows(np.arange(3)), RIGHT[:3]) == []


@pytest.mark.parametrize("make", FITTED.values())
def test_a_fitted_rule_stops_new_problems(make: type[Cusum]) -> None:
    looks, _ = seen(converging(100, seed=1))
    least = min(int(passage(rule, looks)[1].sum()) for rule in make.fitted(LOOKS, RIGHT))
    assert least < looks.spent[:, -1].sum()
