"""Sweeps: policies compared at equal totals."""

from __future__ import annotations

import numpy as np
import pytest

from justenough.budget import (
    POLICIES,
    STOPPING,
    EntropyProportional,
    Recorded,
    RightGivenEntropy,
    assumed,
    simulate,
    stops_at_the_mean,
    sweep,
    totals_between,
)
from tests.builders import step, trace
from tests.unit.budget.recorded import HELD, TRACES, runs


def test_with_a_signal_greedy_beats_uniform_and_stays_below_the_oracle() -> None:
    made = sweep(TRACES, points=5, draws=5)
    greedy, oracle = made.overall["greedy"], made.overall["oracle"]
    assert greedy.low is not None
    assert greedy.low > 0.02
    assert made.verdict("greedy") == "better"
    assert oracle.value > greedy.value
    assert made.overall["uniform"].value == 0
    assert made.overall["knapsack"].value == pytest.approx(greedy.value, abs=0.03)
    by_total = {(row.policy, row.total): row for row in made.rows}
    assert len(by_total) == 5 * len(POLICIES)
    assert all(row.spent <= row.total for row in made.rows)
    ends = [row for row in made.rows if row.total == made.totals[0]]
    assert all(row.against_uniform == (0, 0, 0, 300) for row in ends), "one step each leaves nothing to choose"
    assert all(sum(row.steps_histogram) == pytest.approx(300) for row in made.rows)


def test_without_a_signal_nothing_is_claimed() -> None:
    made = sweep(
        runs(300, signal=False, seed=5), points=5, draws=5, policies=("uniform", "greedy", "entropy-proportional")
    )
    assert made.verdict("greedy") == "cannot tell"
    assert abs(made.overall["greedy"].value) < 0.03


def test_leaving_tokens_unspent_is_not_taken_for_reallocation() -> None:
    rng = np.random.default_rng(0)
    traces = []
    for number in range(300):
        # Step 2 mends every second wrong answer whatever the entropy says; steps 3 and 4 only spoil.
        right = bool(rng.random() < 0.5)
        taken = [step(entropy=abs(float(rng.normal(0.5, 0.2))), correct=right, tokens=40)]
        for chance in (0.0, 0.3, 0.3):
            right = (right or bool(rng.random() < 0.5)) and bool(rng.random() >= chance)
            taken.append(step(entropy=0.5, correct=right, tokens=40))
        traces.append(trace(*taken, id=f"p-{number}"))
    made = sweep(traces, points=5, draws=4, policies=("uniform", "greedy", "oracle"))
    assert made.verdict("greedy") == "better"
    assert made.verdict("greedy", equal_spend=True) == "cannot tell"
    assert abs(made.equal_spend["greedy"].value) < made.overall["greedy"].value / 3
    assert made.verdict("oracle", equal_spend=True) == "better"
    scarce, plenty = (made.at("greedy", made.totals[at]) for at in (1, 3))
    assert scarce is not None
    assert plenty is not None
    assert scarce.at_equal_spend == scarce.against_uniform
    given = simulate(traces, policy="uniform", total=int(plenty.spent))
    assert plenty.at_equal_spend.value == pytest.approx(plenty.accuracy - given.accuracy, abs=0.03)
    assert made.equal_spend["uniform"] == made.overall["uniform"]


def test_luck_in_who_takes_the_long_steps_is_not_taken_for_skill() -> None:
    known = assumed(RightGivenEntropy(1.0, -2.0, 9, 5), tokens=[10, 100])
    alarms = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        traces = []
        for number in range(150):
            right = bool(rng.random() < 0.3)
            bits, length = abs(float(rng.normal(0.5, 0.2))), int(1 + np.exp(rng.normal(4, 2)))
            later = step(correct=right or bool(rng.random() < 0.9), tokens=length, entropy=bits)
            traces.append(trace(step(correct=right, tokens=10, entropy=bits), later, id=f"p-{number}"))
        # The entropy says nothing here: whatever greedy seems to gain is luck. Nominal are 5 %.
        made = sweep(traces, points=3, draws=4, policies=("greedy",), expectations=[known] * 150)
        alarms += made.verdict("greedy") != "cannot tell"
    # Uncharged for what the steps cost, the same intervals raise 10.
    assert alarms <= 4


def test_at_a_single_total_the_rate_is_that_of_its_neighbours() -> None:
    total = totals_between(Recorded.of(TRACES), points=5, unit="tokens")[2]
    alone = sweep(TRACES, totals=[total], points=5, draws=3, policies=("greedy",)).at("greedy", total)
    among = sweep(TRACES, points=5, draws=3, policies=("greedy",)).at("greedy", total)
    assert alone is not None
    assert among is not None
    assert alone.against_uniform == among.against_uniform


def test_settings_of_one_policy_are_compared_by_name() -> None:
    made = sweep(
        TRACES[:60], points=3, draws=1, policies=[EntropyProportional(), EntropyProportional(gamma=3.0)], folds=2
    )
    assert len(made.overall) == 3
    assert "uniform" in made.overall


def test_plain_early_stopping_is_compared_at_its_own_total_and_groups_are_told_what_they_got() -> None:
    stops = stops_at_the_mean(HELD)
    assert set(stops.tolist()) == {1, 3}
    levels = ["odd" if number % 2 else "even" for number in range(300)]
    made = sweep(HELD, points=4, draws=3, policies=("greedy",), stops=stops.tolist(), groups={"level": levels})
    kept = sum(t.tokens_to(int(k)) for t, k in zip(TRACES, stops, strict=True))
    row = made.at(STOPPING, kept)
    assert row is not None
    right = np.array([t.steps[int(k) - 1].is_correct for t, k in zip(TRACES, stops, strict=True)])
    assert (row.spent, row.calls) == (kept, stops.sum())
    assert row.accuracy == pytest.approx(right.mean())
    assert STOPPING not in made.overall
    greedy = made.at("greedy", kept)
    assert greedy is not None
    assert greedy.against_stopping is not None
    assert greedy.against_stopping.value == pytest.approx(greedy.accuracy - row.accuracy)
    assert row.against_stopping is not None
    assert row.against_stopping.value == 0
    assert all(found.against_stopping is None for found in made.rows if found.total != kept)
    assert len(made.totals) == 5
    assert all(made.at(STOPPING, total) is None for total in made.totals if total != kept)
    for found in made.rows:
        shares = found.groups["level"]
        assert list(shares) == ["even", "odd"]
        assert sum(share.cost * share.problems for share in shares.values()) == pytest.approx(found.spent)
        assert sum(share.accuracy * share.problems for share in shares.values()) / 300 == pytest.approx(found.accuracy)
        counted = sum(count * steps for steps, count in enumerate(found.steps_histogram))
        assert sum(share.steps * share.problems for share in shares.values()) == pytest.approx(counted)
