"""A rule's figures on a set of problems, each with its interval; the definitions are METHOD's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from justenough.evaluation.table import Table
from justenough.stats import (
    Estimate,
    NonInferiority,
    mcnemar,
    non_inferiority,
    paired_bootstrap,
    saving_bootstrap,
    wilson,
)
from justenough.trace import Json

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a rule did; proportions are fractions of all problems, tokens are totals over them."""

    accuracy: float
    accuracy_change: Estimate
    """Against all steps, paired, with a bootstrap interval."""
    tokens: float
    saving: Estimate | None
    """`1 - tokens / tokens of all steps`."""
    saving_vs_first: float | None
    saving_vs_last: float | None
    cost: float | None
    """Money in all, where prices were given."""
    cost_saving: Estimate | None
    cost_saving_vs_last: float | None
    latency_saving: float | None
    """Of the seconds of all steps, where they are recorded."""
    oracle_share: float | None
    """Saving over the oracle's saving where the same decisions are open."""
    stopped: float
    """Share of problems stopped before the last step."""
    harm: Estimate | None
    """Share stopped, wrong, where the last answer is right."""
    rescue: Estimate | None
    """Share stopped, right, where the last answer is wrong."""
    unanswered: float
    mcnemar_p: float | None
    """Exact; None for a mean over draws, which has no pairs."""
    non_inferiority: NonInferiority | None

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
    """What became of each problem under a rule, shape (n,); fractions where it is a mean over calibration draws."""

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
    """Of stopping each problem at its column of `stops` (n,); `tokens` where a rule spent more than the steps'."""
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
    return money if tokens is None else money + (tokens - table.spent[rows, stops]) * costs.output


def figures(
    table: Table, done: Outcomes, *, oracle_saving: float | None, margin: float, seed: int, resamples: int
) -> Figures:
    """The figures of a rule's outcomes against running all steps."""
    n = len(table)
    full, final = table.spent[:, -1], table.correct[:, -1]
    saving = saving_bootstrap(done.tokens, full, seed=seed, resamples=resamples)
    right = done.correct > 0.5
    exact = not done.averaged
    return Figures(
        accuracy=float(done.correct.mean()),
        accuracy_change=paired_bootstrap(done.correct - final, seed=seed, resamples=resamples),
        tokens=float(done.tokens.sum()),
        saving=saving,
        saving_vs_first=_saving(done.tokens.sum(), table.spent[:, 0].sum()),
        saving_vs_last=_saving(done.tokens.sum(), table.last_only.sum()),
        cost=None if done.cost is None else float(done.cost.sum()),
        cost_saving=None
        if done.cost is None or table.costs is None
        else saving_bootstrap(done.cost, table.costs.money[:, -1], seed=seed, resamples=resamples),
        cost_saving_vs_last=None
        if done.cost is None or table.costs is None
        else _saving(done.cost.sum(), table.costs.last.sum()),
        latency_saving=None
        if done.seconds is None or table.latency is None
        else _saving(done.seconds.sum(), table.latency[:, -1].sum()),
        oracle_share=saving.value / oracle_saving if saving is not None and oracle_saving else None,
        stopped=float(done.early.mean()),
        harm=_share(done.harm, n, exact=exact, seed=seed, resamples=resamples),
        rescue=_share(done.rescue, n, exact=exact, seed=seed, resamples=resamples),
        unanswered=float(done.unanswered.mean()),
        mcnemar_p=mcnemar(right, final).p_value if exact else None,
        non_inferiority=non_inferiority(right, final, margin=margin) if exact else None,
    )


def _saving(tokens: float, baseline: float) -> float | None:
    return float(1 - tokens / baseline) if baseline > 0 else None


def _share(values: Floats, n: int, *, exact: bool, seed: int, resamples: int) -> Estimate | None:
    """A share of all problems: Wilson's interval for counts, the bootstrap's for means over draws."""
    if exact:
        return wilson(int(values.sum()), n)
    return paired_bootstrap(values, seed=seed, resamples=resamples)


def estimate_json(estimate: Estimate | None) -> Json:
    """An estimate as an object, or null."""
    return None if estimate is None else cast("dict[str, Json]", dict(estimate._asdict()))
