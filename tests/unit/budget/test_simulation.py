from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from justenough.budget import (
    POLICIES,
    STOPPING,
    EntropyProportional,
    Expectation,
    Ledger,
    Recorded,
    RightGivenEntropy,
    Schedule,
    Turn,
    assumed,
    cross_fit,
    simulate,
    stops_at_the_mean,
    sweep,
    totals_between,
)
from justenough.errors import BudgetError
from justenough.trace import Probe, Step, Trace
from tests.builders import SIGNAL, population, step, trace


def runs(n: int, *, seed: int = 0, signal: bool = True, gain: float = 0.7, steps: int = 3) -> list[Trace]:
    """Right and wrong answers apart by entropy, or not at all; wrong ones are mended by each further step."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        right = bool(rng.random() < 0.6)
        taken = []
        for _ in range(steps):
            bits = abs(float(rng.normal(0.3 if right or not signal else 0.9, 0.2)))
            taken.append(step(answer="1", correct=right, tokens=int(rng.integers(20, 60)), entropy=bits))
            right = right or bool(rng.random() < gain)
        made.append(trace(*taken, id=f"p-{number}"))
    return made


TRACES = runs(300)
HELD = Recorded.of(TRACES)
KNOWN = cross_fit(TRACES)
FIRST, ALL = sum(t.tokens_to(1) for t in TRACES), sum(t.tokens for t in TRACES)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_spent_is_what_the_traces_really_took(policy: str) -> None:
    for total in totals_between(HELD, points=5, unit="tokens"):
        made = simulate(TRACES, policy=policy, total=total, expectation=KNOWN)
        really = sum(t.tokens_to(int(k)) for t, k in zip(TRACES, made.steps, strict=True))
        assert made.spent == made.tokens <= total
        assert really <= made.spent <= really + max(HELD.limits) * made.cut
        assert made.cut <= 1
        kept = [t.steps[int(k) - 1].is_correct for t, k in zip(TRACES, made.steps, strict=True)]
        assert made.correct.tolist() == kept
        again = simulate(TRACES, policy=policy, total=total, expectation=KNOWN)
        assert made.steps.tolist() == again.steps.tolist()


@pytest.mark.parametrize("policy", POLICIES)
def test_at_one_step_each_and_at_all_steps_there_is_nothing_to_choose(policy: str) -> None:
    made = simulate(HELD, policy=policy, total=FIRST, expectation=KNOWN)
    assert (made.spent, set(made.steps.tolist())) == (FIRST, {1})
    if policy in ("uniform", "first-come"):
        made = simulate(HELD, policy=policy, total=ALL + max(HELD.limits), expectation=KNOWN)
        assert (made.spent, set(made.steps.tolist())) == (ALL, {3})


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


def test_where_a_step_gains_nothing_greedy_keeps_the_tokens() -> None:
    traces = runs(200, gain=0.0)
    made = simulate(traces, policy="greedy", total=ALL, expectation=cross_fit(traces))
    uniform = simulate(traces, policy="uniform", total=ALL)
    assert made.accuracy == uniform.accuracy
    assert made.spent < uniform.spent


def test_the_online_form_paces_itself_and_leaves_nobody_without_a_first_step() -> None:
    total = (FIRST + ALL) // 2
    for policy in ("uniform", "greedy", "entropy-proportional", "first-come"):
        made = simulate(HELD, policy=policy, total=total, expectation=KNOWN, form="online")
        assert made.spent <= total
        assert made.spent > 0.9 * min(total, ALL) or policy == "greedy"
        assert made.steps.min() >= 1
    half = len(TRACES) // 2
    uniform = simulate(HELD, policy="uniform", total=total, expectation=KNOWN, form="online").steps
    first = simulate(HELD, policy="first-come", total=total, expectation=KNOWN, form="online").steps
    assert abs(uniform[:half].mean() - uniform[half:].mean()) < 0.3
    assert first[:half].mean() - first[half:].mean() > 1
    better = sweep(TRACES, points=3, draws=5, form="online")
    assert better.verdict("greedy") == "better"
    assert "oracle" not in better.overall


def test_calls_are_counted_too() -> None:
    made = simulate(HELD, policy="greedy", total=500, expectation=KNOWN, unit="calls")
    assert made.spent == made.calls == int(made.steps.sum()) == 500


def test_a_step_that_the_end_of_the_budget_cuts_is_paid_and_lost() -> None:
    traces = [trace(step(correct=False, tokens=10), step(correct=True, tokens=100), id=f"p-{i}") for i in range(2)]
    made = simulate(traces, policy="first-come", total=150)
    assert made.steps.tolist() == [2, 1]
    assert made.correct.tolist() == [True, False]
    assert (made.spent, made.cut, made.calls) == (150, 1, 4)
    # With the length known, the step that would not fit is not begun.
    known = assumed(RightGivenEntropy(0.0, -1.0, 2, 1), tokens=[10, 100])
    made = simulate(traces, policy="first-come", total=150, expectation=known)
    assert (made.spent, made.cut) == (120, 0)


def test_a_stream_is_paid_by_its_segments_and_the_elicitation_where_it_stops() -> None:
    def part(tokens: int, probe: int, right: bool) -> Step:
        said = Probe(answer="1", correct=right, tokens=probe)
        return replace(step(0.5, tokens=tokens, correct=right), probe=said)

    traces = [trace(part(50, 9, False), part(5, 1, True), part(40, 9, True), id="p", shape="streaming")]
    held = Recorded.of(traces)
    assert held.tokens.tolist() == [[59, 59, 104]]
    made = simulate(held, policy="first-come", total=104)
    assert (made.spent, made.steps.tolist()) == (104, [3])


def test_a_first_step_without_a_signal_counts_as_the_least_sure() -> None:
    blind = trace(step(correct=False, tokens=30), step(0.2, tokens=30), id="blind")
    traces = [*runs(50, steps=2), blind]
    known = assumed(RightGivenEntropy(2.0, -3.0, 9, 5), tokens=[40, 40])
    total = sum(t.tokens_to(1) for t in traces) + 130
    made = simulate(traces, policy="greedy", total=total, expectation=known)
    assert made.steps[-1] == 2
    assert made.steps.sum() <= 51 + 5


def test_estimates_that_have_seen_the_problem_are_refused() -> None:
    with pytest.raises(BudgetError, match="the expectation for problem 0 was fitted on it"):
        simulate(HELD, policy="greedy", total=ALL, expectation=Expectation.fit(TRACES))
    assert all(t.hashed_id not in known.fitted_on for t, known in zip(TRACES, KNOWN, strict=True))
    assert len({known.fitted_on for known in KNOWN}) == 5


@pytest.mark.parametrize(
    ("match", "options"),
    [
        ("budget is 0", {"total": 0}),
        ("budget is nan", {"total": float("nan")}),
        (f"{FIRST - 1} tokens are below one step for each of 300", {"total": FIRST - 1}),
        ("unknown policy", {"policy": "all"}),
        ("greedy needs an expectation", {"policy": "greedy"}),
        ("needs an expectation", {"policy": "uniform", "form": "online"}),
        ("knapsack needs all problems at once", {"policy": "knapsack", "form": "online", "expectation": KNOWN}),
        ("unknown unit", {"unit": "words"}),
        ("unknown form", {"form": "both"}),
        ("1 expectations for 300 problems", {"expectation": KNOWN[:1]}),
        ("fitted on another, the problems are answered by model", {"expectation": replace(KNOWN[0], model="another")}),
        (
            "fitted on another signal: top_k 5 is not 20",
            {"expectation": replace(KNOWN[0], signal=replace(SIGNAL, top_k=5))},
        ),
    ],
)
def test_bad_budgets_get_one_clear_error(match: str, options: dict[str, float]) -> None:
    given = {"policy": "uniform", "total": ALL, **options}
    with pytest.raises(BudgetError, match=match) as caught:
        simulate(HELD, **given)  # type: ignore[arg-type]
    assert caught.value.hint


def test_traces_that_cannot_be_replayed_are_refused() -> None:
    for match, traces in (
        ("no trace", []),
        ("one step each", [trace(step(0.5))]),
        ("2 models", [*population(2), *population(1, model="other")]),
        ("comes twice", [trace(step(0.5), step(0.5)), trace(step(0.5), step(0.5))]),
        ("not graded", [trace(step(0.5, correct=None), step(0.5))]),
    ):
        with pytest.raises(BudgetError, match=match) as caught:
            Recorded.of(traces)
        assert caught.value.hint
    with pytest.raises(BudgetError, match="token limits"):
        Recorded.of(TRACES, limits=[10, 10, 10])


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


def test_a_live_schedule_keeps_several_turns_under_way_within_the_total() -> None:
    ledger = Ledger(900)
    schedule = Schedule(10, ledger, policy="uniform", limits=[60, 60, 60])
    under_way: list[Turn] = []
    while not schedule.finished:
        turn = schedule.next()
        if turn is not None:
            under_way.append(turn)
            assert turn.max_tokens <= 60
        if under_way and (turn is None or len(under_way) == 4):
            ended = under_way.pop(0)
            schedule.done(ended, tokens=min(40, ended.max_tokens), bits=0.5)
        assert ledger.spent + ledger.reserved <= 900
    assert ledger.spent == 900
    assert sum(schedule.steps) == 23
    assert {len(key.split("#")) for key in ledger.spent_by_key} == {2}


def test_a_schedule_resumes_and_survives_failures() -> None:
    ledger = Ledger(1000)
    schedule = Schedule(3, ledger, policy="first-come", limits=[50, 50])
    schedule.resume(0, [0.4])
    turn = schedule.next()
    assert turn is not None
    assert (turn.problem, turn.step) == (1, 1)
    schedule.failed(turn)
    taken = []
    while (turn := schedule.next()) is not None:
        taken.append((turn.problem, turn.step))
        schedule.done(turn, tokens=10, bits=None)
    assert taken == [(2, 1), (0, 2), (2, 2)]
    assert schedule.finished
    assert ledger.spent == 30


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
