"""Replay of policies on recorded runs, under a ledger and with the tokens that were really spent.

Traces hold all steps, so any number of them can be replayed. Estimates come only from other problems: `cross_fit` gives
each problem an expectation fitted on the other folds, and `simulate` refuses one that was fitted on the problem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.budget.allocation import checked_total
from justenough.budget.curves import Floats
from justenough.budget.expectation import Expectation, tokens_to
from justenough.budget.ledger import Ledger, Unit
from justenough.budget.policies import Policy
from justenough.budget.schedule import Form, Schedule, Truth
from justenough.errors import BudgetError
from justenough.signal.signal import Signal
from justenough.stats.drawing import generator
from justenough.trace import Trace
from justenough.trace.building import columns_of
from justenough.trace.files import Traces, items_of

FOLDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """The result of one policy at one total."""

    policy: str
    unit: Unit
    total: int
    seed: int
    steps: NDArray[np.int64]
    """Complete steps of each problem, (n,)."""
    correct: NDArray[np.bool_]
    """Whether the final answer is right, (n,); no answer counts as wrong."""
    costs: Floats
    """The cost of each problem, in the ledger's unit, (n,)."""
    spent: int
    """Their sum, at most `total`."""
    tokens: int
    """Completion tokens really generated, with those of steps that were cut."""
    calls: int
    """Started steps."""
    cut: int
    """Steps that the end of the budget cut; their answers are lost."""

    @property
    def accuracy(self) -> float:
        """Share of right answers among all problems."""
        return float(self.correct.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Recorded runs as dense arrays, read once for many simulations."""

    ids: tuple[str, ...]
    """Hashed."""
    model: str
    signal: Signal
    bits: Floats
    """Bits after each step, NaN where unknown, (n, K)."""
    correct: NDArray[np.bool_]
    """(n, K)."""
    tokens: Floats
    """Tokens spent to each step, (n, K), never falling."""
    lengths: tuple[int, ...]
    """Steps recorded, (n,)."""
    limits: tuple[int, ...]
    """Token limits of steps 1 … K."""

    @property
    def max_steps(self) -> int:
        """K."""
        return len(self.limits)

    def cost(self, unit: Unit) -> Floats:
        """The true cost of each step, (n, K); 0 after a trace's last step."""
        there = np.arange(self.max_steps)[None, :] < np.asarray(self.lengths)[:, None]
        return there.astype(np.float64) if unit == "calls" else np.diff(self.tokens, axis=1, prepend=0.0) * there

    def taken(self, order: NDArray[np.int64]) -> Recorded:
        """The same problems in another order (m,)."""
        return replace(
            self,
            ids=tuple(self.ids[row] for row in order),
            bits=self.bits[order],
            correct=self.correct[order],
            tokens=self.tokens[order],
            lengths=tuple(self.lengths[row] for row in order),
        )

    @classmethod
    def of(cls, traces: Traces, *, signal: Signal | None = None, limits: Sequence[int] | None = None) -> Recorded:
        """Read traces of one model and signal with two recorded steps or more; raises `BudgetError` for others.

        `limits` are the token limits of the recorded steps; by default the longest recorded step of each number.
        """
        if not traces:
            raise BudgetError("there is no trace to replay", hint="collect some first")
        columns = columns_of(items_of(traces), signal)
        models = sorted(set(columns.models))
        if len(models) > 1:
            raise BudgetError(f"the traces are of {len(models)} models: {', '.join(models)}", hint="replay each apart")
        if len(set(columns.hashed_ids)) < len(columns):
            raise BudgetError("a problem comes twice among the traces", hint="keep one run of each problem")
        steps = columns.steps
        if steps < 2:
            raise BudgetError(
                "the traces hold one step each: there is nothing to give away",
                hint="collect with --steps 2 or more, or plan for them with --fit",
            )
        if not columns.graded.all():
            raise BudgetError("a step is not graded", hint="give targets to the tasks")
        tokens = tokens_to(columns, steps)
        longest = np.diff(tokens, axis=1, prepend=0.0).max(axis=0)
        bounds = tuple(int(limit) for limit in (limits if limits is not None else longest))
        if len(bounds) != steps or any(limit < most for limit, most in zip(bounds, longest, strict=False)):
            raise BudgetError(
                f"token limits {bounds} for steps of up to {tuple(int(most) for most in longest)} tokens",
                hint="the limit of each step when it was recorded",
            )
        return cls(
            ids=tuple(columns.hashed_ids),
            model=models[0],
            signal=columns.signal,
            bits=columns.padded_bits(),
            correct=columns.padded(columns.right),
            tokens=tokens,
            lengths=tuple(columns.lengths.tolist()),
            limits=tuple(max(1, limit) for limit in bounds),
        )


def cross_fit(
    traces: Sequence[Trace] | Recorded, *, signal: Signal | None = None, folds: int = FOLDS, seed: int = 0
) -> list[Expectation]:
    """For each trace an expectation fitted on the other folds; `seed` draws the folds over hashed ids."""
    n = len(traces.ids) if isinstance(traces, Recorded) else len(traces)
    if not 2 <= folds <= n:
        raise BudgetError(f"{folds} folds of {n} traces", hint="at least 2, at most one for each trace")
    recorded = traces if isinstance(traces, Recorded) else Recorded.of(traces, signal=signal)
    fold = folds_of(recorded.ids, folds=folds, seed=seed)
    fitted = [_fitted(recorded.taken(np.flatnonzero(fold != number))) for number in range(folds)]
    return [fitted[number] for number in fold.tolist()]


def folds_of(ids: Sequence[str], *, folds: int = FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """The fold of each problem (n,), drawn by `seed` over hashed ids; their order does not matter."""
    order = sorted(range(len(ids)), key=lambda row: ids[row])
    fold = np.empty(len(ids), dtype=np.int64)
    fold[generator(seed, 3).permutation(order)] = np.arange(len(ids)) % folds
    return fold


def _fitted(recorded: Recorded) -> Expectation:
    return Expectation.of_arrays(
        recorded.bits,
        recorded.correct,
        recorded.tokens,
        lengths=np.asarray(recorded.lengths),
        model=recorded.model,
        signal=recorded.signal,
        fitted_on=tuple(sorted(recorded.ids)),
    )


def simulate(
    traces: Sequence[Trace] | Recorded,
    *,
    policy: str | Policy,
    total: float,
    expectation: Expectation | Sequence[Expectation] | None = None,
    seed: int = 0,
    unit: Unit = "tokens",
    form: Form = "batch",
) -> Simulation:
    """Replay a policy on recorded traces under a ledger of `total`; problems come in their order in `traces`.

    `expectation` is one for all problems, or one for each (`cross_fit`). A step that the end of the budget cuts is
    paid, and the answer before it stays. Raises `BudgetError` for a total below one step each, and for an expectation
    of another model or signal or one that was fitted on its own problem.
    """
    recorded = traces if isinstance(traces, Recorded) else Recorded.of(traces)
    n, ledger = len(recorded.ids), Ledger(math.floor(checked_total(total)), unit=unit)
    cost = recorded.cost(unit)
    if ledger.total < cost[:, 0].sum():
        raise BudgetError(
            f"{total!r} {unit} are below one step for each of {n} problems", hint=f"at least {int(cost[:, 0].sum())}"
        )
    by_problem = [expectation] * n if isinstance(expectation, Expectation) else expectation
    schedule = Schedule(
        n,
        ledger,
        policy=policy,
        limits=recorded.limits,
        expectations=by_problem,
        form=form,
        seed=seed,
        keys=recorded.ids,
        truth=Truth(recorded.correct.astype(np.float64), cost),
    )
    for known in {id(each): each for each in by_problem or ()}.values():
        served = [name for name, each in zip(recorded.ids, by_problem or (), strict=True) if each is known]
        known.check(model=recorded.model, signal=recorded.signal, ids=served)
    real = recorded.cost("tokens").astype(np.int64)
    steps, costs = np.zeros(n, dtype=np.int64), np.zeros(n)
    tokens = calls = cut = 0
    while (turn := schedule.next()) is not None:
        row, step = turn.problem, turn.step
        before = ledger.spent
        length, bits = min(int(real[row, step - 1]), turn.max_tokens), float(recorded.bits[row, step - 1])
        whole = length == real[row, step - 1]
        schedule.done(turn, tokens=length, bits=bits if whole else None, more=whole and step < recorded.lengths[row])
        calls, tokens, cut = calls + 1, tokens + length, cut + (not whole)
        costs[row] += ledger.spent - before
        if whole:
            steps[row] = step
    return Simulation(
        policy=schedule.policy.name,
        unit=unit,
        total=ledger.total,
        seed=seed,
        steps=steps,
        correct=np.where(steps > 0, recorded.correct[np.arange(n), np.maximum(steps, 1) - 1], False),
        costs=costs,
        spent=ledger.spent,
        tokens=tokens,
        calls=calls,
        cut=cut,
    )
