"""A calibrated combination of poolings and length: P(step 1 is wrong), by a logistic regression on labelled steps.

It is frozen: its few numbers are stored in a calibration file. The gate computes the same value from a step's tokens
as a replay computes from the recorded step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from justenough.errors import InputError, NotEnoughExamples
from justenough.files import Json, read_as
from justenough.signal.pooling import POOLINGS, Field, Measured, pool
from justenough.signal.regression import FLAT, Bools, Floats, Regression, fitted

MINIMUM: Final = 100
"""Labelled steps below which no combination is fitted."""
MINIMUM_OF_EACH: Final = 10
RIDGE: Final = 1.0
LENGTH: Final = "length"
RECORDED: Final = "recorded"
"""The stand-in scalar, for steps without token entropies."""

NAMES: Final = (*POOLINGS, RECORDED, LENGTH)
"""Names of all inputs."""

_SMALL: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination(Regression):
    """`P(wrong) = 1 / (1 + exp(-(intercept + Σ weight · (ln(input + 0.001) - centre) / scale)))`.

    The inputs are named poolings in bits, `length` in tokens, or `recorded`, a stand-in scalar.
    """

    inputs: tuple[str, ...]
    """Names of the inputs."""

    def __post_init__(self) -> None:
        if not self.inputs or len(self.inputs) != len(self.centre):
            raise InputError("a combination needs a centre, a scale and a weight for each input", hint="fit it again")
        if unknown := [name for name in self.inputs if name not in NAMES]:
            raise InputError(f"unknown input {unknown[0]!r} of a combination", hint=f"one of {', '.join(POOLINGS)}")
        Regression.__post_init__(self)

    @property
    def needs(self) -> tuple[Field, ...]:
        """Fields of a step that the inputs need."""
        return tuple(dict.fromkeys(POOLINGS[name].needs for name in self.inputs if name in POOLINGS))

    def value(self, measured: Measured) -> float | None:
        """P(wrong) of a step, 0 to 1; None if an input is missing."""
        return self._of(inputs_of(measured, self.inputs))

    def of_all(self, row: Sequence[float]) -> float | None:
        """P(wrong) from `inputs_of` all names."""
        return self._of([row[NAMES.index(name)] for name in self.inputs])

    def _of(self, row: Sequence[float]) -> float | None:
        odds = self.intercept + math.fsum(
            weight * (value - centre) / scale
            for value, centre, scale, weight in zip(row, self.centre, self.scale, self.weights, strict=True)
        )
        return None if math.isnan(odds) else 1 / (1 + math.exp(-max(-500.0, min(500.0, odds))))


def combination_from_json(value: Json) -> Combination:
    """Read a combination's JSON object; raises `InputError` that names the key."""
    return read_as(value, Combination, where="combination", hint="fit it again")


def inputs_of(measured: Measured, names: Sequence[str] = NAMES) -> tuple[float, ...]:
    """The inputs of a combination: the logarithm of each; NaN if the step does not have it."""
    return tuple(_input(measured, name) for name in names)


def _input(measured: Measured, name: str) -> float:
    if name == LENGTH:
        value: float | None = measured.length
    elif name == RECORDED:
        value = measured.scalar
    else:
        value = pool(measured, name) if measured.entropies else None
    # Uncertainty spans orders of magnitude: most tokens of a sure model have almost none.
    return math.log(value + _SMALL) if value is not None and 0 <= value < math.inf else math.nan


def fit_rows(rows: Floats, correct: Bools, *, inputs: Sequence[str] | None = None) -> Combination:
    """Fit on the `inputs_of` labelled steps, (n, p), NaN for a missing input; by default on all inputs without NaN.

    Raises `NotEnoughExamples` if there are fewer than 100 labels, or fewer than 10 of one kind.
    """
    n, right = len(rows), int(correct.sum())
    lacking = max(MINIMUM - n, MINIMUM_OF_EACH - right, MINIMUM_OF_EACH - (n - right))
    if lacking > 0:
        raise NotEnoughExamples(
            f"a combination takes {MINIMUM} labels, {MINIMUM_OF_EACH} of them right and {MINIMUM_OF_EACH} wrong; there"
            f" are {n}, {right} right",
            needed=lacking,
            hint="with fewer, take one pooling: mean",
        )
    usable = [name for place, name in enumerate(NAMES) if not np.isnan(rows[:, place]).any()]
    chosen = usable if inputs is None else list(inputs)
    if not chosen or not set(chosen) <= set(usable):
        raise InputError(
            f"the steps cannot give {', '.join(chosen) or 'any input of a combination'}", hint="collect again"
        )
    table = rows[:, [NAMES.index(name) for name in chosen]]
    varying = np.flatnonzero(table.std(axis=0) > FLAT)
    if not len(varying):
        raise InputError("every step has the same signal", hint="see `justenough diagnose`")
    names = tuple(chosen[int(at)] for at in varying)
    return Combination(inputs=names, n=n, **fitted(table[:, varying], ~correct, penalty=RIDGE))
