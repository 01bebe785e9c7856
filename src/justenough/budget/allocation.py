"""A plan: steps for each problem from step-1 entropies, never above the total in expectation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from justenough.budget.curves import Floats, RightGivenEntropy, StepLength, checked_entropies
from justenough.budget.expectation import Expectation, assumed
from justenough.budget.ledger import UNITS, Unit
from justenough.budget.policies import Policy, Score, View, policy_named, served, tie_order
from justenough.errors import BudgetError
from justenough.trace import Json

DEFAULT_STEPS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The number of steps of each problem."""

    policy: str
    unit: Unit
    total: float
    steps: tuple[int, ...]
    """Steps of each problem, with the first one."""
    expected_spend: float
    """Expected cost of all these steps, at most `total`."""
    expected_right: float | None
    """Expected accuracy; None if no expectation was given."""
    seed: int
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """A JSON object."""
        return asdict(self) | {"steps": list(self.steps), "warnings": list(self.warnings)}


def checked_total(total: float) -> float:
    """A total that can be spent; raises `BudgetError` for zero, negative values and values that are not numbers."""
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
    """Steps for each problem from the entropies (n,) of the first steps, in bits; the first step counts too.

    `tokens` is the expected length of a step, or of each step (K,); by default the expectation's. Without any length a
    step costs 1, and `total` counts calls. `spent` is the true cost of step 1 of each problem (n,), if it is known.
    Without an expectation, `greedy` and `knapsack` assume that P(right) falls with entropy, with a note in `warnings`.
    Raises `BudgetError` for a budget below one step each, values that are not entropies, an unknown policy, and an
    expectation that was fitted on another model than `model`.
    """
    bits = checked_entropies(entropies)
    if not len(bits):
        raise BudgetError("there is no problem to allocate to", hint="give at least one entropy")
    total, chosen = checked_total(total), policy_named(policy)
    lengths_known = expectation is not None or tokens is not None
    counted: Unit = unit or ("tokens" if lengths_known else "calls")
    if counted not in UNITS:
        raise BudgetError(f"unknown unit {counted!r}", hint=f"one of {', '.join(UNITS)}")
    if counted != "calls" and not lengths_known:
        raise BudgetError(f"a budget in {counted} needs the length of a step", hint="give `tokens` or an expectation")
    steps = _steps(max_steps, tokens, expectation)
    lengths = None if tokens is None else _lengths(tokens, steps)
    warnings: tuple[str, ...] = ()
    if expectation is None:
        known = assumed(_assumed_curve(bits), tokens=lengths or [1.0] * steps)
        if chosen.expects:
            warnings = ("without an expectation, P(right) is assumed to fall with entropy among these problems",)
    else:
        expectation.check(model=model)
        known = expectation if lengths is None else _with_lengths(expectation, lengths)
        warnings = known.warnings
    right, cost = (matrix[:, :steps] for matrix in known.matrix(bits))
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
    taken, more = _fill(chosen.score(view), cost, room=total - first, ranks=tie_order(chosen, len(bits), seed=seed))
    return Allocation(
        policy=chosen.name,
        unit=counted,
        total=total,
        steps=tuple(taken.tolist()),
        expected_spend=first + more,
        expected_right=None if expectation is None else float(right[np.arange(len(bits)), taken - 1].mean()),
        seed=seed,
        warnings=warnings,
    )


def _fill(score: Score, cost: Floats, *, room: float, ranks: Sequence[int]) -> tuple[NDArray[np.int64], float]:
    """Steps (n,) taken in order of score while they fit, and the cost of those after the first.

    A step that does not fit ends its problem; cheaper ones further down may still fit.
    """
    n, steps = cost.shape
    taken = np.ones(n, dtype=np.int64)
    spent = 0.0
    for _, _, done, problem in served(score, problems=n, steps=steps, ranks=ranks):
        price = float(cost[problem, done])
        if taken[problem] == done and spent + price <= room:
            spent += price
            taken[problem] += 1
    return taken, spent


def _steps(max_steps: int | None, tokens: float | Sequence[float] | None, expectation: Expectation | None) -> int:
    known = expectation.max_steps if expectation is not None else None
    if known is None and isinstance(tokens, Sequence):
        known = len(tokens)
    steps = max_steps if max_steps is not None else known or DEFAULT_STEPS
    if steps < 1 or (known is not None and steps > known):
        raise BudgetError(f"max_steps is {steps}", hint=f"from 1 to {known}" if known else "at least 1")
    return steps


def _lengths(tokens: float | Sequence[float], steps: int) -> list[float]:
    lengths = [float(length) for length in tokens] if isinstance(tokens, Sequence) else [float(tokens)] * steps
    for length in lengths:
        StepLength.constant(length)
    return lengths[:steps]


def _with_lengths(expectation: Expectation, lengths: list[float]) -> Expectation:
    steps = len(lengths)
    return replace(
        expectation,
        right=tuple(row[: steps - number] for number, row in enumerate(expectation.right[:steps])),
        tokens=tuple(StepLength.constant(length) for length in lengths),
    )


def _assumed_curve(bits: Floats) -> RightGivenEntropy:
    """P(right) of one half at the median, falling by one in log-odds with each standard deviation."""
    spread = float(bits.std())
    if spread <= 1e-12 * max(1.0, float(bits.max())):
        return RightGivenEntropy.flat(n=0, n_right=0)
    slope = -1 / spread
    return RightGivenEntropy(-slope * float(np.median(bits)), slope, 0, 0)


def _spent(spent: ArrayLike, n: int) -> Floats:
    first = np.asarray(spent, dtype=np.float64)
    if first.shape != (n,) or not np.isfinite(first).all() or (first < 0).any():
        raise BudgetError(f"spent has shape {first.shape}", hint=f"the cost of step 1, at least 0, for {n} problems")
    return first
