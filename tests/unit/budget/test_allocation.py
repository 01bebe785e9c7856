"""Plans: steps for each problem from step-1 entropies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.budget import (
    POLICIES,
    EntropyProportional,
    Expectation,
    RightGivenEntropy,
    StepLength,
    allocate,
    assumed,
)
from justenough.errors import BudgetError
from tests.builders import population

ENTROPIES = [0.1, 0.4, 0.9, 1.6]

PLANNED = [name for name in POLICIES if name != "oracle"]


@pytest.mark.parametrize("policy", PLANNED)
def test_equal_totals_are_spent_alike_and_never_exceeded(policy: str) -> None:
    for total in range(4, 17):
        made = allocate(ENTROPIES, total=total, policy=policy)
        assert made.unit == "calls"
        assert made.expected_spend == sum(made.steps) == total
        assert min(made.steps) >= 1
        assert max(made.steps) <= 4


@given(
    entropies=st.lists(st.floats(0, 4), min_size=1, max_size=12),
    share=st.floats(0, 1.2),
    policy=st.sampled_from(PLANNED),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_plans_hold_their_total_and_repeat(entropies: list[float], share: float, policy: str, seed: int) -> None:
    tokens = [50.0, 80.0, 20.0]
    total = len(entropies) * (50 + share * 100)
    made = allocate(entropies, total=total, policy=policy, tokens=tokens, seed=seed)
    spend = sum(sum(tokens[:steps]) for steps in made.steps)
    assert made.expected_spend == pytest.approx(spend)
    assert spend <= total + 1e-6
    assert made == allocate(entropies, total=total, policy=policy, tokens=tokens, seed=seed)
    if policy in ("uniform", "first-come"):
        # No token that could help is left: no further step of anybody would fit.
        left = total - spend
        assert all(steps == 3 or tokens[steps] > left - 1e-6 for steps in made.steps)


def test_uniform_gives_its_remainder_at_random_by_seed() -> None:
    steps = [allocate([0.5] * 10, total=24, policy="uniform", seed=seed).steps for seed in range(30)]
    assert all(sorted(taken) == [2] * 6 + [3] * 4 for taken in steps)
    extra = np.mean([[count - 2 for count in taken] for taken in steps], axis=0)
    assert len(set(steps)) > 20
    assert extra.min() > 0.1
    assert extra.max() < 0.7


def test_first_come_serves_in_order() -> None:
    assert allocate(ENTROPIES, total=10, policy="first-come").steps == (4, 4, 1, 1)


def test_greedy_passes_over_the_easy_and_the_hopeless() -> None:
    # From 0.9, 0.5, 0.1 to 0.95, 0.9, 0.12: the middle gains by far the most.
    first, second = RightGivenEntropy(2.197, -2.197, 9, 9), RightGivenEntropy(6.0, -4.0, 9, 9)
    known = Expectation(right=((first, second), (second,)), tokens=(StepLength.constant(100),) * 2)
    made = allocate([0.0, 1.0, 2.0, 1.0], total=600, policy="greedy", expectation=known)
    assert made.steps == (1, 2, 1, 2)
    assert made.expected_spend == 600
    assert made.expected_right is not None
    assert made.expected_right > (0.9 + 0.5 + 0.1 + 0.5) / 4


def test_greedy_takes_no_step_that_gains_nothing() -> None:
    curve = RightGivenEntropy(1.0, -1.0, 9, 5)
    known = Expectation(right=((curve, curve), (curve,)), tokens=(StepLength.constant(10),) * 2)
    assert allocate(ENTROPIES, total=1000, expectation=known).steps == (1, 1, 1, 1)


def test_greedy_sees_through_a_step_that_only_prepares_the_next() -> None:
    same, better = RightGivenEntropy(0.0, -1.0, 9, 5), RightGivenEntropy(3.0, -1.0, 9, 5)
    known = Expectation(right=((same, same, better), (same, better), (better,)), tokens=(StepLength.constant(10),) * 3)
    assert sorted(allocate([0.5, 0.5], total=40, expectation=known).steps) == [1, 3]


@pytest.mark.parametrize("delta", [0.5, 1.0])
def test_tokens_that_the_shares_leave_over_go_to_the_other_problems_by_entropy(delta: float) -> None:
    policy = EntropyProportional(delta=delta)
    rest = [problem for problem, bits in enumerate(ENTROPIES) if bits <= delta]
    shared = 4 * (len(ENTROPIES) - len(rest)) + len(rest)
    for extra in range(1, 3 * len(rest) + 1):
        steps = allocate(ENTROPIES, total=shared + extra, policy=policy).steps
        assert sum(steps) == shared + extra, "no call is left over"
        rounds, more = divmod(extra, len(rest))
        assert [steps[problem] for problem in rest] == [
            1 + rounds + (place >= len(rest) - more) for place in range(len(rest))
        ]


def test_greedy_comes_within_one_step_of_the_knapsack() -> None:
    rng = np.random.default_rng(1)
    known = assumed(RightGivenEntropy(2.2, -2.2, 9, 5), rescue=0.4, tokens=[80.0, 120.0, 60.0, 200.0])
    bits = rng.uniform(0, 3, 100)
    for total in (10_000, 20_000, 35_000):
        greedy = allocate(bits, total=total, policy="greedy", expectation=known).expected_right
        bound = allocate(bits, total=total, policy="knapsack", expectation=known).expected_right
        assert greedy is not None
        assert bound is not None
        assert bound - 0.005 < greedy <= bound + 1e-12


@pytest.mark.parametrize(
    ("match", "entropies", "options"),
    [
        ("budget is 0", ENTROPIES, {"total": 0}),
        ("budget is -5", ENTROPIES, {"total": -5}),
        ("budget is nan", ENTROPIES, {"total": float("nan")}),
        ("budget is inf", ENTROPIES, {"total": float("inf")}),
        ("3 calls are below one step for each of 4 problems", ENTROPIES, {"total": 3}),
        ("399 tokens are below one step", ENTROPIES, {"total": 399, "tokens": 100}),
        ("problem 1: nan is no entropy", [0.1, float("nan")], {"total": 10}),
        ("problem 0: -0.1 is no entropy", [-0.1], {"total": 10}),
        (r"shape \(1, 2\)", [[0.1, 0.2]], {"total": 10}),
        ("no problem", [], {"total": 10}),
        ("unknown policy 'gready'", ENTROPIES, {"total": 10, "policy": "gready"}),
        ("oracle needs recorded", ENTROPIES, {"total": 10, "policy": "oracle"}),
        ("unknown unit 'words'", ENTROPIES, {"total": 10, "unit": "words"}),
        ("a budget in tokens needs the length", ENTROPIES, {"total": 10, "unit": "tokens"}),
        ("a step of -1.0 tokens", ENTROPIES, {"total": 10, "tokens": -1.0}),
        ("max_steps is 0", ENTROPIES, {"total": 10, "max_steps": 0}),
        ("spent has shape", ENTROPIES, {"total": 10, "spent": [1, 2]}),
    ],
)
def test_bad_budgets_get_one_clear_error(match: str, entropies: list[float], options: dict[str, float]) -> None:
    with pytest.raises(BudgetError, match=match) as caught:
        allocate(entropies, **options)  # type: ignore[arg-type]
    assert caught.value.hint


def test_an_expectation_of_another_model_or_signal_is_refused() -> None:
    known = Expectation.fit(population(60, seed=1))
    with pytest.raises(BudgetError, match="fitted on model, the problems are answered by other") as caught:
        allocate(ENTROPIES, total=10_000, expectation=known, model="other")
    assert caught.value.hint
