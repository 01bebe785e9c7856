"""Exact tests of the cost of stopping: of harm alone, and of harm minus rescue.

The net test is unconditional. Its region is a set of counts (harms, rescues), taken in Tango's order. It is as large as
possible while its probability stays within the error for every rescue rate. It always contains the counts that pass
the test of harm alone, because harm ≤ ε implies harm - rescue ≤ ε.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.stats.estimates import Bools, Floats

Ints = NDArray[np.int64]

_FIRST_WIDTH: Final = 0.3
_LAST_WIDTH: Final = 0.02
_LEAST_WIDTH: Final = 1e-5
"""Widths of a cell of rescue rates, in standard errors of the net change: at first, of many cells, of a few."""
_MANY: Final = 10_000
"""With more labels the last width and the steps of the search grow with √n: they stay the same in accuracy."""
_FEW: Final = 16
_TAIL: Final = 1e-9
"""Chance of the counts that the sums leave out; it is added to every result."""
_AT_ONCE: Final = 50_000
"""Counts whose chances are added together: few enough to stay in the processor's cache."""
_STEP: Final = 0.01
"""Of the search for the critical score."""


def most_harms(n: int, *, limit: float, error: float) -> int:
    """The largest number of harms among n that passes the exact binomial test of harm ≤ `limit`; -1 if even 0 fails."""
    from scipy.special import bdtr

    _check(n, limit, error)
    low, high = -1, n
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if bdtr(middle, n, limit) <= error else (low, middle - 1)
    return low


@lru_cache(maxsize=64)
def most_net_harms(n: int, *, limit: float, error: float) -> Ints:
    """The largest number of harms that passes the test of harm - rescue ≤ `limit`, for each count of rescues 0…n.

    Shape (n + 1,), read-only; -1 if even 0 fails. If the true net change exceeds `limit`, the test passes with a
    probability of at most `error`, whatever the rescue rate.
    """
    from scipy.special import ndtri

    alone = most_harms(n, limit=limit, error=error)
    rates, _ = _cells(n, limit)

    def region(critical: float) -> Ints:
        return _region(n, limit, critical, alone)

    # The least critical score that single rates do not rule out, in steps from the normal quantile.
    critical, step = float(-ndtri(error)), _STEP * _widening(n)
    while critical > 0 and not _above(region(critical - step), n, rates + limit, rates, error, enough=1).any():
        critical -= step
    # From there upwards to the first critical score that the bound for all rates allows.
    counts, tested = region(critical), None
    while (refuted := _refuted(counts, n, limit, error, tested)) is not None:
        # The cells that refuted one critical score often refute the next one too.
        while not (settled := bool((counts == alone).all())):
            critical += step
            step *= 1.25
            counts = region(critical)
            above = _above(counts, n, refuted.low + limit, refuted.high, error, enough=refuted.least)
            if above.sum() < refuted.least:
                tested = _Tested(refuted.low, refuted.high, above)
                break
        if settled:
            break
    counts.flags.writeable = False
    return counts


def passes_net(harms: Ints, rescues: Ints, n: int, *, limit: float, error: float) -> Bools:
    """Whether counts of harms and rescues among n certify harm - rescue ≤ `limit`; all of one shape."""
    passing: Bools = harms <= most_net_harms(n, limit=limit, error=error)[rescues]
    return passing


def _check(n: int, limit: float, error: float) -> None:
    if n < 1 or not 0 < limit < 1 or not 0 < error < 1:
        raise InputError(f"n {n}, limit {limit}, error {error}", hint="n at least 1, the others between 0 and 1")


def _region(n: int, limit: float, critical: float, alone: int) -> Ints:
    """The most harms for each count of rescues whose score is at least `critical`, never fewer than `alone`."""
    rescues = np.arange(n + 1)
    low, high = np.full(n + 1, -1), n - rescues
    while (low < high).any():
        middle = (low + high + 1) // 2
        reached = _score(middle, rescues, n, limit) >= critical
        low, high = np.where(reached, middle, low), np.where(reached, high, middle - 1)
    # One rescue more never makes it harder to pass: then the chance is greatest where the net change is the limit.
    return np.maximum.accumulate(np.maximum(low, alone))


def _score(harms: Ints, rescues: Ints, n: int, limit: float) -> Floats:
    """Tango's score against a net change of `limit`, as `tango_score` for arrays."""
    change = -limit
    b = -(rescues + harms) + (2 * n - rescues + harms) * change
    c = -harms * change * (1 - change)
    lost = (np.sqrt(np.maximum(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * lost + change * (1 - change))
    distance = rescues - harms - n * change
    with np.errstate(divide="ignore", invalid="ignore"):
        # Without variance the score is infinite, or no number where there is no distance either: that never passes.
        score: Floats = distance / np.sqrt(np.maximum(variance, 0.0))
    return score


class _Tested(NamedTuple):
    """Cells of rescue rates, and whether the chance of the region exceeds the error in each."""

    low: Floats
    high: Floats
    above: Bools


class _Refuted(NamedTuple):
    """Cells of rescue rates that show that a region is too large."""

    low: Floats
    high: Floats
    least: int
    """How many of them suffice."""


def _refuted(region: Ints, n: int, limit: float, error: float, tested: _Tested | None) -> _Refuted | None:
    """None if the chance of the region is at most `error` for every rescue rate at a net change of `limit`.

    Cells that are already `tested` are not tested again.

    Within a cell of rescue rates [a, b] the chance is at most that of harm a + limit and rescue b, since the region is
    monotone. Cells whose bound exceeds the error are halved. Cells that stay above it at the last width count as a
    violation: the answer may be too strict by about 0.002 (more with many labels), but never too lax.
    """
    low, high = _cells(n, limit)
    width, last = _first_width(n), _LAST_WIDTH * _widening(n)
    while True:
        if tested is not None and np.array_equal(tested.low, low) and np.array_equal(tested.high, high):
            above = tested.above
        else:
            above = _above(region, n, low + limit, high, error)
        low, high = low[above], high[above]
        if not len(low):
            return None
        if width <= (last if len(low) > _FEW else _LEAST_WIDTH):
            return _Refuted(low, high, _FEW + 1 if len(low) > _FEW else 1)
        if len(point := low[_above(region, n, low + limit, low, error)]):
            return _Refuted(point, point, 1)
        middle, width = (low + high) / 2, width / 2
        low, high = np.concatenate((low, middle)), np.concatenate((middle, high))


def _widening(n: int) -> float:
    """How many times wider the last width is with that many labels."""
    return 2 * math.sqrt(n / _MANY) if n > _MANY else 1.0


def _first_width(n: int) -> float:
    """With many labels nearly all cells would be halved, so they begin with the last width."""
    return _LAST_WIDTH * _widening(n) if n > _MANY else _FIRST_WIDTH


def _cells(n: int, limit: float) -> tuple[Floats, Floats]:
    """Lower and upper ends of the first cells of rescue rates, which cover 0 to (1 - limit) / 2."""
    # Equal steps of the square root of the discordance are equal numbers of standard errors.
    ends = math.sqrt(limit), 1.0
    count = max(1, math.ceil(math.sqrt(n) * (ends[1] - ends[0]) / _first_width(n)))
    edges = np.maximum(0.0, (np.linspace(*ends, count + 1) ** 2 - limit) / 2)
    return edges[:-1], edges[1:]


def _above(region: Ints, n: int, harm: Floats, rescue: Floats, error: float, *, enough: int | None = None) -> Bools:
    """Whether the chance of the region, or a little more, exceeds the error at each pair of rates (m,).

    After `enough` pairs at which it does, the rest may be left out.
    """
    half = 6.5 * np.sqrt(n * rescue * (1 - rescue)) + 12
    first = np.maximum(0, np.floor(n * rescue - half)).astype(np.int64)
    last = np.minimum(n, np.ceil(n * rescue + half)).astype(np.int64)
    part = np.cumsum(last - first + 1) // _AT_ONCE
    above = np.zeros(len(rescue), dtype=np.bool_)
    for chosen in np.split(np.arange(len(part)), np.flatnonzero(np.diff(part)) + 1):
        chances = _sums(region, n, harm[chosen], rescue[chosen], first[chosen], last[chosen]) + _TAIL
        above[chosen] = chances > error
        if enough is not None and above.sum() >= enough:
            break
    return above


def _sums(region: Ints, n: int, harm: Floats, rescue: Floats, first: Ints, last: Ints) -> Floats:
    """The chance of the region with `first` to `last` rescues, at each pair of rates (m,)."""
    from scipy.special import bdtr

    counts = last - first + 1
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    cell = np.repeat(np.arange(len(rescue)), counts)
    rescues = np.arange(int(counts.sum())) - starts[cell] + first[cell]
    # Of the problems without rescue, each is harmful with this chance.
    share = np.minimum(1.0, harm / np.maximum(1 - rescue, 1e-300))
    # P(harms ≤ k | rescues) at the first count of a cell, then its growth from one count to the next:
    # F(k; N - 1) = F(k; N) + q b(k; N - 1) and F(k + 1; N) = F(k; N) + b(k + 1; N).
    most, rest = region[rescues], n - rescues
    odds = _logs(share, cell)
    before = region[np.maximum(rescues - 1, 0)]
    growth = share[cell] * _binomial(before, rest, odds)
    steps = most - before
    for step in range(1, int(steps.max(initial=0)) + 1):
        at = np.flatnonzero(steps >= step)
        growth[at] += _binomial(before[at] + step, rest[at], (odds[0][at], odds[1][at]))
    at_first = np.where(most[starts] < 0, 0.0, bdtr(np.clip(most[starts], 0, rest[starts]), rest[starts], share))
    growth[starts] = 0.0
    total = np.cumsum(growth)
    below = np.clip(total - (total[starts] - at_first)[cell], 0.0, 1.0)
    chances = _binomial(rescues, np.full(len(rescues), n), _logs(rescue, cell))
    sums: Floats = np.add.reduceat(chances * below, starts)
    return sums


def _logs(chance: Floats, cell: Ints) -> tuple[Floats, Floats]:
    """Logarithms of the chance of each cell and of its complement."""
    with np.errstate(divide="ignore"):
        logs: tuple[Floats, Floats] = np.log(chance)[cell], np.log1p(-chance)[cell]
    return logs


def _binomial(k: Ints, n: Ints, odds: tuple[Floats, Floats]) -> Floats:
    """Chance of k out of n, from the logarithms of the chance of one and of its complement; 0 outside 0…n."""
    logs, others = _log_factorials(int(n.max(initial=0))), n - k
    if k.min(initial=1) > 0 and others.min(initial=1) > 0:
        chances: Floats = np.exp(logs[n] - logs[k] - logs[others] + (k * odds[0] + others * odds[1]))
        return chances
    inside = (k >= 0) & (others >= 0)
    k = np.where(inside, k, 0)
    with np.errstate(invalid="ignore"):
        # Without a chance or without its complement the other term is 0 · -inf, which counts as 0.
        exponent = np.where(k > 0, k * odds[0], 0.0) + np.where(n > k, (n - k) * odds[1], 0.0)
    return np.where(inside, np.exp(logs[n] - logs[k] - logs[n - k] + exponent), 0.0)


@lru_cache(maxsize=8)
def _log_factorials(n: int) -> Floats:
    from scipy.special import gammaln

    logs: Floats = gammaln(np.arange(n + 1) + 1.0)
    return logs
