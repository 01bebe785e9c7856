"""The budget curve: the accuracy of each policy at the same total of tokens, and which problems get the steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.budget import Recorded, Sweep, stops_at_the_mean, sweep
from justenough.evaluation import Table
from justenough.gate import GateSettings
from justenough.report.words import bits
from justenough.stats.drawing import generator

DRAWS: Final = 4
POINTS: Final = 8
MOST: Final = 2000
"""Most problems that are replayed; with more, a sample of this size is fast and precise enough."""
FEWEST: Final = 20
FIFTHS: Final = 5
MOST_GROUPS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Policies at equal totals."""

    sweep: Sweep
    problems_in_all: int
    """Number of problems; `sweep.problems` of them are replayed."""
    calibrated: bool
    """Whether early stopping uses the calibration's gate; otherwise the entropy mean of the other folds."""

    @property
    def groupings(self) -> tuple[str, ...]:
        """Ways in which the problems are grouped."""
        return tuple(self.sweep.rows[0].groups)

    @property
    def shown(self) -> int:
        """The total that the page shows first: the smallest at which policies can differ."""
        return self.sweep.totals[1]


def budget_of(table: Table, settings: GateSettings, *, calibrated: bool, seed: int, quantity: str) -> Budget | None:
    """Replay each policy on the problems; None without tokens to divide, or with too few problems."""
    usable = np.isfinite(table.bits[:, 0])
    if table.steps < 2 or len(table) < FEWEST or usable.sum() < FEWEST or not table.spent[:, -1].sum():
        return None
    sample = np.sort(generator(seed, 6).permutation(len(table))[:MOST])
    part = table if len(table) <= MOST else table.rows(sample)
    replayed = recorded(part, model="")
    if replayed.cost("tokens")[:, 1:].sum() < 1 or not np.isfinite(part.bits[:, 0]).sum() >= FEWEST:
        return None
    stops = part.stops(settings) + 1 if calibrated else stops_at_the_mean(replayed, seed=seed)
    swept = sweep(replayed, points=POINTS, draws=DRAWS, seed=seed, stops=stops.tolist(), groups=groups(part, quantity))
    return Budget(sweep=swept, problems_in_all=len(table), calibrated=calibrated)


def recorded(table: Table, *, model: str) -> Recorded:
    """The columns of the table in the form that the budget replay reads."""
    tokens = np.maximum.accumulate(table.spent, axis=1)
    going = np.diff(table.generated, axis=1) > 0
    last = table.steps - 1 - going[:, ::-1].argmax(axis=1)
    limits = np.diff(tokens, axis=1, prepend=0.0).max(axis=0)
    return Recorded(
        ids=tuple(f"{row:09}" for row in range(len(table))),
        model=model,
        signal=table.signal,
        bits=table.bits,
        correct=table.correct,
        tokens=tokens,
        lengths=tuple(np.where(going.any(axis=1), last + 1, 1).tolist()),
        limits=tuple(max(1, int(limit)) for limit in limits),
    )


def groups(table: Table, quantity: str) -> dict[str, Sequence[str]]:
    """Groups by fifths of the signal at step 1, and by the recorded groups if there are only a few."""
    groupings: dict[str, Sequence[str]] = {f"{quantity} of step 1": fifths(table.bits[:, 0])}
    if table.groups is not None and 2 <= len(set(table.groups)) <= MOST_GROUPS:
        groupings["level"] = table.groups
    return groupings


def fifths(values: NDArray[np.float64]) -> list[str]:
    """For each value (n,), the range of its fifth; equal values share a fifth."""
    finite = values[np.isfinite(values)]
    edges = np.unique(np.quantile(finite, np.linspace(0, 1, FIFTHS + 1), method="lower"))
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0]])
    place = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, len(edges) - 2)
    return [
        f"{bits(float(edges[at]))} to {bits(float(edges[at + 1]))}" if np.isfinite(value) else "no signal"
        for at, value in zip(place.tolist(), values.tolist(), strict=True)
    ]


def sorted_groups(names: Sequence[str]) -> list[str]:
    """Fifths from low to high, levels by name; the group without a signal comes last."""

    def key(name: str) -> tuple[bool, float, str]:
        low = 0.0
        with suppress(ValueError):
            low = float(name.partition(" to ")[0])
        return (name == "no signal", low, name)

    return sorted(names, key=key)
