"""Replay: policies on recorded runs, under a ledger."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.budget import (
    POLICIES,
    EntropyProportional,
    Expectation,
    Greedy,
    Policy,
    Recorded,
    RightGivenEntropy,
    assumed,
    cross_fit,
    simulate,
    sweep,
    totals_between,
)
from justenough.errors import BudgetError
from justenough.trace import Probe, Step, Trace
from tests.builders import SIGNAL, population, step, trace
from tests.unit.budget.recorded import ALL, FIRST, HELD, KNOWN, TRACES, runs


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
    better = sweep(TRACES[:200], points=3, draws=2, form="online")
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
    with pytest.raises(BudgetError, match="the expectation was fitted on 300 of these problems"):
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
            "fitted on another signal: top_k is 20, the expectation's 5",
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


POLICY = [*(made() for made in POLICIES.values()), EntropyProportional(0.5, 0.3, 2.0), Greedy(adaptive=False)]


def ragged(n: int, *, steps: int, seed: int) -> list[Trace]:
    """Ragged: some end early, some steps have no signal or no token, some answers get worse."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(n):
        taken = []
        for _ in range(int(rng.integers(1, steps + 1)) if number else steps):
            bits = None if rng.random() < 0.1 else round(abs(float(rng.normal(0.5, 0.4))), 1)
            length = 0 if rng.random() < 0.05 else int(rng.integers(1, 40))
            taken.append(step(correct=bool(rng.random() < 0.6), tokens=length, entropy=bits))
        made.append(trace(*taken, id=f"p-{number}"))
    return made


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(6, 25),
    steps=st.integers(2, 4),
    share=st.floats(0, 1.1),
    policy=st.sampled_from(POLICY),
    unit=st.sampled_from(["tokens", "calls"]),
    informed=st.booleans(),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_the_costs_of_all_problems_are_the_sum_that_was_spent(
    seed: int, n: int, steps: int, share: float, policy: Policy, unit: str, informed: bool
) -> None:
    held = Recorded.of(ragged(n, steps=steps, seed=seed))
    cost = held.cost(unit)  # type: ignore[arg-type]
    total = max(1, int(cost[:, 0].sum() + share * cost[:, 1:].sum()))
    fits = (informed or policy.expects) and np.isfinite(held.bits[:, 0]).sum() > 5
    known = cross_fit(held, folds=3) if fits else None
    if known is None and policy.expects:
        return
    run = simulate(held, policy=policy, total=total, expectation=known, seed=seed, unit=unit)  # type: ignore[arg-type]
    assert run.costs.sum() == run.spent <= total
    assert run.calls == run.steps.sum() + run.cut
    whole = np.where(np.arange(held.max_steps)[None, :] < run.steps[:, None], cost, 0).sum(axis=1)
    assert (run.costs >= whole).all()
    assert np.count_nonzero(run.costs > whole) <= run.cut
