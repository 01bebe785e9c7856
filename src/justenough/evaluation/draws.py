"""The figures of a threshold that is fitted on a few examples, over many draws of the examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.calibration.certified import NetControlled, RiskControlled
from justenough.calibration.thresholds import Method
from justenough.errors import InputError
from justenough.evaluation.figures import Ints, Outcomes, gate_outcomes, outcomes, saving_and_change
from justenough.evaluation.table import Table
from justenough.gate import GateSettings
from justenough.stats import MINIMUM_OF_EACH, separation
from justenough.trace import Json

Decided = Callable[[Ints], tuple[Outcomes, float | None, str]]

SIZES: Final = (5, 10, 20, 50, 100, 300)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    """A method at one number of labels, over draws; each draw is tested on the problems that are not in it."""

    n: int
    draws: int
    threshold: Spread | None
    """Over the draws that have a threshold."""
    saving: Spread
    """In tokens, against all steps."""
    accuracy_change: Spread
    none: float
    """Share of draws without a threshold, which never stop."""


def calibration_draws(
    table: Table, method: Method, settings: GateSettings, *, n: int, draws: int, seed: int, pool: Table | None = None
) -> tuple[Draws, Outcomes]:
    """Fit on `n` examples drawn from `pool`, decide on `table`; `draws` times.

    Without a pool the examples are drawn from the table itself and the other problems are decided (cross-fitted). The
    outcomes are each problem's means over the draws that did not use it. A problem that all draws used counts as not
    stopped. With few problems, a draw takes all of the pool, or half of the table.
    """
    if n < 1 or draws < 1:
        raise InputError(f"{draws} draws of {n} examples", hint="at least 1 of each")
    source = table if pool is None else pool
    usable = np.flatnonzero(np.isfinite(source.bits[:, 0]))
    size = min(n, len(usable) if pool is not None else len(usable) // 2)

    def decided(drawn: Ints) -> tuple[Outcomes, float | None, str]:
        threshold, reason = None, "too_few_right" if len(usable) else "no_signal"
        if size:
            threshold, reason = _threshold(source.rows(drawn), method, settings)
        return gate_outcomes(table, replace(settings, threshold=threshold)), threshold, reason

    return averaged(table, method.name, decided, usable=usable, n=size, draws=draws, seed=seed, cross=pool is None)


def averaged(
    table: Table, name: str, decided: Decided, *, usable: Ints, n: int, draws: int, seed: int, cross: bool
) -> tuple[Draws, Outcomes]:
    """The mean outcomes over draws of `n` of the `usable` problems.

    `decided` returns the outcomes on the table for the problems of a draw, with threshold and reason. With `cross`,
    those problems are in the table and do not count in their draw.
    """
    never = outcomes(table, np.full(len(table), table.steps - 1))
    columns = ((field.name, getattr(never, field.name)) for field in fields(never))
    whole = {key: column for key, column in columns if isinstance(column, np.ndarray)}
    sums, counts = {key: np.zeros(len(table)) for key in whole}, np.zeros(len(table))
    figures, thresholds, reasons = np.zeros((draws, 2)), list[float](), Counter[str]()
    for number in range(draws):
        drawn = np.random.default_rng((seed, number)).choice(usable, size=n, replace=False)
        done, threshold, reason = decided(drawn)
        reasons[reason] += 1
        if threshold is not None:
            thresholds.append(threshold)
        others = np.ones(len(table), dtype=bool)
        if cross:
            others[drawn] = False
        counts += others
        for key, total in sums.items():
            total += np.where(others, getattr(done, key), 0.0)
        figures[number] = saving_and_change(table, done, others)
    means = {key: np.where(counts > 0, total / np.maximum(counts, 1), whole[key]) for key, total in sums.items()}
    refused = sum(count for reason, count in reasons.items() if reason not in ("ok", "collapses_to_mean"))
    summary = Draws(
        method=name,
        n=n,
        draws=draws,
        saving=spread_of(figures[:, 0]),
        accuracy_change=spread_of(figures[:, 1]),
        threshold=spread_of(np.array(thresholds)) if thresholds else None,
        refused=refused / draws,
        reasons=dict(sorted(reasons.items())),
        savings=tuple(figures[:, 0].tolist()),
        changes=tuple(figures[:, 1].tolist()),
    )
    # The names are those of the fields.
    return summary, replace(never, averaged=True, **means)  # type: ignore[arg-type]


def calibration_sizes(
    table: Table, method: Method, settings: GateSettings, *, draws: int = 500, seed: int = 0
) -> tuple[Sized, ...]:
    """The method at each size that leaves at least as many problems to test it on.

    Each draw's threshold is compared with the threshold of all problems, on the problems that the draw left out.
    Without this comparison the choice of these problems would widen the spread.
    """
    usable = np.flatnonzero(np.isfinite(table.bits[:, 0]))
    threshold = method.fit(table.examples()).threshold
    whole = gate_outcomes(table, replace(settings, threshold=threshold))
    figures_of_whole = saving_and_change(table, whole)
    sizes: list[Sized] = []
    for n in SIZES:
        if 2 * n > len(usable):
            break
        thresholds: list[float] = []
        figures = np.zeros((draws, 2))
        for number in range(draws):
            drawn = np.random.default_rng((seed, n, number)).choice(usable, size=n, replace=False)
            threshold = method.fit(table.rows(drawn).examples()).threshold
            if threshold is not None:
                thresholds.append(threshold)
            others = np.ones(len(table), dtype=bool)
            others[drawn] = False
            done = gate_outcomes(table, replace(settings, threshold=threshold))
            figures[number] = saving_and_change(table, done, others)
            figures[number] -= saving_and_change(table, whole, others)
        figures += figures_of_whole
        sizes.append(
            Sized(
                n=n,
                draws=draws,
                threshold=spread_of(np.array(thresholds)) if thresholds else None,
                saving=spread_of(figures[:, 0]),
                accuracy_change=spread_of(figures[:, 1]),
                none=1 - len(thresholds) / draws,
            )
        )
    return tuple(sizes)


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
