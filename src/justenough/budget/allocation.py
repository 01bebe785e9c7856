"""A plan: steps for each problem from step-1 entropies, never above the total in expectation."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.budget.curves import Floats, RightGivenEntropy, StepLength, checked_entropies
from justenough.budget.expectation import Expectation, assumed
from justenough.budget.policies import NEVER, Policy, Score, View, policy_named, tie_order
from justenough.budget.units import UNITS, Unit
from justenough.errors import BudgetError
from justenough.trace import Json

DEFAULT_STEPS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Who gets how many steps."""

    policy: str
    unit: Unit
    total: float
    steps: tuple[int, ...]
    """Steps of each problem, the first included."""
    expected_spend: float
    """Expected cost of all these steps, at most `total`."""
    expected_right: float | None
    """Expected accuracy; None where no expectation was given."""
    seed: int
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """A JSON object."""
        return {
            "policy": self.policy,
            "unit": self.unit,
            "total": self.total,
            "steps": list(self.steps),
            "expected_spend": self.expected_spend,
            "expected_right": self.expected_right,
            "seed": self.seed,
            "warnings": list(self.warnings),
        }


def checked_total(total: float) -> float:
    """A total that can be spent; raises `BudgetError` for zero, negative and no numbers."""
    if isinstance(total, bool) or not isinstance(total, int | float | np.integer | np.floating):
        raise BudgetError(f"the budget is {total!r}", hint="a number of tokens or calls")
    if not math.isfinite(total) or total <= 0:
        raise BudgetError(f"the budget is {total!r}", hint="a finite number of tokens or calls, above 0")
    return total


def allocate(
    entropies: ArrayLike,
    *,
    total: float,
    policy: str | Policy = "greedy",
    expectation: Expectation | None = None,
    tokens: float | Sequence[float] | None = None,
    spent: ArrayLike | None = None,
    max_steps: int | None = None,
    unit: Unit | None = None,
    seed: int = 0,
    model: str | None = None,
) -> Allocation:
    """Steps for each problem from the entropies (n,) of their first steps, in bits; the first step counts too.

    `tokens` is the expected length of a step, or of each (K,); by default the expectation's. Without any length a step
    costs 1, so that `total` counts calls. `spent` is what step 1 of each problem really cost (n,), where that is known.
    Without an expectation, `greedy` and `knapsack` assume that hope falls with entropy and say so in `warnings`.
    Raises `BudgetError` for a budget below one step each, entropies that are none, an unknown policy, and an
    expectation that was fitted on another model than `model`.
    """
    bits = checked_entropies(entropies)
    if not len(bits):
        raise BudgetError("there is no problem to allocate to", hint="give at least one entropy")
    total, chosen = checked_total(total), policy_named(policy)
    if expectation is not None:
        expectation.check(model=model)
    known = expectation is not None or tokens is not None
    counted: Unit = unit or ("tokens" if known else "calls")
    if counted not in UNITS:
        raise BudgetError(f"unknown unit {counted!r}", hint=f"one of {', '.join(UNITS)}")
    if counted != "calls" and not known:
        raise BudgetError(f"a budget in {counted} needs the length of a step", hint="give `tokens` or an expectation")
    steps = _steps(max_steps, tokens, expectation)
    warnings: tuple[str, ...] = ()
    if expectation is None:
        lengths = [1.0] * steps if tokens is None else _lengths(tokens, steps)
        expectation = assumed(_hope(bits), tokens=lengths)
        if chosen.expects:
            warnings = ("no expectation was given: hope is assumed to fall with entropy among these problems",)
        expected = False
    else:
        expected = True
        if tokens is not None:
            expectation = _with_lengths(expectation, _lengths(tokens, steps))
        warnings = expectation.warnings
    right, cost = (matrix[:, :steps] for matrix in expectation.matrix(bits))
    cost = np.ones_like(cost) if counted == "calls" else cost.copy()
    if spent is not None:
        cost[:, 0] = _spent(spent, len(bits))
    first = float(cost[:, 0].sum())
    if first > total:
        raise BudgetError(
            f"{total!r} {counted} are below one step for each of {len(bits)} problems",
            hint=f"at least {math.ceil(first)} {counted}, or fewer problems",
        )
    view = View(entropy=bits, cost=cost, right=right, spare=total - first, seed=seed)
    taken, more = fill(chosen.score(view), cost, room=total - first, ranks=tie_order(chosen, len(bits), seed=seed))
    return Allocation(
        policy=chosen.name,
        unit=counted,
        total=total,
        steps=tuple(taken.tolist()),
        expected_spend=first + more,
        expected_right=float(right[np.arange(len(bits)), taken - 1].mean()) if expected else None,
        seed=seed,
        warnings=warnings,
    )


def fill(score: Score, cost: Floats, *, room: float, ranks: Sequence[int]) -> tuple[NDArray[np.int64], float]:
    """Steps (n,) taken in order of score while they fit, and what those after the first cost.

    A step that does not fit ends its problem; cheaper ones further down may still fit.
    """
    n, steps = cost.shape
    taken = np.ones(n, dtype=np.int64)
    spent = 0.0
    heap = [(-value, ranks[i], i) for i in range(n) if steps > 1 and (value := score(i, 1, [])) > NEVER]
    heapq.heapify(heap)
    while heap:
        _, rank, i = heapq.heappop(heap)
        price = float(cost[i, taken[i]])
        if spent + price > room:
            continue
        spent += price
        taken[i] += 1
        done = int(taken[i])
        if done < steps and (value := score(i, done, [])) > NEVER:
            heapq.heappush(heap, (-value, rank, i))
    return taken, spent


def _steps(max_steps: int | None, tokens: float | Sequence[float] | None, expectation: Expectation | None) -> int:
    known = expectation.max_steps if expectation is not None else None
    if known is None and isinstance(tokens, Sequence):
        known = len(tokens)
    steps = max_steps if max_steps is not None else known or DEFAULT_STEPS
    if steps < 1 or (known is not None and steps > known):
        raise BudgetError(f"max_steps is {steps}", hint=f"from 1 to {known or 'as many as wanted'}")
    return steps


def _lengths(tokens: float | Sequence[float], steps: int) -> list[float]:
    lengths = [float(length) for length in tokens] if isinstance(tokens, Sequence) else [float(tokens)] * steps
    for length in lengths:
        StepLength.constant(length)
    return lengths[:steps]


def _with_lengths(expectation: Expectation, lengths: list[float]) -> Expectation:
    steps = len(lengths)
    return Expectation(
        right=tuple(row[: steps - number] for number, row in enumerate(expectation.right[:steps])),
        tokens=tuple(StepLength.constant(length) for length in lengths),
        sample=expectation.sample,
        model=expectation.model,
        signal=expectation.signal,
        fitted_on=expectation.fitted_on,
        warnings=expectation.warnings,
    )


def _hope(bits: Floats) -> RightGivenEntropy:
    """Half right at the median, falling by one in log-odds with each standard deviation."""
    spread = float(bits.std())
    if spread <= 1e-12 * max(1.0, float(bits.max())):
        return RightGivenEntropy.flat(n=0, n_right=0)
    slope = -1 / spread
    return RightGivenEntropy(-slope * float(np.median(bits)), slope, 0, 0)


def _spent(spent: ArrayLike, n: int) -> Floats:
    first = np.asarray(spent, dtype=np.float64)
    if first.shape != (n,) or not np.isfinite(first).all() or (first < 0).any():
        raise BudgetError(
            f"spent has shape {first.shape}", hint=f"what step 1 cost, at least 0, of each of {n} problems"
        )
    return first
