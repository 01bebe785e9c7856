"""The figures of a threshold that is fitted on a few examples, over many draws of the examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.calibration.certified import NetControlled, RiskControlled
from justenough.calibration.thresholds import Method
from justenough.errors import InputError
from justenough.evaluation.figures import (
    Bools,
    Floats,
    Ints,
    Outcomes,
    charged,
    gate_outcomes,
    outcomes,
    saving_and_change,
)
from justenough.evaluation.table import Table
from justenough.gate import GateSettings
from justenough.stats import MINIMUM_OF_EACH, separation
from justenough.trace import Json

Decided = Callable[[Ints], "tuple[Outcomes | Split, float | None, str]"]

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
    once = _once(table, settings)

    def decided(drawn: Ints) -> tuple[Outcomes | Split, float | None, str]:
        threshold, reason = None, "too_few_right" if len(usable) else "no_signal"
        if size:
            threshold, reason = _threshold(source, drawn, method, settings)
        done = gate_outcomes(table, replace(settings, threshold=threshold)) if once is None else once.at(threshold)
        return done, threshold, reason

    return averaged(
        table,
        method.name,
        decided,
        usable=usable,
        n=size,
        draws=draws,
        seed=seed,
        cross=pool is None,
        shared=once is not None,
    )


class Split(NamedTuple):
    """Outcomes of which some problems have the one and the others the other."""

    one: Outcomes
    other: Outcomes
    where: Bools
    """(n,): the problems that have the `one`."""
    fewer: Floats
    """(n,): tokens of the one minus those of the other."""
    gained: Floats
    """(n,): whether the one is right minus whether the other is."""


class _Once(NamedTuple):
    """A gate that decides once, whatever its threshold is."""

    stopped: Outcomes
    went_on: Outcomes
    never: Outcomes
    """Without a threshold nothing is probed."""
    fewer: Floats
    gained: Floats
    bits: Floats

    def at(self, threshold: float | None) -> Outcomes | Split:
        """The outcomes at a threshold."""
        if threshold is None:
            return self.never
        with np.errstate(invalid="ignore"):
            where = self.bits <= threshold
        return Split(self.stopped, self.went_on, where, self.fewer, self.gained)


def _once(table: Table, settings: GateSettings) -> _Once | None:
    """None if the gate may decide more than once, or not by its signal alone."""
    if settings.decide != "first" or settings.patience > 1 or settings.decider or settings.outlook:
        return None
    stops = np.zeros((2, len(table)), dtype=np.int64)
    stops[1] = min(settings.max_steps, table.steps) - 1
    deciding = replace(settings, threshold=0.0)
    one, other = (charged(table, at, table.probed(at, deciding)) for at in stops)
    never = gate_outcomes(table, replace(settings, threshold=None))
    bits = np.where(table.generated[:, 0] < settings.min_tokens, np.nan, table.bits[:, 0])
    return _Once(one, other, never, one.tokens - other.tokens, one.correct - other.correct, bits)


def averaged(
    table: Table,
    name: str,
    decided: Decided,
    *,
    usable: Ints,
    n: int,
    draws: int,
    seed: int,
    cross: bool,
    shared: bool = False,
) -> tuple[Draws, Outcomes]:
    """The mean outcomes over draws of `n` of the `usable` problems.

    `decided` returns the outcomes on the table for the problems of a draw, with threshold and reason. With `cross`,
    those problems are in the table and do not count in their draw. With `shared`, many draws have the same outcomes
    object, and these are added up only once.
    """
    never = outcomes(table, np.full(len(table), table.steps - 1))
    columns = ((field.name, getattr(never, field.name)) for field in fields(never))
    whole = {key: column for key, column in columns if isinstance(column, np.ndarray)}
    sums, counts = {key: np.zeros(len(table)) for key in whole}, np.full(len(table), float(draws))
    weights = dict[int, tuple[Outcomes, Floats]]()
    figures, thresholds, reasons = np.zeros((draws, 2)), list[float](), Counter[str]()
    full, final = float(table.spent[:, -1].sum()), table.correct[:, -1]

    def add(done: Outcomes, where: Bools | None, left_out: Ints) -> None:
        """Count the outcomes of the problems `where`, or of all, without those that are left out."""
        if not shared:
            for key, total in sums.items():
                column = getattr(done, key)
                total += column
                total[left_out] -= column[left_out]
            return
        weight = weights.setdefault(id(done), (done, np.zeros(len(table))))[1]
        weight += 1.0 if where is None else where
        weight[left_out] -= 1.0 if where is None else where[left_out]

    for number in range(draws):
        drawn = np.random.default_rng((seed, number)).choice(usable, size=n, replace=False)
        done, threshold, reason = decided(drawn)
        reasons[reason] += 1
        if threshold is not None:
            thresholds.append(threshold)
        left_out = drawn if cross else drawn[:0]
        counts[left_out] -= 1
        base, where = (done.other, done.where) if isinstance(done, Split) else (done, None)
        spent = float(base.tokens.sum() - base.tokens[left_out].sum())
        change = float((base.correct - final).sum() - (base.correct - final)[left_out].sum())
        if isinstance(done, Split) and where is not None:
            add(done.one, where, left_out)
            add(done.other, ~where, left_out)
            others = where.copy()
            others[left_out] = False
            spent, change = spent + float(done.fewer[others].sum()), change + float(done.gained[others].sum())
        else:
            add(base, None, left_out)
        rest = full - float(table.spent[left_out, -1].sum())
        figures[number] = 1 - spent / rest if rest > 0 else 0.0, change / max(len(table) - len(left_out), 1)
    for done, weight in weights.values():
        for key, total in sums.items():
            total += weight * getattr(done, key)
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


def _threshold(source: Table, index: Ints, method: Method, settings: GateSettings) -> tuple[float | None, str]:
    drawn = source.rows(index)
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
