"""Policies compared at equal totals, from one step each to all steps each, with paired intervals against uniform."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final

import numpy as np

from justenough.budget.curves import Floats
from justenough.budget.draws import Figures, Resamples, Share, drawn, shares, stopped
from justenough.budget.expectation import Expectation
from justenough.budget.ledger import Unit
from justenough.budget.policies import POLICIES, Policy, policy_named
from justenough.budget.schedule import Form
from justenough.budget.simulation import FOLDS, Recorded, cross_fit
from justenough.errors import BudgetError
from justenough.signal.signal import Signal
from justenough.stats import Estimate
from justenough.trace import Json, Trace

DRAWS: Final = 20
"""Seeds over which the remainder of `uniform`, and every other random order, is averaged."""
STOPPING: Final = "early-stopping"
"""The row of plain early stopping, which keeps its savings: only at its own total."""


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
    at_equal_spend: Estimate
    """Against uniform at the cost that this policy really spent: reallocation alone, without the effect of unspent
    tokens."""
    against_stopping: Estimate | None = None
    """The same against plain early stopping, at the total that early stopping spends."""
    groups: Mapping[str, Mapping[str, Share]] = field(default_factory=dict)
    """Grouping → group → its share."""

    def to_json(self) -> dict[str, Json]:
        """A JSON object."""
        values: dict[str, Json] = {part.name: getattr(self, part.name) for part in fields(self)}
        return values | {
            "steps_histogram": list(self.steps_histogram),
            "against_uniform": self.against_uniform._asdict(),
            "at_equal_spend": self.at_equal_spend._asdict(),
            "against_stopping": None if self.against_stopping is None else self.against_stopping._asdict(),
            "groups": {
                name: {group: share._asdict() for group, share in shares.items()}
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
    """Policy → mean change against uniform over the totals between the two ends, with one interval: the main result."""
    equal_spend: Mapping[str, Estimate]
    """Policy → the same against uniform at the cost that the policy really spent."""
    warnings: tuple[str, ...]

    @property
    def totals(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(sorted({row.total for row in self.rows}))

    def at(self, policy: str, total: int) -> Row | None:
        """One policy's row at a total; None if there is none."""
        return next((row for row in self.rows if (row.policy, row.total) == (policy, total)), None)

    def verdict(self, policy: str, *, equal_spend: bool = False) -> str:
        """`better`, `worse` or `cannot tell`, by the position of the overall interval."""
        interval = (self.equal_spend if equal_spend else self.overall)[policy].interval
        if interval is None or interval[0] <= 0 <= interval[1]:
            return "cannot tell"
        return "better" if interval[0] > 0 else "worse"

    def to_json(self) -> dict[str, Json]:
        """A JSON object."""
        values: dict[str, Json] = {part.name: getattr(self, part.name) for part in fields(self)}
        return values | {
            "rows": [row.to_json() for row in self.rows],
            "overall": {
                name: {**estimate._asdict(), "verdict": self.verdict(name)} for name, estimate in self.overall.items()
            },
            "equal_spend": {
                name: {**estimate._asdict(), "verdict": self.verdict(name, equal_spend=True)}
                for name, estimate in self.equal_spend.items()
            },
            "warnings": list(self.warnings),
        }


def totals_between(recorded: Recorded, *, points: int, unit: Unit) -> list[int]:
    """`points` totals at even distances, from one step each to all recorded steps each."""
    if points < 2:
        raise BudgetError(f"{points} totals", hint="at least 2: one step each, and all steps each")
    cost = recorded.cost(unit)
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
    expectations: Sequence[Expectation] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    stops: Sequence[int] | None = None,
) -> Sweep:
    """Simulate every policy at every total, with cross-fitted expectations unless others are given.

    `groups` (grouping → the group of each problem) adds the shares of each group. `stops` are the steps (n,) after
    which plain early stopping answers: its cost becomes one more total, at which early stopping is compared too.

    Random choices (the remainder of `uniform`, the order of arrival, ties) are drawn `draws` times. Intervals resample
    problems and draws. A few very long steps can use up a total, and the luck of avoiding them would look like skill.
    So if the total limits a policy, each problem's answer pays for its cost above the mean, at the rate at which
    `uniform` buys accuracy there. This control variate changes no mean, and the interval then covers that luck.
    """
    recorded = traces if isinstance(traces, Recorded) else Recorded.of(traces, signal=signal, limits=limits)
    by_problem = list(expectations) if expectations is not None else cross_fit(recorded, folds=folds, seed=seed)
    if draws < 1:
        raise BudgetError(f"{draws} draws", hint="at least 1")
    chosen = [policy for policy in map(policy_named, policies) if form == "batch" or policy.online]
    if not any(policy.name == "uniform" for policy in chosen):
        chosen.insert(0, policy_named("uniform"))
    labels = _labels(chosen)
    spread = list(totals) if totals is not None else totals_between(recorded, points=points, unit=unit)
    # At the ends there is no choice: each problem gets one step, or all.
    inner = set(spread[1:-1] if len(spread) > 2 else spread)
    stopping = stopped(recorded, stops, unit=unit) if stops is not None else None
    if stopping is not None:
        spread = sorted({*spread, int(stopping.spent)})

    def replayed(policy: Policy, total: int) -> Figures:
        return drawn(recorded, policy, by_problem, total=total, draws=draws, seed=seed, unit=unit, form=form)

    runs: list[dict[str, Figures]] = []
    for total in spread:
        runs.append({label: replayed(policy, total) for label, policy in zip(labels, chosen, strict=True)})
        if stopping is not None and total == int(stopping.spent):
            runs[-1][STOPPING] = stopping
    cost = recorded.cost(unit)
    evenly = [figures["uniform"] for figures in runs]
    if len(spread) == 1:
        # A slope needs two points.
        others = totals_between(recorded, points=points, unit=unit)
        evenly = [replayed(policy_named("uniform"), total) for total in sorted({*others, *spread})]
    market = _Market.of(evenly, first=float(cost[:, 0].sum()))
    resamples = Resamples.of(len(recorded.ids), seed=seed)
    rows: list[Row] = []
    totals_scores: dict[str, list[Floats]] = {label: [] for label in labels}
    spends_scores: dict[str, list[tuple[Floats, Floats]]] = {label: [] for label in labels}
    evens: dict[int, Floats] = {}
    for total, figures in zip(spread, runs, strict=True):
        bound = {label: figure.spent > total - cost.max() for label, figure in figures.items()}
        charged = {label: market.charged(figure) if bound[label] else figure.right for label, figure in figures.items()}
        for label, figure in figures.items():
            mine, even = charged[label], charged["uniform"]
            if not bound[label] and label != "uniform":
                spent = market.at_least_first(figure.spent)
                if spent not in evens:
                    evens[spent] = market.charged(replayed(policy_named("uniform"), spent))
                mine, even = market.charged(figure), evens[spent]
            if label != STOPPING and total in inner:
                totals_scores[label].append(charged[label])
                spends_scores[label].append((mine, even))
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
                    at_equal_spend=resamples.change(mine, even),
                    against_stopping=resamples.change(charged[label], charged[STOPPING])
                    if STOPPING in charged
                    else None,
                    groups={name: shares(figure, of) for name, of in (groups or {}).items()},
                )
            )
    return Sweep(
        unit=unit,
        form=form,
        problems=len(recorded.ids),
        draws=draws,
        seed=seed,
        rows=tuple(rows),
        overall={
            label: resamples.change(np.mean(scores, axis=0), np.mean(totals_scores["uniform"], axis=0))
            for label, scores in totals_scores.items()
        },
        equal_spend={
            label: resamples.change(*(np.mean(side, axis=0) for side in zip(*pairs, strict=True)))
            for label, pairs in spends_scores.items()
        },
        warnings=tuple(sorted({warning for expectation in by_problem for warning in expectation.warnings})),
    )


def _labels(policies: Sequence[Policy]) -> list[str]:
    """Names; if a policy occurs several times, its settings tell the copies apart."""
    names = [policy.name for policy in policies]
    labels = [name if names.count(name) == 1 else repr(policy) for name, policy in zip(names, policies, strict=True)]
    if len(set(labels)) < len(labels):
        raise BudgetError(f"a policy occurs twice: {', '.join(labels)}", hint="name each once, or vary its settings")
    return labels


@dataclass(frozen=True, slots=True, kw_only=True)
class _Market:
    """The accuracy that `uniform` buys per cost at each total: the slope between the neighbouring totals."""

    spent: Floats
    """Cost of all problems together, ascending, (m,)."""
    rates: Floats
    """Accuracy per cost and problem, (m,)."""
    first: float
    """Cost of one step for each problem."""

    @classmethod
    def of(cls, uniform: Sequence[Figures], *, first: float) -> _Market:
        spent = np.array([figure.costs.mean() for figure in uniform])
        accuracy = np.array([figure.right.mean() for figure in uniform])
        rates = np.zeros(len(uniform))
        for at in range(len(uniform)):
            low, high = max(at - 1, 0), min(at + 1, len(uniform) - 1)
            gap = float(spent[high] - spent[low])
            rates[at] = max(0.0, float(accuracy[high] - accuracy[low]) / gap) if gap > 0 else 0.0
        return cls(spent=np.array([figure.spent for figure in uniform]), rates=rates, first=first)

    def charged(self, figure: Figures) -> Floats:
        """The answers (draws, n), each minus its cost above the mean, at the rate for the policy's spending."""
        rate = float(np.interp(figure.spent, self.spent, self.rates))
        charged: Floats = figure.right - rate * (figure.costs - figure.costs.mean())
        return charged

    def at_least_first(self, spent: float) -> int:
        """A total that covers the spending, and at least one step each."""
        return math.ceil(max(spent, self.first) - 1e-6)
