"""Paired comparisons: bootstrap over problems and exact McNemar; and a proportion's interval."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from justenough.errors import InputError
from justenough.stats.drawing import generator
from justenough.stats.estimates import RESAMPLES, Bools, Estimate, Floats, Z

_AT_ONCE: Final = 40
"""Resamples whose counts are in memory together."""
_PRODUCTS: Final = 250_000
"""Products in one matrix multiplication: BLAS does so few in one thread. More threads would mostly wait."""


class McNemar(NamedTuple):
    """Discordant pairs and the exact two-sided p-value of their evenness."""

    only_first: int
    only_second: int
    p_value: float


def resampled_sums(columns: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Floats:
    """The sum of each column (n, m) in each resample of the n problems, shape (resamples, m): all columns in one pass.

    The resamples are those of `paired_bootstrap` and `saving_bootstrap` for the same seed.
    """
    if resamples < 1:
        raise InputError(f"resamples is {resamples}", hint="at least 1; some thousands give stable intervals")
    n, rng, sums = len(columns), generator(seed), np.zeros((resamples, columns.shape[1]))
    problems = max(1, _PRODUCTS // (_AT_ONCE * columns.shape[1]))
    for first in range(0, resamples, _AT_ONCE):
        # How often each problem enters each resample. None enters one 65,536 times.
        counts = np.empty((min(_AT_ONCE, resamples - first), n), dtype=np.uint16)
        for row in counts:
            row[:] = np.bincount(rng.integers(n, size=n), minlength=n)
        for begin in range(0, n, problems):
            part = slice(begin, begin + problems)
            sums[first : first + _AT_ONCE] += counts[:, part].astype(np.float64) @ columns[part]
    return sums


def mean_estimate(differences: Floats, sums: Floats) -> Estimate:
    """Mean of paired differences (n,) with the 95 % interval of its resampled sums (m,)."""
    low, high = np.quantile(sums / len(differences), (0.025, 0.975))
    return Estimate(float(differences.mean()), float(low), float(high), len(differences))


def saving_estimate(tokens: Floats, baseline: Floats, sums: Floats, baseline_sums: Floats) -> Estimate | None:
    """`1 - sum(tokens) / sum(baseline)` with the 95 % interval of the resampled sums (m,); None where the baseline
    spent nothing."""
    if not len(tokens) or baseline.sum() <= 0:
        return None
    low, high = np.quantile(1 - sums / np.maximum(baseline_sums, 1e-300), (0.025, 0.975))
    return Estimate(float(1 - tokens.sum() / baseline.sum()), float(low), float(high), len(tokens))


def paired_bootstrap(differences: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Mean of paired differences (n,) with a 95 % bootstrap interval; the unit of resampling is the problem."""
    n = len(differences)
    if not n:
        raise InputError("there is no problem to compare on", hint="give traces")
    sums = resampled_sums(differences[:, None], seed=seed, resamples=resamples)
    return mean_estimate(differences, sums[:, 0])


def saving_bootstrap(tokens: Floats, baseline: Floats, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate | None:
    """`1 - sum(tokens) / sum(baseline)` with a 95 % bootstrap interval; None where the baseline spent nothing."""
    if not len(tokens) or baseline.sum() <= 0:
        return None
    sums = resampled_sums(np.column_stack((tokens, baseline)), seed=seed, resamples=resamples)
    return saving_estimate(tokens, baseline, sums[:, 0], sums[:, 1])


def wilson(successes: float, n: int) -> Estimate | None:
    """A proportion with its 95 % Wilson interval; None for n = 0. Runs of one problem count as fractions of it."""
    if n <= 0:
        return None
    share, part = min(1.0, successes / n), Z * Z / n
    centre = (share + part / 2) / (1 + part)
    half = math.sqrt(part * share * (1 - share) + part * part / 4) / (1 + part)
    low, high = 0.0 if share <= 0 else centre - half, 1.0 if share >= 1 else centre + half
    return Estimate(share, low, high, n)


def mcnemar(first: Bools, second: Bools) -> McNemar:
    """Exact McNemar test of two paired gradings (n,)."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_first + only_second
    tail = ways = 1
    for count in range(min(only_first, only_second)):
        ways = ways * (discordant - count) // (count + 1)
        tail += ways
    # Whole numbers without a limit: the quotient is exact to the last bit.
    return McNemar(only_first, only_second, min(1.0, 2 * tail / 2**discordant))
