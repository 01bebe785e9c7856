"""Policies: what they score, and with which parameters."""

from __future__ import annotations

import numpy as np
import pytest

from justenough.budget import (
    POLICIES,
    Clear,
    EntropyProportional,
    Greedy,
    RightGivenEntropy,
    View,
    allocate,
    assumed,
)
from justenough.budget.policies import served
from justenough.errors import BudgetError


def test_greedy_looks_at_later_entropies_unless_told_not_to() -> None:
    known = assumed(RightGivenEntropy(2.0, -3.0, 9, 5), tokens=[10.0, 10.0, 10.0])
    right, cost = known.matrix(np.array([1.0, 1.0]))
    view = View(entropy=np.array([1.0, 1.0]), cost=cost, right=right, later=lambda _, at, bits: known.after(at, bits))
    looking, blind = Greedy().score(view), Greedy(adaptive=False).score(view)
    assert looking(0, 2, [1.0, 0.0]) < looking(0, 2, [1.0, float("nan")]) < looking(0, 2, [1.0, 2.0])
    assert blind(0, 2, [1.0, 0.0]) == blind(0, 2, [1.0, 2.0]) == looking(0, 2, [1.0, float("nan")])


def test_greedy_serves_what_pays_a_price_for_each_token() -> None:
    """CLEAR (arXiv 2606.03092): at a shadow price, each problem takes the steps of the largest utility less cost."""
    rng = np.random.default_rng(3)
    right, cost = rng.random((200, 5)), rng.uniform(5, 50, (200, 5))
    score = Greedy(adaptive=False).score(View(entropy=np.zeros(200), cost=cost, right=right))
    order = served(score, problems=200, steps=5, ranks=range(200))
    spent = np.cumsum(cost, axis=1)
    for price in (0.0003, 0.002, 0.01, 0.03):
        taken = np.ones(200, dtype=int)
        for service in order:
            taken[service.problem] += -service.negative > price
        assert taken.tolist() == ((right - price * spent).argmax(axis=1) + 1).tolist()
        assert len(set(taken.tolist())) > 2


def test_clear_abandons_what_greedy_still_takes() -> None:
    """One gain is 0.5 points and the other 20; both steps cost the average."""
    right, cost = np.array([[0.9, 0.905], [0.3, 0.5]]), np.full((2, 2), 10.0)
    view = View(entropy=np.zeros(2), cost=cost, right=right)
    greedy, clear, free = Greedy().score(view), Clear().score(view), Clear(least=0.0).score(view)
    assert greedy(0, 1, [0.0]) == free(0, 1, [0.0]) == pytest.approx(0.0005)
    assert clear(0, 1, [0.0]) == -np.inf
    assert clear(1, 1, [0.0]) == greedy(1, 1, [0.0]) == pytest.approx(0.02)
    assert Clear(least=0.21).score(view)(1, 1, [0.0]) == -np.inf
    with pytest.raises(BudgetError, match=r"least is 1\.5"):
        Clear(least=1.5)


def test_clear_pays_for_a_step_that_only_prepares_the_next_one() -> None:
    right, cost = np.array([[0.3, 0.3, 0.5]]), np.full((1, 3), 10.0)
    assert Clear().score(View(entropy=np.zeros(1), cost=cost, right=right))(0, 1, [0.0]) == pytest.approx(0.01)


def test_entropy_proportional_parameters_do_what_they_say() -> None:
    bits = np.array([0.2, 0.4, 0.6, 0.8])
    assert EntropyProportional(alpha=0.0).shares(bits).tolist() == [1, 1, 1, 1]
    assert EntropyProportional().shares(bits) == pytest.approx(bits / 0.5)
    assert EntropyProportional(alpha=0.5).shares(bits) == pytest.approx(0.5 + bits)
    assert EntropyProportional(delta=0.5).shares(bits) == pytest.approx([0, 0, 1, 3])
    assert EntropyProportional(gamma=2.0).shares(bits) == pytest.approx(bits**2 / 0.3)
    assert EntropyProportional(gamma=0.0, delta=0.5).shares(bits) == pytest.approx([0, 0, 2, 2])
    assert EntropyProportional(delta=5.0).shares(bits).tolist() == [1, 1, 1, 1]
    sharp = allocate(bits, total=8, policy=EntropyProportional(gamma=8.0)).steps
    assert sharp[3] == 4
    assert sharp[0] == 1
    assert set(allocate(bits, total=8, policy=EntropyProportional(alpha=0.0)).steps) == {2}
    with pytest.raises(BudgetError, match=r"alpha 1\.5"):
        EntropyProportional(alpha=1.5)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_states_what_it_needs(name: str) -> None:
    policy = POLICIES[name]()
    assert policy.name == name
    assert policy.needs
    assert policy.online == (name not in ("knapsack", "oracle"))
