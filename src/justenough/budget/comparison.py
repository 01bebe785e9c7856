"""Policies compared at equal totals, from one step each to all steps each, with paired intervals against uniform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from justenough.budget.curves import Floats
from justenough.budget.expectation import Expectation
from justenough.budget.paired import Resamples
from justenough.budget.policies import POLICIES, Policy, policy_named
from justenough.budget.schedule import Form
from justenough.budget.simulation import FOLDS, Recorded, cross_fit, simulate
from justenough.budget.units import Unit
from justenough.errors import BudgetError
from justenough.signals import Signal
from justenough.stats import Estimate
from justenough.trace import Json, Trace

DRAWS: Final = 20
"""Seeds that uniform's remainder, and every other random order, is averaged over."""


STOPPING: Final = "early-stopping"
"""The row of plain early stopping, which keeps what it saves: at its own total alone."""


class Share(NamedTuple):
    """What a group of problems got."""

    problems: int
    steps: float
    """Run to their end, on average."""
    cost: float
    """In the budget's unit, on average."""
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One policy at one total; figures are means over the draws."""

    policy: str
    total: int
    accuracy: float
    spent: float
    tokens: float
    calls: float
    cut: float
    steps_histogram: tuple[float, ...]
    """Problems that got 0, 1, … K steps."""
    against_uniform: Estimate
    """Change in accuracy against uniform at the same total, paired, with its 95 % interval."""
    groups: Mapping[str, Mapping[str, Share]] = field(default_factory=dict)
    """Grouping → group → who got how much."""

    def to_json(self) -> dict[str, Json]:
        """A JSON object."""
        return {
            "policy": self.policy,
            "total": self.total,
            "accuracy": self.accuracy,
            "spent": self.spent,
            "tokens": self.tokens,
            "calls": self.calls,
            "cut": self.cut,
            "steps_histogram": list(self.steps_histogram),
            "against_uniform": dict(self.against_uniform._asdict()),
            "groups": {
                name: {group: dict(share._asdict()) for group, share in shares.items()}
                for name, shares in self.groups.items()
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """All policies at all totals."""

    unit: Unit
    form: Form
    problems: int
    draws: int
    seed: int
    rows: tuple[Row, ...]
    overall: Mapping[str, Estimate]
    """Policy → mean change against uniform over the totals strictly between the ends, with one interval: the claim."""
    warnings: tuple[str, ...]

    @property
    def totals(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(sorted({row.total for row in self.rows}))

    def at(self, policy: str, total: int) -> Row | None:
        """One policy's row at a total; None where it has none there."""
        return next((row for row in self.rows if (row.policy, row.total) == (policy, total)), None)

    def verdict(self, policy: str) -> str:
        """`better`, `worse` or `cannot tell`: where the overall interval lies."""
        interval = self.overall[policy].interval
        if interval is None or interval[0] <= 0 <= interval[1]:
            return "cannot tell"
        return "better" if interval[0] > 0 else "worse"

    def to_json(self) -> dict[str, Json]:
        """A JSON object."""
        return {
            "unit": self.unit,
            "form": self.form,
            "problems": self.problems,
            "draws": self.draws,
            "seed": self.seed,
            "rows": [row.to_json() for row in self.rows],
            "overall": {
                name: {**estimate._asdict(), "verdict": self.verdict(name)} for name, estimate in self.overall.items()
            },
            "warnings": list(self.warnings),
        }


def totals_between(held: Recorded, *, points: int, unit: Unit, prices: Sequence[int] | None = None) -> list[int]:
    """`points` totals, evenly from one step each to all recorded steps each."""
    if points < 2:
        raise BudgetError(f"{points} totals", hint="at least 2: one step each, and all steps each")
    cost = held.cost(unit, prices=prices)
    return [int(total) for total in np.ceil(np.linspace(cost[:, 0].sum(), cost.sum(), points) - 1e-6)]


def sweep(
    traces: Sequence[Trace] | Recorded,
    *,
    policies: Sequence[str | Policy] = tuple(POLICIES),
    totals: Sequence[int] | None = None,
    points: int = 9,
    folds: int = FOLDS,
    draws: int = DRAWS,
    seed: int = 0,
    unit: Unit = "tokens",
    form: Form = "batch",
    signal: Signal | None = None,
    limits: Sequence[int] | None = None,
    prices: Sequence[int] | None = None,
    expectations: Sequence[Expectation] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    stops: Sequence[int] | None = None,
) -> Sweep:
    """Simulate every policy at every total, with cross-fitted expectations unless others are given.

    `groups` (grouping → the group of each problem) are told who got how much. `stops` are the steps (n,) after which
    plain early stopping answers: what it spends becomes one more total, at which it is compared too.

    What is random (uniform's remainder, the order of arrival, ties) is drawn `draws` times. Intervals resample problems
    and draws. A few very long steps can use up a total, so that luck in who took them would pass for skill: where a
    policy is bound by the total, each problem's answer is therefore charged for its cost beyond the mean at the rate at
    which uniform buys accuracy there (a control variate: it moves no mean, and the interval then covers that luck).
    """
    held = traces if isinstance(traces, Recorded) else Recorded.of(traces, signal=signal, limits=limits)
    known = list(expectations) if expectations is not None else cross_fit(held, folds=folds, seed=seed)
    if draws < 1:
        raise BudgetError(f"{draws} draws", hint="at least 1")
    chosen = [policy for policy in map(policy_named, policies) if form == "batch" or policy.online]
    if not any(policy.name == "uniform" for policy in chosen):
        chosen.insert(0, policy_named("uniform"))
    labels = _labels(chosen)
    spread = list(totals) if totals is not None else totals_between(held, points=points, unit=unit, prices=prices)
    # At the ends there is nothing to choose: everyone gets one step, or all.
    inner = set(spread[1:-1] if len(spread) > 2 else spread)
    stopping = _stopped(held, stops, unit=unit, prices=prices) if stops is not None else None
    kept = int(stopping.spent) if stopping is not None else 0
    if stopping is not None:
        spread = sorted({*spread, kept})
    runs: list[dict[str, _Figures]] = []
    for total in spread:
        runs.append(
            {
                label: _drawn(
                    held, policy, known, total=total, draws=draws, seed=seed, unit=unit, form=form, prices=prices
                )
                for label, policy in zip(labels, chosen, strict=True)
            }
        )
        if stopping is not None and total == kept:
            runs[-1][STOPPING] = stopping
    rates = _rates([figures["uniform"] for figures in runs])
    largest = float(held.cost(unit, prices=prices).max())
    resamples = Resamples.of(len(held.ids), seed=seed)
    rows: list[Row] = []
    scores: dict[str, list[Floats]] = {label: [] for label in labels}
    for total, figures, rate in zip(spread, runs, rates, strict=True):
        charged = {
            label: figure.right
            - (rate if figure.spent > total - largest else 0.0) * (figure.costs - figure.costs.mean())
            for label, figure in figures.items()
        }
        for label in labels if total in inner else ():
            scores[label].append(charged[label])
        for label, figure in figures.items():
            rows.append(
                Row(
                    policy=label,
                    total=total,
                    accuracy=float(figure.right.mean()),
                    spent=figure.spent,
                    tokens=figure.tokens,
                    calls=figure.calls,
                    cut=figure.cut,
                    steps_histogram=figure.histogram,
                    against_uniform=resamples.change(charged[label], charged["uniform"]),
                    groups={name: _shares(figure, of) for name, of in (groups or {}).items()},
                )
            )
    return Sweep(
        unit=unit,
        form=form,
        problems=len(held.ids),
        draws=draws,
        seed=seed,
        rows=tuple(rows),
        overall={
            label: resamples.change(np.mean(scores[label], axis=0), np.mean(scores["uniform"], axis=0))
            for label in labels
        },
        warnings=tuple(sorted({warning for expectation in known for warning in expectation.warnings})),
    )


def _labels(policies: Sequence[Policy]) -> list[str]:
    """Names, made different with the settings where one policy comes several times."""
    names = [policy.name for policy in policies]
    labels = [name if names.count(name) == 1 else repr(policy) for name, policy in zip(names, policies, strict=True)]
    if len(set(labels)) < len(labels):
        raise BudgetError(f"a policy comes twice: {', '.join(labels)}", hint="name each once, or vary its settings")
    return labels


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    right: Floats
    """Whether each problem is right in each draw, (draws, n), 0 or 1."""
    costs: Floats
    """What each problem was given in each draw, (draws, n)."""
    steps: Floats
    """Steps of each problem that were run to their end, averaged over the draws, (n,)."""
    spent: float
    tokens: float
    calls: float
    cut: float
    histogram: tuple[float, ...]


def _shares(figure: _Figures, groups: Sequence[str]) -> dict[str, Share]:
    """Who got how much, groups in order of first appearance."""
    labels = np.asarray(groups, dtype=object)
    right, costs = figure.right.mean(axis=0), figure.costs.mean(axis=0)
    return {
        group: Share(
            problems=int(mine.sum()),
            steps=float(figure.steps[mine].mean()),
            cost=float(costs[mine].mean()),
            accuracy=float(right[mine].mean()),
        )
        for group in dict.fromkeys(groups)
        for mine in [labels == group]
    }


def _stopped(held: Recorded, stops: Sequence[int], *, unit: Unit, prices: Sequence[int] | None) -> _Figures:
    """What plain early stopping spends and gets."""
    rows, steps = np.arange(len(held.ids)), np.minimum(np.asarray(stops, dtype=np.int64), held.lengths)
    costs = np.cumsum(held.cost(unit, prices=prices), axis=1)[rows, steps - 1]
    return _Figures(
        right=held.correct[rows, steps - 1].astype(np.float64)[None, :],
        costs=costs[None, :],
        steps=steps.astype(np.float64),
        spent=float(costs.sum()),
        tokens=float(held.tokens[rows, steps - 1].sum()),
        calls=float(steps.sum()),
        cut=0.0,
        histogram=tuple(np.bincount(steps, minlength=held.max_steps + 1).astype(float).tolist()),
    )


def _drawn(
    held: Recorded,
    policy: Policy,
    known: Sequence[Expectation],
    *,
    total: int,
    draws: int,
    seed: int,
    unit: Unit,
    form: Form,
    prices: Sequence[int] | None,
) -> _Figures:
    """A policy at a total, once for each draw of seed and order; once only where neither matters."""
    n = len(held.ids)
    shuffled = form == "online" or policy.in_order
    # Without a signal all problems are alike to a policy, and its seed decides.
    alike = policy.expects and any(expectation.right[0][0].slope == 0 for expectation in known)
    many = draws if shuffled or alike or policy.name == "uniform" else 1
    right, costs, steps = np.zeros((many, n)), np.zeros((many, n)), np.zeros(n)
    sums = np.zeros(4)
    histogram = np.zeros(held.max_steps + 1)
    for draw in range(many):
        order = np.random.default_rng((seed, draw, 4)).permutation(n) if shuffled else np.arange(n)
        run = simulate(
            held.taken(order),
            policy=policy,
            total=total,
            expectation=[known[row] for row in order],
            seed=seed + draw,
            unit=unit,
            form=form,
            prices=prices,
        )
        right[draw, order], costs[draw, order] = run.correct, run.costs
        steps[order] += run.steps
        sums += (run.spent, run.tokens, run.calls, run.cut)
        histogram += np.bincount(run.steps, minlength=held.max_steps + 1)
    spent, tokens, calls, cut = (sums / many).tolist()
    return _Figures(
        right=right,
        costs=costs,
        steps=steps / many,
        spent=spent,
        tokens=tokens,
        calls=calls,
        cut=cut,
        histogram=tuple((histogram / many).tolist()),
    )


def _rates(uniform: Sequence[_Figures]) -> list[float]:
    """Accuracy per cost, per problem, at which uniform buys at each total: the slope between its neighbours."""
    spent = np.array([figure.costs.mean() for figure in uniform])
    accuracy = np.array([figure.right.mean() for figure in uniform])
    rates = []
    for at in range(len(uniform)):
        low, high = max(at - 1, 0), min(at + 1, len(uniform) - 1)
        gap = float(spent[high] - spent[low])
        rates.append(max(0.0, float(accuracy[high] - accuracy[low]) / gap) if gap > 0 else 0.0)
    return rates
