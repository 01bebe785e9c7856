"""The recommended gate: pooling, place and threshold are chosen on labels, and the loss stays within its bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from justenough.errors import NotEnoughExamples
from justenough.evaluation import recommend, table_of
from justenough.evaluation.figures import gate_outcomes
from justenough.evaluation.recommend import allowed, candidates, first_harm, harmless_threshold, recommend_from
from justenough.evaluation.table import tables_of
from justenough.gate import DECIDES, Decide
from justenough.signal.pooling import POOLINGS
from justenough.signal.signal import Signal
from justenough.trace import Trace
from tests.builders import SIGNAL, population, step, trace


def test_the_recommended_gate_keeps_its_loss_on_the_labels() -> None:
    traces = population(300, seed=8)
    chosen = recommend(traces)
    assert chosen.n == 300
    assert chosen.settings.threshold is not None
    table = table_of(traces, chosen.settings.signal)
    rows, stops = np.arange(300), table.stops(chosen.settings)
    lost = table.correct[:, -1].sum() - table.correct[rows, stops].sum()
    assert lost <= 0.01 * 300
    assert (stops == 0).mean() > 0.2


def test_too_few_problems_or_steps_give_no_recommendation() -> None:
    traces = population(100, seed=8)
    with pytest.raises(NotEnoughExamples, match="100") as few:
        recommend(traces[:99])
    assert few.value.needed == 1
    with pytest.raises(NotEnoughExamples, match="one step"):
        recommend([replace(each, steps=each.steps[:1]) for each in traces])
    with pytest.raises(NotEnoughExamples, match="0 are there"):
        recommend_from([], shape="sequential")


def test_the_threshold_is_the_largest_that_harms_no_more_than_allowed() -> None:
    # One answer is lost at 0.2 and a second one at 0.6; the rescue at 0.1 does not pay for them.
    lost, saved = {20, 60}, {10}
    traces = [
        trace(step(n / 100, correct=n not in lost), step(0.0, correct=n not in saved), id=str(n)) for n in range(100)
    ]
    table = table_of(traces, SIGNAL)
    assert [harmless_threshold(table, "first", harms=harms) for harms in (-1, 0, 1, 2, 999)] == [
        None,
        0.19,
        0.59,
        0.99,
        0.99,
    ]


def test_no_threshold_is_harmless_if_the_surest_answer_is_wrong() -> None:
    traces = [trace(step(0.1 + n / 100, correct=n > 0), step(0.1), id=str(n)) for n in range(9)]
    assert harmless_threshold(table_of(traces, SIGNAL), "first", harms=0) is None


def test_harm_at_any_step_begins_at_a_new_lowest_value() -> None:
    traces = [
        trace(step(0.5, correct=True), step(0.4, correct=False), step(0.3, correct=False), step(0.1), id="falls"),
        trace(step(0.2, correct=True), step(0.4, correct=False), step(0.1), id="never reached"),
        trace(step(0.2, correct=False), step(0.1, correct=False), id="wrong throughout"),
        trace(step(0.6, correct=False), step(0.7), id="at once"),
    ]
    table = table_of(traces, SIGNAL)
    assert first_harm(table, "every").tolist() == [0.3, np.inf, np.inf, 0.6]
    assert first_harm(table, "first").tolist() == [np.inf, np.inf, np.inf, 0.6]


@pytest.mark.parametrize("decide", DECIDES)
def test_the_promise_holds_on_new_problems(decide: Decide) -> None:
    """On average over sets of labels at most 2 % of new problems lose a right answer, whatever the signal is."""
    rng = np.random.default_rng(0)
    large = table_of(weak(3000, rng), SIGNAL)
    harms = []
    for _ in range(60):
        labels = large.rows(rng.choice(3000, size=240, replace=False))
        settings = recommend_from([labels], shape="sequential", max_loss=0.02, decides=(decide,)).settings
        harms.append(gate_outcomes(large, settings).harm.mean())
    assert 0.004 < np.mean(harms) <= 0.02


def weak(n: int, rng: np.random.Generator) -> list[Trace]:
    """Three steps whose entropies say little of which answers are right."""
    return [
        trace(
            *[
                step(float(rng.normal(0.4 if right else 0.5, 0.3)) ** 2, correct=right)
                for right in (bool(rng.random() < 0.6), bool(rng.random() < 0.7), bool(rng.random() < 0.9))
            ],
            id=str(number),
        )
        for number in range(n)
    ]


def test_rankedare_all_poolings_or_the_stand_in() -> None:
    assert [signal.pooling for signal in candidates(SIGNAL)] == list(POOLINGS)
    assert [signal.pooling for signal in candidates(SIGNAL, poolings=("sum",))] == ["sum"]
    stand_in = Signal(kind="length", top_k=None)
    assert candidates(stand_in) == [stand_in]


def test_poolings_that_the_traces_cannot_give_are_left_out() -> None:
    traces = population(5)
    remaining = [table.signal.pooling for table in allowed(tables_of(traces, candidates(SIGNAL)))]
    assert "mean" in remaining
    assert "maximum" in remaining
    # There are neither log-probabilities nor texts of the tokens.
    assert "surprisal" not in remaining
    assert "answer-span" not in remaining
    scalar = [trace(step(entropy=0.5), step(0.1), id=str(n)) for n in range(3)]
    assert [table.signal.pooling for table in allowed(tables_of(scalar, candidates(SIGNAL)))] == ["mean"]


def test_the_candidate_that_saves_most_on_the_choosing_third_is_taken() -> None:
    """Step 1 says nothing here and step 2 all, so only a gate that decides after every step saves tokens."""
    rng = np.random.default_rng(2)
    traces = [
        trace(
            step(1 + float(rng.random()), correct=False),
            step(0.1 if n % 2 else 0.9, correct=n % 2 > 0),
            step(0.1),
            id=str(n),
        )
        for n in range(300)
    ]
    recommendation = recommend(traces)
    chosen, ranked = recommendation.settings, recommendation.candidates
    assert chosen.decide == "every"
    assert chosen.threshold == pytest.approx(0.1)
    assert (ranked[0].pooling, ranked[0].decide) == (chosen.signal.pooling, chosen.decide)
    assert {(one.pooling, one.decide) for one in ranked} >= {
        (pooling, decide) for pooling in ("mean", "sum") for decide in DECIDES
    }


def test_where_every_candidate_loses_too_much_nothing_is_stopped() -> None:
    rng = np.random.default_rng(0)
    traces = [
        trace(step(float(rng.random()), correct=bool(rng.random() < 0.5)), step(0.1), id=str(n)) for n in range(200)
    ]
    recommendation = recommend(traces, max_loss=0.001)
    assert recommendation.settings.threshold is None
    assert not (table_of(traces, recommendation.settings.signal).stops(recommendation.settings) == 0).any()


def test_the_same_seed_gives_the_same_recommendation() -> None:
    traces = population(150, seed=5)
    assert recommend(traces, seed=2) == recommend(traces, seed=2)
