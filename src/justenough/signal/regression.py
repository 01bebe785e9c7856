"""A logistic regression on standardised inputs: what a combination and a decider have in common."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Final, TypedDict

import numpy as np
from numpy.typing import NDArray

from justenough.errors import InputError
from justenough.files import Json
from justenough.stats.logistic import logistic

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FLAT: Final = 1e-9
"""A standard deviation up to this is none."""
_FREE: Final = 1e-9
"""The penalty of the intercept: next to none."""


class Numbers(TypedDict):
    """The fitted numbers of a regression."""

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """`P = 1 / (1 + exp(-(intercept + Σ weight · (input - centre) / scale)))`."""

    centre: tuple[float, ...]
    """Mean of each input."""
    scale: tuple[float, ...]
    """Standard deviation of each input."""
    weights: tuple[float, ...]
    """Change of the log-odds with one standard deviation of each input."""
    intercept: float
    """In log-odds."""
    n: int
    """Labelled examples that it was fitted on."""

    def __post_init__(self) -> None:
        if len({len(self.centre), len(self.scale), len(self.weights)}) > 1:
            raise InputError("a regression needs a centre, a scale and a weight for each input", hint="fit it again")
        numbers = (*self.centre, *self.scale, *self.weights, self.intercept)
        if not all(math.isfinite(value) for value in numbers) or min(self.scale, default=1.0) <= 0:
            raise InputError("numbers on the inputs must be finite, and scales above 0", hint="fit it again")

    def to_json(self) -> dict[str, Json]:
        """A JSON object."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def standardised(table: Floats) -> tuple[Floats, Floats, Floats]:
    """Inputs (n, p) with mean 0 and standard deviation 1, and the centre and scale (p,) that do so."""
    centre, scale = table.mean(axis=0), table.std(axis=0)
    scale[scale < FLAT] = 1.0
    return (table - centre) / scale, centre, scale


def ridge(scaled: Floats, labels: Bools, penalty: float) -> Floats:
    """Intercept and weights (1 + p,) of P(label) on standardised inputs (n, p)."""
    return logistic(scaled, labels, penalty=(_FREE, *[penalty] * scaled.shape[1]))


def fitted(table: Floats, labels: Bools, *, penalty: float) -> Numbers:
    """Fit P(label) on inputs (n, p)."""
    scaled, centre, scale = standardised(table)
    intercept, *weights = ridge(scaled, labels, penalty).tolist()
    return Numbers(
        centre=tuple(centre.tolist()), scale=tuple(scale.tolist()), weights=tuple(weights), intercept=intercept
    )
