"""The figures of a rule on a set of problems, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import cast

import numpy as np
from numpy.typing import NDArray

from justenough.evaluation.table import Table
from justenough.gate import GateSettings
from justenough.stats import (
    Estimate,
    NonInferiority,
    Separation,
    change_interval,
    discordant,
    mcnemar,
    non_inferiority,
    resampled_sums,
    saving_estimate,
    wilson,
)
from justenough.trace import Json

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The results of a rule; proportions are fractions of all problems, tokens are totals over all problems."""

    accuracy: float
    """As a fraction."""
    accuracy_change: Estimate
    """Against all steps, paired, with Tango's interval. A mean over draws has the interval of one draw per problem."""
    tokens: float
    """Tokens of all problems."""
    saving: Estimate | None
    """`1 - tokens / tokens of all steps`, with a bootstrap interval."""
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
    layers_saving: float | None
    """Share of the layers of all steps in the whole network that did not run; None where layers are not recorded."""
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
        for field in fields(self):
            value = getattr(self, field.name)
            if "Estimate" in str(field.type):
                out[field.name] = None if value is None else value.value
                out[f"{field.name}_ci"] = interval(value)
            else:
                out[field.name] = value
        verdict = self.non_inferiority
        return out | {"non_inferiority": None if verdict is None else cast("dict[str, Json]", verdict._asdict())}


def interval(estimate: Estimate | None) -> Json:
    """`[low, high]`, or null."""
    return None if estimate is None or estimate.interval is None else list(estimate.interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """The outcome of each problem under a rule, shape (n,); fractions where it is a mean over calibration draws."""

    correct: Floats
    final: Floats
    """Whether the answer of the last step is right."""
    tokens: Floats
    unanswered: Floats | Bools
    early: Floats | Bools
    cost: Floats | None = None
    seconds: Floats | None = None
    layers: Floats | None = None
    averaged: bool = False
    oracle_saving: float | None = None
    """Saving of the oracle that the rule is compared with."""

    @property
    def harm(self) -> Floats:
        """Wrong although the last answer is right."""
        return self.final * (1 - self.correct)

    @property
    def rescue(self) -> Floats:
        """Right although the last answer is wrong."""
        return self.correct * (1 - self.final)


def outcomes(table: Table, stops: Ints, tokens: Floats | None = None, *, probed: Ints | None = None) -> Outcomes:
    """The outcomes of stopping each problem at its column in `stops` (n,).

    `tokens` are given if the rule spent more than the steps. `probed` is the number of columns before its stop at which
    it probed, by default all of them if it spent more.
    """
    rows = np.arange(len(table))
    spent = table.spent[rows, stops]
    cost = None
    if (costs := table.costs) is not None:
        cost = costs.money[rows, stops]
        if tokens is not None:
            looks = np.where(tokens > spent, costs.looks[rows, stops if probed is None else probed], 0.0)
            cost = cost + (tokens - spent) * costs.output + looks
    return Outcomes(
        correct=table.correct[rows, stops].astype(np.float64),
        final=table.correct[:, -1].astype(np.float64),
        tokens=spent if tokens is None else tokens,
        unanswered=table.unanswered[rows, stops],
        early=stops < table.lengths - 1,
        cost=cost,
        seconds=None if table.latency is None else table.latency[rows, stops],
        layers=None if table.layers is None else table.layers[rows, stops],
    )


def gate_outcomes(table: Table, settings: GateSettings) -> Outcomes:
    """The outcomes of a gate on the table's signal."""
    stops = table.stops(settings)
    return charged(table, stops, table.probed(stops, settings))


def charged(table: Table, stops: Ints, probed: Ints) -> Outcomes:
    """The outcomes of a gate with the tokens of the probes that it took at its first `probed` columns (n,)."""
    rows, probes = np.arange(len(table)), table.probes
    tokens = None if probes is None else table.spent[rows, stops] + probes[rows, probed]
    return outcomes(table, stops, tokens, probed=probed)


def saving_and_change(table: Table, done: Outcomes, rows: Bools | None = None) -> tuple[float, float]:
    """Saving of tokens and change in accuracy against all steps, on all problems or on some."""
    chosen = slice(None) if rows is None else rows
    full = float(table.spent[chosen, -1].sum())
    saving = 1 - float(done.tokens[chosen].sum()) / full if full > 0 else 0.0
    return saving, float((done.correct - done.final)[chosen].mean())


def figures_of(
    table: Table, rules: Mapping[str, Outcomes], *, margin: float, seed: int, resamples: int
) -> dict[str, Figures]:
    """The figures of several rules against running all steps; their savings share the same resamples of problems."""

    def savings(full: Floats, spent: Mapping[str, Floats]) -> dict[str, Estimate | None]:
        columns = np.column_stack((full, *spent.values()))
        if table.problems is not None:
            # A resample draws a problem with all its runs.
            names, member = np.unique(np.asarray(table.problems), return_inverse=True)
            runs, columns = columns, np.zeros((len(names), columns.shape[1]))
            np.add.at(columns, member, runs)
        sums = resampled_sums(columns, seed=seed, resamples=resamples)
        return {
            name: saving_estimate(column, full, sums[:, at], sums[:, 0])
            for at, (name, column) in enumerate(spent.items(), 1)
        }

    saved = savings(table.spent[:, -1], {name: done.tokens for name, done in rules.items()})
    money: dict[str, Estimate | None] = {}
    if table.costs is not None:
        costs = {name: done.cost for name, done in rules.items() if done.cost is not None}
        money = savings(table.costs.money[:, -1], costs)
    return {name: _figures(table, done, saved[name], money.get(name), margin) for name, done in rules.items()}


def _figures(
    table: Table, done: Outcomes, saving: Estimate | None, cost_saving: Estimate | None, margin: float
) -> Figures:
    final, problems, costs = table.correct[:, -1], table.problems, table.costs
    gained, lost, n = discordant(done.correct, final, problems=problems)
    spent, exact, oracle = float(done.tokens.sum()), not done.averaged, done.oracle_saving or 0.0
    return Figures(
        accuracy=float(done.correct.mean()),
        accuracy_change=change_interval(done.correct, final, problems=problems),
        tokens=spent,
        saving=saving,
        saving_vs_first=_saving(done.tokens, table.spent[:, 0]),
        saving_vs_last=_saving(done.tokens, table.last_only),
        cost=None if done.cost is None else float(done.cost.sum()),
        cost_saving=cost_saving,
        cost_saving_vs_last=_saving(done.cost, None if costs is None else costs.last),
        latency_saving=_saving(done.seconds, None if table.latency is None else table.latency[:, -1]),
        layers_saving=_saving(done.layers, table.whole_layers),
        oracle_share=None if saving is None or oracle <= 0 else saving.value / oracle,
        stopped=float(done.early.mean()),
        harm=wilson(lost, n),
        rescue=wilson(gained, n),
        unanswered=float(done.unanswered.mean()),
        mcnemar_p=mcnemar(done.correct > 0, final).p_value if exact and problems is None else None,
        non_inferiority=non_inferiority(done.correct, final, margin=margin, problems=problems) if exact else None,
    )


def _saving(spent: Floats | None, baseline: Floats | None) -> float | None:
    if spent is None or baseline is None or baseline.sum() <= 0:
        return None
    return float(1 - spent.sum() / baseline.sum())


def estimate_json(estimate: Estimate | None) -> Json:
    """An estimate as an object, or null."""
    return None if estimate is None else cast("dict[str, Json]", dict(estimate._asdict()))


def separation_json(evidence: Separation) -> dict[str, Json]:
    """The keys of a separation: Cohen's d and AUROC with their intervals."""
    names = {"cohens_d": "cohens_d", "auroc": "auroc", "auroc_within_groups": "within_groups"}
    out: dict[str, Json] = {"verdict": evidence.sentence}
    for key, name in names.items():
        estimate = getattr(evidence, name)
        out |= {key: None if estimate is None else estimate.value, f"{key}_ci": interval(estimate)}
    return out
