"""What every policy holds to in each form that it says it has: a new one is added to `HELD_TO` and passes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from justenough.budget import (
    FORMS,
    POLICIES,
    UNITS,
    EntropyProportional,
    Form,
    Greedy,
    Ledger,
    Policy,
    Recorded,
    Schedule,
    Simulation,
    Unit,
    allocate,
    assumed,
    cross_fit,
    policy_named,
    simulate,
)
from justenough.budget.curves import RightGivenEntropy
from justenough.errors import BudgetError
from tests.builders import step, trace

HELD_TO: Final[dict[str, Policy]] = {
    **{name: policy_named(name) for name in POLICIES},
    "entropy-proportional, its parameters set": EntropyProportional(alpha=0.6, delta=0.2, gamma=2.0),
    "greedy, later entropies unseen": Greedy(adaptive=False),
}
IN_FORMS: Final = [
    pytest.param(policy, form, id=f"{name}, {form}")
    for name, policy in HELD_TO.items()
    for form in FORMS
    if form == "batch" or policy.online
]
N: Final = 60


def recorded(seed: int = 0) -> Recorded:
    rng = np.random.default_rng(seed)
    made = []
    for number in range(N):
        right = bool(rng.random() < 0.6)
        taken = []
        for _ in range(3):
            bits = abs(float(rng.normal(0.3 if right else 0.8, 0.25)))
            taken.append(step(answer="1", correct=right, tokens=int(rng.integers(15, 50)), entropy=bits))
            right = right or bool(rng.random() < 0.6)
        made.append(trace(*taken, id=f"p-{seed}-{number}"))
    return Recorded.of(made)


HELD: Final = recorded()
KNOWN: Final = cross_fit(HELD)


def totals(unit: Unit) -> list[int]:
    cost = HELD.cost(unit)
    low, high = int(cost[:, 0].sum()), int(cost.sum())
    return [low, low + 7, (2 * low + high) // 3, (low + 2 * high) // 3, high, 2 * high]


def play(policy: Policy, form: Form, *, total: int, unit: Unit = "tokens", seed: int = 0) -> Simulation:
    return simulate(HELD, policy=policy, total=total, expectation=KNOWN, form=form, unit=unit, seed=seed)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize(("policy", "form"), IN_FORMS)
def test_it_spends_what_it_says_never_more_and_leaves_nobody_out(policy: Policy, form: Form, unit: Unit) -> None:
    cost = HELD.cost(unit)
    for total in totals(unit):
        made = play(policy, form, total=total, unit=unit)
        assert made.steps.min() >= 1
        assert made.steps.max() <= HELD.max_steps
        kept = sum(cost[row, :taken].sum() for row, taken in enumerate(made.steps.tolist()))
        assert kept <= made.spent == made.costs.sum() <= total
        assert made.cut or kept == made.spent
        with pytest.raises(BudgetError, match="below one step for each of 60 problems"):
            play(policy, form, total=int(cost[:, 0].sum()) - 1, unit=unit)


@pytest.mark.parametrize(("policy", "form"), IN_FORMS)
def test_it_repeats_itself_given_the_seed(policy: Policy, form: Form) -> None:
    total = totals("tokens")[2]
    for seed in (0, 1):
        first, second = (play(policy, form, total=total, seed=seed) for _ in range(2))
        assert (first.spent, first.tokens, first.calls, first.cut) == (
            second.spent,
            second.tokens,
            second.calls,
            second.cut,
        )
        assert first.steps.tolist() == second.steps.tolist()


@pytest.mark.parametrize(("policy", "form"), IN_FORMS)
def test_it_knows_no_more_than_it_says(policy: Policy, form: Form) -> None:
    """Which answers are right is for the oracle alone."""
    turned = replace(HELD, correct=~HELD.correct)
    for total in totals("tokens")[1:4]:
        mine = play(policy, form, total=total).steps
        theirs = simulate(turned, policy=policy, total=total, expectation=KNOWN, form=form).steps
        if policy.name != "oracle":
            assert mine.tolist() == theirs.tolist()
        elif total != totals("tokens")[1]:
            assert mine.tolist() != theirs.tolist()


def steps_live(policy: Policy, bits: Sequence[Sequence[float]], *, total: int, form: Form) -> list[int]:
    """Turn by turn, as a live run takes them, at 30 tokens a step."""
    ledger = Ledger(total)
    schedule = Schedule(
        len(bits), ledger, policy=policy, limits=[40] * 3, expectations=[KNOWN[0]] * len(bits), form=form
    )
    while (turn := schedule.next()) is not None:
        assert turn.reservation.limit == turn.max_tokens <= 40
        assert ledger.spent + ledger.reserved <= total
        schedule.done(turn, tokens=min(30, turn.max_tokens), bits=bits[turn.problem][turn.step - 1])
    assert schedule.finished
    return list(schedule.steps)


@pytest.mark.parametrize("policy", [policy for policy in HELD_TO.values() if policy.online], ids=repr)
def test_online_it_decides_before_it_sees_what_comes_later(policy: Policy) -> None:
    rng = np.random.default_rng(3)
    bits = rng.uniform(0, 1.5, (20, 3))
    other = bits.copy()
    other[10:] = rng.uniform(0, 1.5, (10, 3))
    mine, theirs = (steps_live(policy, each.tolist(), total=1000, form="online") for each in (bits, other))
    assert mine[:10] == theirs[:10]
    assert sum(mine) > 20


@pytest.mark.parametrize("policy", [policy for policy in HELD_TO.values() if not policy.online], ids=repr)
def test_what_needs_all_problems_at_once_says_so(policy: Policy) -> None:
    with pytest.raises(BudgetError, match="needs all problems at once"):
        play(policy, "online", total=totals("tokens")[2])


@pytest.mark.parametrize("policy", HELD_TO.values(), ids=repr)
def test_it_asks_for_what_it_needs(policy: Policy) -> None:
    assert policy.needs
    given: dict[str, Any] = {"policy": policy, "total": totals("tokens")[2]}
    if policy.expects:
        with pytest.raises(BudgetError, match="needs an expectation"):
            simulate(HELD, **given)
    else:
        assert simulate(HELD, **given).steps.min() >= 1
    with pytest.raises(BudgetError, match=r"needs (an expectation|all problems)"):
        simulate(HELD, form="online", **given)


@pytest.mark.parametrize("policy", [policy for policy in HELD_TO.values() if policy.name != "oracle"], ids=repr)
def test_it_plans_too(policy: Policy) -> None:
    known = assumed(RightGivenEntropy(2.0, -3.0, 9, 5), tokens=[30, 60, 60])
    made = [allocate([0.1, 0.5, 0.9, 1.4], total=350, policy=policy, expectation=known, seed=3) for _ in range(2)]
    assert made[0] == made[1]
    assert min(made[0].steps) == 1
    assert 120 < made[0].expected_spend <= 350


@pytest.mark.parametrize("name", POLICIES)
def test_the_guide_says_what_it_needs_and_in_which_forms_it_comes(name: str) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "how-to" / "token-budget.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{name}` \|([^|]+)\|([^|]+)\|$", guide, re.MULTILINE)
    assert row is not None
    assert row[1].strip()
    assert row[2].strip() == ("batch, online" if POLICIES[name]().online else "batch")
