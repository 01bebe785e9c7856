"""What policies would have done with recorded runs: replay under a ledger, at tokens really spent.

Traces hold all steps, so that any number of them can be replayed. Estimates come from other problems only: `cross_fit`
gives each problem the expectation of the folds that it is not in, and `simulate` refuses one that has seen the problem.
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
from justenough.budget.ledger import Ledger
from justenough.budget.policies import Policy, policy_named
from justenough.budget.rounds import Replayed, replay_rounds
from justenough.budget.schedule import Form, Schedule, Truth
from justenough.budget.units import UNITS, Unit
from justenough.errors import BudgetError
from justenough.signal.signal import Signal
from justenough.trace import Json, Trace
from justenough.trace.columns import columns_of

FOLDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What one policy made of one total."""

    policy: str
    unit: Unit
    total: int
    seed: int
    steps: NDArray[np.int64]
    """Steps of each problem that were run to their end, (n,)."""
    correct: NDArray[np.bool_]
    """Whether the answer that stands is right, (n,); no answer counts as wrong."""
    costs: Floats
    """What each problem was given, in the ledger's unit, (n,)."""
    spent: int
    """Their sum, at most `total`."""
    tokens: int
    """Completion tokens really generated, those of steps that were cut included."""
    calls: int
    """Steps begun."""
    cut: int
    """Steps that the end of the budget cut, so that their answers are lost."""

    @property
    def accuracy(self) -> float:
        """Share of all problems that is right."""
        return float(self.correct.mean())

    def to_json(self) -> dict[str, Json]:
        """The figures as a JSON object; `steps_histogram[k]` counts the problems that got k steps."""
        return {
            "policy": self.policy,
            "unit": self.unit,
            "total": self.total,
            "seed": self.seed,
            "accuracy": self.accuracy,
            "spent": self.spent,
            "tokens": self.tokens,
            "calls": self.calls,
            "cut": self.cut,
            "steps_histogram": np.bincount(self.steps).tolist(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The dense view of the columns for the replay of budgets, read once for many simulations."""

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

    def cost(self, unit: Unit, *, prices: Sequence[int] | None = None) -> Floats:
        """What each step really costs, (n, K); 0 behind a trace's last step."""
        there = np.arange(self.max_steps)[None, :] < np.asarray(self.lengths)[:, None]
        increments = np.diff(self.tokens, axis=1, prepend=0.0) * there
        if unit == "calls":
            return there.astype(np.float64)
        return increments * np.asarray(prices, dtype=np.float64) if prices is not None else increments

    def taken(self, order: NDArray[np.int64]) -> Recorded:
        """The same problems in another order (m,)."""
        rows = order.tolist()
        return replace(
            self,
            ids=tuple(self.ids[row] for row in rows),
            bits=self.bits[order],
            correct=self.correct[order],
            tokens=self.tokens[order],
            lengths=tuple(self.lengths[row] for row in rows),
        )

    @classmethod
    def of(
        cls,
        traces: Sequence[Trace],
        *,
        signal: Signal | None = None,
        limits: Sequence[int] | None = None,
    ) -> Recorded:
        """Read traces of one model and signal with two recorded steps or more; raises `BudgetError` for others.

        `limits` are the token limits that the steps were run with; by default the longest recorded of each step.
        """
        if not traces:
            raise BudgetError("there is no trace to replay", hint="collect some first")
        columns = columns_of(traces, signal)
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
        known = tuple(int(limit) for limit in (limits if limits is not None else longest))
        if len(known) != steps or any(limit < most for limit, most in zip(known, longest, strict=False)):
            raise BudgetError(
                f"token limits {known} for steps of up to {tuple(int(most) for most in longest)} tokens",
                hint="the limits that the steps were run with, one for each",
            )
        return cls(
            ids=tuple(columns.hashed_ids),
            model=models[0],
            signal=columns.signal,
            bits=columns.padded_bits(),
            correct=columns.padded(columns.right),
            tokens=tokens,
            lengths=tuple(columns.lengths.tolist()),
            limits=tuple(max(1, limit) for limit in known),
        )


def cross_fit(
    traces: Sequence[Trace] | Recorded, *, signal: Signal | None = None, folds: int = FOLDS, seed: int = 0
) -> list[Expectation]:
    """For each trace the expectation fitted on the folds that it is not in, drawn by `seed` over hashed ids."""
    n = len(traces.ids) if isinstance(traces, Recorded) else len(traces)
    if not 2 <= folds <= n:
        raise BudgetError(f"{folds} folds of {n} traces", hint="at least 2, at most one for each trace")
    held = traces if isinstance(traces, Recorded) else Recorded.of(traces, signal=signal)
    fold = folds_of(held.ids, folds=folds, seed=seed)
    fitted = [_fitted(held.taken(np.flatnonzero(fold != number))) for number in range(folds)]
    return [fitted[number] for number in fold.tolist()]


def folds_of(ids: Sequence[str], *, folds: int = FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """The fold of each problem (n,), drawn by `seed` over hashed ids, whatever their order."""
    order = sorted(range(len(ids)), key=lambda row: ids[row])
    fold = np.empty(len(ids), dtype=np.int64)
    fold[np.random.default_rng((seed, 3)).permutation(order)] = np.arange(len(ids)) % folds
    return fold


def _fitted(held: Recorded) -> Expectation:
    return Expectation.of_arrays(
        held.bits,
        held.correct,
        held.tokens,
        lengths=np.asarray(held.lengths),
        model=held.model,
        signal=held.signal,
        fitted_on=tuple(sorted(held.ids)),
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
    prices: Sequence[int] | None = None,
) -> Simulation:
    """Replay a policy on recorded traces under a ledger of `total`; problems come in their order in `traces`.

    `expectation` is one for all, or one for each problem (`cross_fit`). A step that the end of the budget cuts is paid
    for and leaves the answer before it. Raises `BudgetError` for a total below one step each, an expectation of another
    model or signal, and one that was fitted on a problem that it serves.
    """
    held = traces if isinstance(traces, Recorded) else Recorded.of(traces)
    chosen = policy_named(policy)
    if unit not in UNITS:
        raise BudgetError(f"unknown unit {unit!r}", hint=f"one of {', '.join(UNITS)}")
    whole = math.floor(checked_total(total))
    n = len(held.ids)
    cost = held.cost(unit, prices=prices)
    if whole < cost[:, 0].sum():
        raise BudgetError(
            f"{total!r} {unit} are below one step for each of {n} problems", hint=f"at least {int(cost[:, 0].sum())}"
        )
    known = [expectation] * n if isinstance(expectation, Expectation) else expectation
    if known is not None:
        _checked(held, known)
    schedule = Schedule(
        n,
        Ledger(whole, unit=unit),
        policy=chosen,
        limits=held.limits,
        expectations=known,
        form=form,
        seed=seed,
        keys=held.ids,
        prices=prices,
        truth=Truth(held.correct.astype(np.float64), cost),
    )
    played = _at_once(held, schedule, cost, total=whole, unit=unit, prices=prices) or _one_by_one(held, schedule)
    correct = np.where(played.steps > 0, held.correct[np.arange(n), np.maximum(played.steps, 1) - 1], False)
    return Simulation(
        policy=chosen.name,
        unit=unit,
        total=whole,
        seed=seed,
        steps=played.steps,
        correct=correct,
        costs=played.costs,
        spent=int(played.costs.sum()),
        tokens=played.tokens,
        calls=played.calls,
        cut=played.cut,
    )


def _at_once(
    held: Recorded, schedule: Schedule, cost: Floats, *, total: int, unit: Unit, prices: Sequence[int] | None
) -> Replayed | None:
    """The batch form as arrays; None where only the schedule itself can tell."""
    each = prices if prices is not None else None if unit == "calls" else [1] * held.max_steps
    left = total - np.cumsum(cost[:, 0]) + cost[:, 0]
    # A first step that costs nothing may come when not even one token is left.
    if schedule.form != "batch" or bool((left < (each[0] if each is not None else 1)).any()):
        return None
    # From the last on: that is where those waiting are taken from.
    for row in range(len(held.ids) - 1, -1, -1):
        schedule.resume(row, [float(held.bits[row, 0])], more=held.lengths[row] > 1)
    return replay_rounds(
        schedule.competition(spare=total - float(cost[:, 0].sum())),
        total=total,
        bits=held.bits,
        lengths=held.lengths,
        tokens=held.cost("tokens"),
        limits=held.limits,
        price=each,
    )


def _one_by_one(held: Recorded, schedule: Schedule) -> Replayed:
    """Turn by turn, as a live run takes them."""
    ledger, n = schedule.ledger, len(held.ids)
    really = held.cost("tokens").astype(np.int64)
    taken = np.zeros(n, dtype=np.int64)
    costs = np.zeros(n)
    tokens = calls = cut = 0
    while (turn := schedule.next()) is not None:
        row, step = turn.problem, turn.step
        length = int(really[row, step - 1])
        calls += 1
        before = ledger.spent
        if length > turn.max_tokens:
            schedule.done(turn, tokens=turn.max_tokens, bits=None, more=False)
            tokens, cut = tokens + turn.max_tokens, cut + 1
            costs[row] += ledger.spent - before
            continue
        bits = float(held.bits[row, step - 1])
        schedule.done(turn, tokens=length, bits=bits, more=step < held.lengths[row])
        tokens += length
        costs[row] += ledger.spent - before
        taken[row] = step
    return Replayed(steps=taken, costs=costs, tokens=tokens, calls=calls, cut=cut)


def _checked(held: Recorded, known: Sequence[Expectation]) -> None:
    if len(known) != len(held.ids):
        raise BudgetError(
            f"{len(known)} expectations for {len(held.ids)} problems", hint="one for each, or one for all"
        )
    seen: dict[int, frozenset[str]] = {}
    for row, (identity, expectation) in enumerate(zip(held.ids, known, strict=True)):
        if id(expectation) not in seen:
            expectation.check(model=held.model, signal=held.signal)
            seen[id(expectation)] = frozenset(expectation.fitted_on)
        if identity in seen[id(expectation)]:
            raise BudgetError(
                f"the expectation for problem {row} was fitted on it", hint="fit on other problems: see cross_fit"
            )
