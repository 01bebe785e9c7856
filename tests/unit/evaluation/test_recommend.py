"""The recommended gate: pooling, place and threshold are chosen on labels, and the loss stays within its bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from justenough.errors import NotEnoughExamples
from justenough.evaluation import recommend, table_of
from justenough.evaluation.recommend import allowed, candidates, gain_threshold, recommend_from
from justenough.evaluation.table import tables_of
from justenough.gate import GateSettings
from justenough.signal.pooling import POOLINGS
from justenough.signal.signal import Signal
from tests.builders import SIGNAL, population, step, trace

SETTINGS = GateSettings(signal=SIGNAL, max_steps=2)


def test_the_recommended_gate_keeps_its_loss_on_the_labels() -> None:
    traces = population(300, seed=8)
    chosen = recommend(traces)
    assert chosen.n == 300
    assert chosen.settings.threshold is not None
    table = table_of(traces, chosen.settings.signal)
    rows, stops = np.arange(300), table.stops(chosen.settings)
    lost = table.correct[:, -1].sum() - table.correct[rows, stops].sum()
    assert lost + 1 <= 0.01 * 300
    assert (stops == 0).mean() > 0.2


def test_too_few_problems_or_steps_give_no_recommendation() -> None:
    traces = population(100, seed=8)
    with pytest.raises(NotEnoughExamples, match="100") as few:
        recommend(traces[:99])
    assert few.value.needed == 1
    with pytest.raises(NotEnoughExamples, match="one step"):
        recommend([replace(made, steps=made.steps[:1]) for made in traces])
    with pytest.raises(NotEnoughExamples, match="0 are there"):
        recommend_from([], shape="sequential")


def test_a_threshold_that_loses_too_much_is_none() -> None:
    # The surest answers are wrong, and the second step corrects all of them.
    traces = [
        trace(step(0.1 if number % 2 else 0.9, correct=number % 2 == 0), step(0.1), id=str(number))
        for number in range(100)
    ]
    table = table_of(traces, SIGNAL)
    assert gain_threshold(table, SETTINGS, max_loss=0.01) is None
    # All of them may be lost where the bound allows it.
    assert gain_threshold(table, SETTINGS, max_loss=0.52) == 0.9


def test_the_threshold_is_the_largest_within_the_bound() -> None:
    # One answer is lost at 0.2 and a second one at 0.6.
    lost = {20, 60}
    traces = [trace(step(n / 100, correct=n not in lost), step(0.0), id=str(n)) for n in range(100)]
    table = table_of(traces, SIGNAL)
    assert gain_threshold(table, SETTINGS, max_loss=0.01) == 0.19
    assert gain_threshold(table, SETTINGS, max_loss=0.02) == 0.59
    assert gain_threshold(table, SETTINGS, max_loss=0.03) == 0.99


def test_a_saved_answer_pays_for_a_lost_one() -> None:
    lost, saved = {20}, {10}
    traces = [
        trace(step(n / 100, correct=n not in lost), step(0.0, correct=n not in saved), id=str(n)) for n in range(100)
    ]
    table = table_of(traces, SIGNAL)
    assert gain_threshold(table, SETTINGS, max_loss=0.01) == 0.99


def test_candidates_are_all_poolings_or_the_stand_in() -> None:
    assert [signal.pooling for signal in candidates(SIGNAL)] == list(POOLINGS)
    assert [signal.pooling for signal in candidates(SIGNAL, poolings=("sum",))] == ["sum"]
    stand_in = Signal(kind="length", top_k=None)
    assert candidates(stand_in) == [stand_in]


def test_poolings_that_the_traces_cannot_give_are_left_out() -> None:
    traces = population(5)
    kept = [table.signal.pooling for table in allowed(tables_of(traces, candidates(SIGNAL)))]
    assert "mean" in kept
    assert "maximum" in kept
    # There are neither log-probabilities nor texts of the tokens.
    assert "surprisal" not in kept
    assert "answer-span" not in kept
    scalar = [trace(step(entropy=0.5), step(0.1), id=str(n)) for n in range(3)]
    assert [table.signal.pooling for table in allowed(tables_of(scalar, candidates(SIGNAL)))] == ["mean"]


def test_every_candidate_is_listed_best_first() -> None:
    found = recommend(population(200, seed=3), poolings=("mean", "sum"), max_loss=0.05)
    assert {(one.pooling, one.decide) for one in found.candidates} == {
        (pooling, decide) for pooling in ("mean", "sum") for decide in ("first", "every")
    }
    best = found.candidates[0]
    assert (best.pooling, best.decide) == (found.settings.signal.pooling, found.settings.decide)
    within = [one.saving for one in found.candidates if one.change >= -0.05]
    assert within == sorted(within, reverse=True)


def test_where_every_candidate_loses_too_much_nothing_is_stopped() -> None:
    rng = np.random.default_rng(0)
    traces = [
        trace(step(float(rng.random()), correct=bool(rng.random() < 0.5)), step(0.1), id=str(n)) for n in range(200)
    ]
    found = recommend(traces, max_loss=0.001)
    assert found.settings.threshold is None
    assert not (table_of(traces, found.settings.signal).stops(found.settings) == 0).any()


def test_the_same_seed_gives_the_same_recommendation() -> None:
    traces = population(150, seed=5)
    assert recommend(traces, seed=2) == recommend(traces, seed=2)
