"""What a threshold that is fitted on a few examples does, as a mean over many draws of the examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from justenough.calibration.certified import NetControlled, RiskControlled
from justenough.calibration.thresholds import Method
from justenough.errors import InputError
from justenough.evaluation.figures import Outcomes, outcomes
from justenough.evaluation.table import Table
from justenough.gate import GateSettings
from justenough.stats import MINIMUM_OF_EACH, separation
from justenough.trace import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A figure over the draws."""

    mean: float
    """Mean over the draws."""
    p5: float
    """5th percentile."""
    p95: float
    """95th percentile."""

    def to_json(self) -> dict[str, Json]:
        """A JSON object."""
        return {"mean": self.mean, "p5": self.p5, "p95": self.p95}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """A method over calibration draws; a refused draw counts as never stopping."""

    method: str
    n: int
    """Examples in each draw."""
    draws: int
    """Number of draws."""
    saving: Spread
    """Saving, as a fraction of the tokens of all steps."""
    accuracy_change: Spread
    """Change in accuracy against all steps, as a fraction."""
    threshold: Spread | None
    """Bits, over the draws that have a threshold."""
    refused: float
    """Share of draws without a threshold, or refused for want of separation."""
    reasons: dict[str, int]
    """Outcome → draws."""
    savings: tuple[float, ...]
    """Saving of each draw."""
    changes: tuple[float, ...]
    """Change in accuracy of each draw."""

    def percentile(self, saving: float) -> float:
        """Share of draws that save less than this; ties count half."""
        values = np.array(self.savings)
        return float(((values < saving).mean() + (values <= saving).mean()) / 2)

    def to_json(self) -> dict[str, Json]:
        """A JSON object, without the individual draws."""
        return {
            "method": self.method,
            "n": self.n,
            "draws": self.draws,
            "saving": self.saving.to_json(),
            "accuracy_change": self.accuracy_change.to_json(),
            "threshold": None if self.threshold is None else self.threshold.to_json(),
            "refused": self.refused,
            "reasons": cast("dict[str, Json]", self.reasons),
        }


def calibration_draws(
    table: Table, method: Method, settings: GateSettings, *, n: int, draws: int, seed: int, pool: Table | None = None
) -> tuple[Draws, Outcomes]:
    """Fit on `n` examples drawn from `pool`, decide on `table`; `draws` times.

    Without a pool the examples are drawn from the table itself and the other problems are decided (cross-fitted). The
    outcomes are each problem's means over the draws that did not use it.
    """
    source = table if pool is None else pool
    usable = np.flatnonzero(np.isfinite(source.bits[:, 0]))
    if n < 1 or draws < 1 or n > len(usable) or (pool is None and n >= len(table)):
        raise InputError(
            f"{draws} draws of {n} examples cannot be had from {len(usable)} usable problems", hint="collect more"
        )
    sums = {key: np.zeros(len(table)) for key in ("correct", "tokens", "unanswered", "early", "harm", "rescue")}
    if table.costs is not None:
        sums["cost"] = np.zeros(len(table))
    if table.latency is not None:
        sums["seconds"] = np.zeros(len(table))
    counts = np.zeros(len(table))
    savings, changes, thresholds = [], [], []
    reasons: dict[str, int] = {}
    full, final = table.spent[:, -1], table.correct[:, -1]
    for number in range(draws):
        drawn = np.random.default_rng((seed, number)).choice(usable, size=n, replace=False)
        threshold, reason = _threshold(source.rows(drawn), method, settings)
        reasons[reason] = reasons.get(reason, 0) + 1
        if threshold is not None:
            thresholds.append(threshold)
        done = outcomes(table, table.stops(replace(settings, threshold=threshold)))
        used = np.zeros(len(table), dtype=bool)
        if pool is None:
            used[drawn] = True
        counts += ~used
        for key, total in sums.items():
            total += np.where(used, 0.0, getattr(done, key))
        savings.append(float(1 - done.tokens[~used].sum() / full[~used].sum()) if full[~used].sum() > 0 else 0.0)
        changes.append(float((done.correct - final)[~used].mean()))
    means = {key: total / np.maximum(counts, 1) for key, total in sums.items()}
    refused = sum(count for reason, count in reasons.items() if reason not in ("ok", "collapses_to_mean"))
    summary = Draws(
        method=method.name,
        n=n,
        draws=draws,
        saving=spread_of(np.array(savings)),
        accuracy_change=spread_of(np.array(changes)),
        threshold=spread_of(np.array(thresholds)) if thresholds else None,
        refused=refused / draws,
        reasons=dict(sorted(reasons.items())),
        savings=tuple(savings),
        changes=tuple(changes),
    )
    return summary, Outcomes(**means, averaged=True)


def _threshold(drawn: Table, method: Method, settings: GateSettings) -> tuple[float | None, str]:
    if settings.decide == "every" and isinstance(method, RiskControlled | NetControlled):
        certified = method.fit_every(drawn.checkpoints(settings))
        return certified.threshold, certified.reason
    examples = drawn.examples()
    outcome = method.fit(examples)
    if outcome.threshold is None:
        return None, outcome.reason
    # With fewer the verdict is `cannot tell`, which is a warning and no refusal.
    if outcome.guarantee is None and min(len(examples.right), len(examples.wrong)) >= MINIMUM_OF_EACH:
        evidence = separation(examples.entropy, examples.correct, groups=drawn.groups)
        if evidence.gating_refused:
            return None, "gating_refused"
    return outcome.threshold, outcome.reason


def spread_of(values: NDArray[np.float64]) -> Spread:
    """Mean, 5th and 95th percentile of values (n,)."""
    low, high = np.quantile(values, (0.05, 0.95))
    return Spread(mean=float(values.mean()), p5=float(low), p95=float(high))
