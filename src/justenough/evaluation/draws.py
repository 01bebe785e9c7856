"""What a threshold that is fitted on a few examples does, as a mean over many draws of the examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from justenough.calibration.certified import NetControlled, RiskControlled
from justenough.calibration.thresholds import Method
from justenough.errors import InputError
from justenough.evaluation.figures import Ints, Outcomes, gate_outcomes, outcomes
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
        return asdict(self)


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
    """Share of draws without a threshold, or without separation."""
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
        return {key: value for key, value in asdict(self).items() if key not in ("savings", "changes")}


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
            f"{len(usable)} usable problems are too few for {draws} draws of {n} examples", hint="collect more"
        )

    def decided(drawn: Ints) -> tuple[Outcomes, float | None, str]:
        threshold, reason = _threshold(source.rows(drawn), method, settings)
        return gate_outcomes(table, replace(settings, threshold=threshold)), threshold, reason

    return averaged(table, method.name, decided, usable=usable, n=n, draws=draws, seed=seed, cross=pool is None)


def averaged(
    table: Table,
    name: str,
    decided: Callable[[Ints], tuple[Outcomes, float | None, str]],
    *,
    usable: Ints,
    n: int,
    draws: int,
    seed: int,
    cross: bool,
) -> tuple[Draws, Outcomes]:
    """The mean outcomes over draws of `n` of the `usable` problems.

    `decided` gives the outcomes on the table that follow from labelled problems, with threshold and reason. With
    `cross` the labelled problems are the table's own, and no draw counts where its own labels are.
    """
    keys = ["correct", "tokens", "unanswered", "early", "harm", "rescue"]
    keys += ["cost"] * (table.costs is not None) + ["seconds"] * (table.latency is not None)
    sums = {key: np.zeros(len(table)) for key in keys}
    counts = np.zeros(len(table))
    savings, changes, thresholds = [], [], []
    reasons: dict[str, int] = {}
    full, final = table.spent[:, -1], table.correct[:, -1]
    for number in range(draws):
        drawn = np.random.default_rng((seed, number)).choice(usable, size=n, replace=False)
        done, threshold, reason = decided(drawn)
        reasons[reason] = reasons.get(reason, 0) + 1
        if threshold is not None:
            thresholds.append(threshold)
        used = np.zeros(len(table), dtype=bool)
        if cross:
            used[drawn] = True
        counts += ~used
        for key, total in sums.items():
            total += np.where(used, 0.0, getattr(done, key))
        savings.append(float(1 - done.tokens[~used].sum() / full[~used].sum()) if full[~used].sum() > 0 else 0.0)
        changes.append(float((done.correct - final)[~used].mean()))
    means = {key: total / np.maximum(counts, 1) for key, total in sums.items()}
    refused = sum(count for reason, count in reasons.items() if reason not in ("ok", "collapses_to_mean"))
    summary = Draws(
        method=name,
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


def no_draws(
    table: Table, method: Method, settings: GateSettings, *, draws: int, reason: str
) -> tuple[Draws, Outcomes]:
    """The draws of traces on which no threshold can be fitted: all are refused, and nothing stops."""
    zero, none = Spread(mean=0.0, p5=0.0, p95=0.0), (0.0,) * draws
    summary = Draws(
        method=method.name,
        n=0,
        draws=draws,
        saving=zero,
        accuracy_change=zero,
        threshold=None,
        refused=1.0,
        reasons={reason: draws},
        savings=none,
        changes=none,
    )
    return summary, replace(outcomes(table, table.stops(replace(settings, threshold=None))), averaged=True)


def _threshold(drawn: Table, method: Method, settings: GateSettings) -> tuple[float | None, str]:
    if settings.decide == "every" and isinstance(method, RiskControlled | NetControlled):
        certified = method.fit_every(drawn.checkpoints(settings))
        return certified.threshold, certified.reason
    examples = drawn.examples()
    outcome = method.fit(examples)
    if outcome.threshold is None:
        return None, outcome.reason
    # With fewer examples the verdict is `cannot tell`, which does not refuse.
    if outcome.guarantee is None and min(len(examples.right), len(examples.wrong)) >= MINIMUM_OF_EACH:
        evidence = separation(examples.entropy, examples.correct, groups=drawn.groups)
        if evidence.gating_refused:
            return None, "gating_refused"
    return outcome.threshold, outcome.reason


def spread_of(values: NDArray[np.float64]) -> Spread:
    """Mean, 5th and 95th percentile of values (n,)."""
    low, high = np.quantile(values, (0.05, 0.95))
    return Spread(mean=float(values.mean()), p5=float(low), p95=float(high))
