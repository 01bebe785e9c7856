"""The figures of a threshold that is fitted on a few examples, over many draws of the examples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.calibration.certified import NetControlled, RiskControlled
from justenough.calibration.thresholds import Method
from justenough.errors import InputError
from justenough.evaluation.figures import (
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
from justenough.stats.drawing import generator
from justenough.trace import Json

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
    drawn = drawn_from(usable, n=min(n, len(usable) if pool is not None else len(usable) // 2), draws=draws, seed=seed)
    if drawn.size:
        fits = [_threshold(source, row, method, settings) for row in drawn]
    else:
        fits = [(None, "too_few_right" if len(usable) else "no_signal")] * draws
    mean, once = Averaged(table, drawn, cross=pool is None), _once(table, settings)
    groups: dict[float | None, list[int]] = {}
    for number, (threshold, _) in enumerate(fits):
        groups.setdefault(math.inf if once is not None and threshold is not None else threshold, []).append(number)
    for threshold, numbers in groups.items():
        if once is not None and threshold is not None:
            mean.add_once(once, np.array([fits[number][0] for number in numbers], dtype=np.float64), numbers)
        else:
            mean.add(gate_outcomes(table, replace(settings, threshold=threshold)), numbers)
    return mean.result(method.name, fits)


class Once(NamedTuple):
    """A gate that decides once, whatever its threshold is."""

    stopped: Outcomes
    went_on: Outcomes
    bits: Floats


def _once(table: Table, settings: GateSettings) -> Once | None:
    """None if the gate may decide more than once, or not by its signal alone."""
    if settings.decide != "first" or settings.patience > 1 or settings.decider or settings.outlook:
        return None
    stops = np.zeros((2, len(table)), dtype=np.int64)
    stops[1] = min(settings.max_steps, table.steps) - 1
    deciding = replace(settings, threshold=0.0)
    stopped, went_on = (charged(table, at, table.probed(at, deciding)) for at in stops)
    return Once(stopped, went_on, np.where(table.generated[:, 0] < settings.min_tokens, np.nan, table.bits[:, 0]))


@lru_cache(maxsize=4)
def _places(count: int, n: int, draws: int, seed: int) -> Ints:
    rows = [generator(seed, number).choice(count, size=n, replace=False) for number in range(draws)]
    return np.array(rows, dtype=np.int64).reshape(draws, n)


def drawn_from(usable: Ints, *, n: int, draws: int, seed: int) -> Ints:
    """`draws` draws of `n` of the `usable` problems, (draws, n)."""
    return usable[_places(len(usable), n, draws, seed)]


class Averaged:
    """The mean outcomes over draws of labelled problems, (draws, n).

    With `cross` these problems are in the table, and each draw counts only for the others.
    """

    def __init__(self, table: Table, drawn: Ints, *, cross: bool) -> None:
        self._table, self._drawn = table, drawn
        self._left_out = drawn if cross else drawn[:, :0]
        self._never = outcomes(table, np.full(len(table), table.steps - 1))
        columns = ((field.name, getattr(self._never, field.name)) for field in fields(self._never))
        self._whole = {key: column for key, column in columns if isinstance(column, np.ndarray)}
        self._sums = {key: np.zeros(len(table)) for key in self._whole}
        self._figures = np.zeros((len(drawn), 2))

    def add(self, done: Outcomes, numbers: Sequence[int]) -> None:
        """Count the outcomes of the draws of these numbers."""
        left_out = self._left_out[numbers]
        self._add(done, self._others(left_out))
        columns = done.tokens, done.correct - self._never.final
        self._count(numbers, *(column.sum() - column[left_out].sum(axis=1) for column in columns))

    def add_once(self, once: Once, thresholds: Floats, numbers: Sequence[int]) -> None:
        """Count the outcomes of a gate that decides once, with the threshold of each of these draws."""
        left_out, order = self._left_out[numbers], np.argsort(once.bits)
        stopping = once.bits[left_out] <= thresholds[:, None]
        stopped = len(thresholds) - np.searchsorted(np.sort(thresholds), once.bits).astype(np.float64)
        np.subtract.at(stopped, left_out[stopping], 1.0)
        self._add(once.stopped, stopped)
        self._add(once.went_on, self._others(left_out) - stopped)
        # A missing signal sorts last, so the problems that stop are always the first ones.
        places = np.searchsorted(once.bits[order], thresholds, side="right")

        def summed(one: Floats, other: Floats) -> Floats:
            more = one - other
            sums: Floats = np.concatenate(([0.0], np.cumsum(more[order])))[places]
            total: Floats = other.sum() - other[left_out].sum(axis=1) + sums
            here: Floats = np.where(stopping, more[left_out], 0.0).sum(axis=1)
            return total - here

        final = self._never.final
        tokens = summed(once.stopped.tokens, once.went_on.tokens)
        self._count(numbers, tokens, summed(once.stopped.correct - final, once.went_on.correct - final))

    def _others(self, left_out: Ints) -> Floats:
        """In how many of these draws each problem is not among the labelled ones."""
        weight = np.full(len(self._table), float(len(left_out)))
        np.subtract.at(weight, left_out.ravel(), 1.0)
        return weight

    def _add(self, done: Outcomes, weight: Floats) -> None:
        for key, total in self._sums.items():
            total += weight * getattr(done, key)

    def _count(self, numbers: Sequence[int], tokens: Floats, change: Floats) -> None:
        """The figures of draws, from the tokens and the change in right answers of the problems that they decide."""
        left_out, full = self._left_out[numbers], self._table.spent[:, -1]
        rest = full.sum() - full[left_out].sum(axis=1)
        self._figures[numbers, 0] = np.where(rest > 0, 1 - tokens / np.where(rest > 0, rest, 1.0), 0.0)
        self._figures[numbers, 1] = change / max(len(self._table) - left_out.shape[1], 1)

    def result(self, name: str, fits: Sequence[tuple[float | None, str]]) -> tuple[Draws, Outcomes]:
        """The figures over all draws, with the threshold and the outcome's name of each, and the mean outcomes."""
        counts = self._others(self._left_out)
        means = {
            key: np.where(counts > 0, total / np.maximum(counts, 1), self._whole[key])
            for key, total in self._sums.items()
        }
        thresholds = [threshold for threshold, _ in fits if threshold is not None]
        reasons = Counter(reason for _, reason in fits)
        refused = sum(count for reason, count in reasons.items() if reason not in ("ok", "collapses_to_mean"))
        summary = Draws(
            method=name,
            n=self._drawn.shape[1],
            draws=len(fits),
            saving=spread_of(self._figures[:, 0]),
            accuracy_change=spread_of(self._figures[:, 1]),
            threshold=spread_of(np.array(thresholds)) if thresholds else None,
            refused=refused / len(fits),
            reasons=dict(sorted(reasons.items())),
            savings=tuple(self._figures[:, 0].tolist()),
            changes=tuple(self._figures[:, 1].tolist()),
        )
        # The names are those of the fields.
        return summary, replace(self._never, averaged=True, **means)  # type: ignore[arg-type]


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
            drawn = generator(seed, n, number).choice(usable, size=n, replace=False)
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
    if settings.decide == "every" and isinstance(method, RiskControlled | NetControlled):
        certified = method.fit_every(source.rows(index).checkpoints(settings))
        return certified.threshold, certified.reason
    examples = source.examples(index)
    outcome = method.fit(examples)
    if outcome.threshold is None:
        return None, outcome.reason
    # With fewer examples the verdict is `cannot tell`, which does not refuse.
    if outcome.guarantee is None and min(len(examples.right), len(examples.wrong)) >= MINIMUM_OF_EACH:
        groups = None if source.groups is None else [source.groups[place] for place in index.tolist()]
        evidence = separation(examples.entropy, examples.correct, groups=groups)
        if evidence.gating_refused:
            return None, "gating_refused"
    return outcome.threshold, outcome.reason


def spread_of(values: NDArray[np.float64]) -> Spread:
    """Mean, 5th and 95th percentile of values (n,)."""
    low, high = np.quantile(values, (0.05, 0.95))
    return Spread(mean=float(values.mean()), p5=float(low), p95=float(high))
