"""Replay as arrays equals the schedule's turns, one by one: the fast path against the naive one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.budget import POLICIES, EntropyProportional, Greedy, Policy, Recorded, cross_fit, simulate, simulation
from justenough.trace import Trace
from tests.builders import step, trace

POLICY = [*(made() for made in POLICIES.values()), EntropyProportional(0.5, 0.3, 2.0), Greedy(adaptive=False)]


def runs(n: int, *, steps: int, seed: int) -> list[Trace]:
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
def test_both_ways_give_every_problem_the_same(
    seed: int, n: int, steps: int, share: float, policy: Policy, unit: str, informed: bool
) -> None:
    held = Recorded.of(runs(n, steps=steps, seed=seed))
    cost = held.cost(unit)  # type: ignore[arg-type]
    total = max(1, int(cost[:, 0].sum() + share * cost[:, 1:].sum()))
    fits = (informed or policy.expects) and np.isfinite(held.bits[:, 0]).sum() > 5
    known = cross_fit(held, folds=3) if fits else None
    if known is None and policy.expects:
        return
    with pytest.MonkeyPatch.context() as patch:
        fast = simulate(held, policy=policy, total=total, expectation=known, seed=seed, unit=unit)  # type: ignore[arg-type]
        patch.setattr(simulation, "_at_once", lambda *_, **__: None)
        slow = simulate(held, policy=policy, total=total, expectation=known, seed=seed, unit=unit)  # type: ignore[arg-type]
    assert fast.steps.tolist() == slow.steps.tolist()
    assert fast.costs.tolist() == slow.costs.tolist()
    assert (fast.spent, fast.tokens, fast.calls, fast.cut) == (slow.spent, slow.tokens, slow.calls, slow.cut)
    assert fast.correct.tolist() == slow.correct.tolist()
    assert fast.spent <= total
