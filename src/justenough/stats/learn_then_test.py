"""Learn-then-Test (Angelopoulos et al., arXiv 2110.01052): certifies the risk of a setting on calibration data.

The sequence of settings λ is fixed beforehand. The null hypothesis of each is "its risk exceeds `level`". The settings
are tested in order, each at the whole error, until one is not rejected. Then the chance that *any* rejected setting has
a greater risk is at most that error, however the risk depends on λ. A good order only gives power.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The last setting that passed: its risk is at most `level`, with the stated confidence over calibration sets."""

    setting: float
    level: float
    confidence: float
    n: int
    risk: float
    """Mean loss on the calibration data."""


def p_value(losses: Floats, level: float) -> float:
    """A valid p-value of "the mean of these independent losses (n,) in [0, 1] exceeds `level`".

    Exact binomial where every loss is 0 or 1, else the Hoeffding-Bentkus bound.
    """
    if losses.ndim != 1 or not len(losses) or not 0 < level < 1:
        raise InputError(f"losses of shape {losses.shape} at level {level}", hint="one loss a problem")
    if not ((losses >= 0) & (losses <= 1)).all():
        raise InputError("a loss is outside 0 to 1", hint="scale the losses")
    n, total = len(losses), losses.sum()
    if ((losses == 0) | (losses == 1)).all():
        return float(binomial(np.array([total]), n, level)[0])
    return float(hoeffding_bentkus(np.array([total / n]), n, level)[0])


def binomial(counts: Floats | NDArray[np.int64], n: int, level: float) -> Floats:
    """Exact p-values of "the risk exceeds `level`" for each number of losses (m,) among n that are 0 or 1."""
    from scipy.special import bdtr

    return np.asarray(bdtr(counts.astype(np.float64), n, level), dtype=np.float64)


def hoeffding_bentkus(means: Floats, n: int, level: float) -> Floats:
    """p-values of "the risk exceeds `level`" for each mean (m,) of n losses in [0, 1].

    The smaller of Hoeffding's and Bentkus's bound (Bates et al. 2021, arXiv 2101.02703, section 3.1; arXiv 2110.01052,
    proposition 2).
    """
    from scipy.special import rel_entr

    below = np.minimum(means, level)
    hoeffding = np.exp(-n * (rel_entr(below, level) + rel_entr(1 - below, 1 - level)))
    # Rounding can lift a sum just above a whole number.
    bentkus = math.e * binomial(np.ceil(n * means - 1e-9), n, level)
    smaller: Floats = np.minimum(hoeffding, bentkus)
    return smaller


def certify(sequence: Iterable[tuple[float, Floats]], *, level: float, confidence: float) -> Certificate | None:
    """Test settings with their losses (n,) in order up to the first failure; None if the first setting fails.

    The sequence may be lazy: it is not read behind the first failure.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence {confidence} is outside 0 to 1", hint="0.95 is usual")
    passed: Certificate | None = None
    for setting, losses in sequence:
        if p_value(losses, level) > 1 - confidence:
            break
        passed = Certificate(
            setting=setting, level=level, confidence=confidence, n=len(losses), risk=float(losses.mean())
        )
    return passed
