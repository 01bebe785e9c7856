"""A rule's figures on a set of problems, each with its interval; the definitions are METHOD's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from justenough.evaluation.table import Table
from justenough.stats import (
    Estimate,
    NonInferiority,
    change_interval,
    discordant,
    mcnemar,
    mean_estimate,
    non_inferiority,
    resampled_sums,
    saving_estimate,
    wilson,
)
from justenough.trace import Json

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a rule did; proportions are fractions of all problems, tokens are totals over all problems."""

    accuracy: float
    """As a fraction."""
    accuracy_change: Estimate
    """Against all steps, paired, with Tango's interval; the mean over draws of a baseline has a bootstrap interval."""
    tokens: float
    """Tokens of all problems."""
    saving: Estimate | None
    """`1 - tokens / tokens of all steps`."""
    saving_vs_first: float | None
    """`1 - tokens / tokens of step 1`."""
    saving_vs_last: float | None
    """`1 - tokens / tokens of the last step alone`."""
    cost: float | None
    """Total cost; None without prices."""
    cost_saving: Estimate | None
    """As a fraction of the cost of all steps."""
    cost_saving_vs_last: float | None
    """As a fraction of the cost of the last step alone."""
    latency_saving: float | None
    """Share of the seconds of all steps that was saved; None where times are not recorded."""
    oracle_share: float | None
    """Saving divided by the saving of the oracle that may decide at the same places."""
    stopped: float
    """Share of problems stopped before the last step."""
    harm: Estimate | None
    """Share of problems that were stopped with a wrong answer although the last answer is right."""
    rescue: Estimate | None
    """Share of problems that were stopped with a right answer although the last answer is wrong."""
    unanswered: float
    """Share of problems without an answer."""
    mcnemar_p: float | None
    """Exact; None for a mean over draws, which has no pairs."""
    non_inferiority: NonInferiority | None
    """Test against running all steps; None for a mean over draws."""

    def to_json(self) -> dict[str, Json]:
        """A JSON object; every estimate `x` also gives `x_ci`."""
        out: dict[str, Json] = {}
        for key in (
            "accuracy",
            "accuracy_change",
            "tokens",
            "saving",
            "saving_vs_first",
            "saving_vs_last",
            "cost",
            "cost_saving",
            "cost_saving_vs_last",
            "latency_saving",
            "oracle_share",
            "stopped",
            "harm",
            "rescue",
            "unanswered",
            "mcnemar_p",
        ):
            value = getattr(self, key)
            if isinstance(value, Estimate):
                out[key], out[f"{key}_ci"] = value.value, interval(value)
            else:
                out[key] = value
        verdict = self.non_inferiority
        out["non_inferiority"] = None if verdict is None else cast("dict[str, Json]", verdict._asdict())
        return out


def interval(estimate: Estimate | None) -> Json:
    """`[low, high]`, or null."""
    if estimate is None or estimate.interval is None:
        return None
    return list(estimate.interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """The outcome of each problem under a rule, shape (n,); fractions where it is a mean over calibration draws."""

    correct: Floats
    tokens: Floats
    unanswered: Floats
    early: Floats
    harm: Floats
    rescue: Floats
    cost: Floats | None = None
    seconds: Floats | None = None
    averaged: bool = False


def outcomes(table: Table, stops: NDArray[np.int64], tokens: Floats | None = None) -> Outcomes:
    """The outcomes of stopping each problem at its column in `stops` (n,); `tokens` are given if a rule spent more."""
    rows = np.arange(len(table))
    right, final = table.correct[rows, stops], table.correct[:, -1]
    early = table.spent[rows, stops] < table.spent[:, -1]
    return Outcomes(
        correct=right.astype(np.float64),
        tokens=table.spent[rows, stops] if tokens is None else tokens,
        unanswered=table.unanswered[rows, stops].astype(np.float64),
        early=early.astype(np.float64),
        harm=(~right & final).astype(np.float64),
        rescue=(right & ~final).astype(np.float64),
        cost=_cost(table, stops, tokens),
        seconds=None if table.latency is None else table.latency[rows, stops],
    )


def _cost(table: Table, stops: NDArray[np.int64], tokens: Floats | None) -> Floats | None:
    costs = table.costs
    if costs is None:
        return None
    rows = np.arange(len(table))
    money: Floats = costs.money[rows, stops]
    if tokens is None:
        return money
    besides = tokens - table.spent[rows, stops]
    # A rule that probes has probed at every step before the stop.
    return money + besides * costs.output + np.where(besides > 0, costs.looks[rows, stops], 0.0)


class Judged(NamedTuple):
    """Outcomes, and the saving of the oracle that they are compared with."""

    done: Outcomes
    oracle_saving: float | None


class _Resampled:
    """Sums of columns over the same resamples of problems, computed in one pass for all columns."""

    def __init__(self) -> None:
        self._columns: list[Floats] = []
        self._sums = np.zeros((0, 0))

    def take(self, *columns: Floats) -> tuple[int, ...]:
        """Add columns; returns the places of their sums."""
        self._columns += columns
        return tuple(range(len(self._columns) - len(columns), len(self._columns)))

    def draw(self, problems: Sequence[str] | None, *, seed: int, resamples: int) -> None:
        """Sum all columns over resamples of problems; a problem is drawn with all its rows."""
        rows = np.column_stack([*self._columns, np.ones(len(self._columns[0]))])
        if problems is not None:
            names, member = np.unique(np.asarray(problems), return_inverse=True)
            together = np.zeros((len(names), rows.shape[1]))
            np.add.at(together, member, rows)
            rows = together
        sums = resampled_sums(rows, seed=seed, resamples=resamples)
        # Resamples of problems with unequal numbers of rows are brought to the same number.
        self._sums = sums[:, :-1] * (len(self._columns[0]) / sums[:, -1:])

    def mean(self, place: int) -> Estimate:
        """Of one column."""
        return mean_estimate(self._columns[place], self._sums[:, place])

    def saving(self, place: int, baseline: int) -> Estimate | None:
        """Of one column against another."""
        columns, sums = self._columns, self._sums
        return saving_estimate(columns[place], columns[baseline], sums[:, place], sums[:, baseline])


def figures(
    table: Table, done: Outcomes, *, oracle_saving: float | None, margin: float, seed: int, resamples: int
) -> Figures:
    """The figures of a rule's outcomes against running all steps."""
    judged = {"": Judged(done, oracle_saving)}
    return figures_of(table, judged, margin=margin, seed=seed, resamples=resamples)[""]


def figures_of(
    table: Table, judged: Mapping[str, Judged], *, margin: float, seed: int, resamples: int
) -> dict[str, Figures]:
    """The figures of several rules, whose intervals come from the same resamples of problems."""
    sums = _Resampled()
    full = sums.take(table.spent[:, -1])[0]
    money = sums.take(table.costs.money[:, -1])[0] if table.costs is not None else None
    places = {name: _places(table, rule.done, sums) for name, rule in judged.items()}
    sums.draw(table.problems, seed=seed, resamples=resamples)
    return {
        name: _figures(table, rule, places[name], sums, full=full, money=money, margin=margin)
        for name, rule in judged.items()
    }


class _Places(NamedTuple):
    """The places of a rule's columns among the resampled ones."""

    change: int | None
    tokens: int
    harm: int | None
    rescue: int | None
    cost: int | None


def _places(table: Table, done: Outcomes, sums: _Resampled) -> _Places:
    tokens = sums.take(done.tokens)[0]
    change = harm = rescue = None
    if done.averaged:
        # Means over draws; pairs of answers have Tango's interval and counts Wilson's.
        change, harm, rescue = sums.take(done.correct - table.correct[:, -1], done.harm, done.rescue)
    return _Places(change, tokens, harm, rescue, sums.take(done.cost)[0] if done.cost is not None else None)


def _figures(
    table: Table,
    rule: Judged,
    places: _Places,
    sums: _Resampled,
    *,
    full: int,
    money: int | None,
    margin: float,
) -> Figures:
    done, final = rule.done, table.correct[:, -1]
    saving = sums.saving(places.tokens, full)
    right = done.correct > 0.5
    exact = not done.averaged
    change = None if places.change is None else sums.mean(places.change)
    return Figures(
        accuracy=float(done.correct.mean()),
        accuracy_change=change or change_interval(right, final, problems=table.problems),
        tokens=float(done.tokens.sum()),
        saving=saving,
        saving_vs_first=_saving(done.tokens.sum(), table.spent[:, 0].sum()),
        saving_vs_last=_saving(done.tokens.sum(), table.last_only.sum()),
        cost=None if done.cost is None else float(done.cost.sum()),
        cost_saving=None if places.cost is None or money is None else sums.saving(places.cost, money),
        cost_saving_vs_last=None
        if done.cost is None or table.costs is None
        else _saving(done.cost.sum(), table.costs.last.sum()),
        latency_saving=None
        if done.seconds is None or table.latency is None
        else _saving(done.seconds.sum(), table.latency[:, -1].sum()),
        oracle_share=_oracle_share(saving, rule.oracle_saving),
        stopped=float(done.early.mean()),
        harm=_share(table, done.harm, places.harm, sums),
        rescue=_share(table, done.rescue, places.rescue, sums),
        unanswered=float(done.unanswered.mean()),
        mcnemar_p=mcnemar(right, final).p_value if exact and table.problems is None else None,
        non_inferiority=non_inferiority(right, final, margin=margin, problems=table.problems) if exact else None,
    )


def _oracle_share(saving: Estimate | None, oracle: float | None) -> float | None:
    """None where even the oracle saves nothing."""
    return None if saving is None or oracle is None or oracle <= 0 else saving.value / oracle


def _saving(tokens: float, baseline: float) -> float | None:
    return float(1 - tokens / baseline) if baseline > 0 else None


def _share(table: Table, values: Floats, place: int | None, sums: _Resampled) -> Estimate | None:
    """A share of all problems: Wilson's interval for counts, the bootstrap's for means over draws."""
    if place is not None:
        return sums.mean(place)
    counted, _, problems = discordant(values > 0, np.zeros(len(values), dtype=bool), problems=table.problems)
    return wilson(counted, problems)


def estimate_json(estimate: Estimate | None) -> Json:
    """An estimate as an object, or null."""
    return None if estimate is None else cast("dict[str, Json]", dict(estimate._asdict()))
