"""The budget curve: what each policy makes of the same total of tokens on these problems, and who got how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from justenough.budget import Recorded, Sweep, stops_at_the_mean, sweep
from justenough.evaluation import Table
from justenough.gate import GateSettings
from justenough.report.words import bits

DRAWS: Final = 4
POINTS: Final = 8
MOST: Final = 2000
"""Problems replayed: a sample of this many says as much, and in time."""
FEWEST: Final = 20
FIFTHS: Final = 5
MOST_GROUPS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Policies at equal totals."""

    sweep: Sweep
    of: int
    """Problems that there are; `sweep.problems` of them were replayed."""
    calibrated: bool
    """Whether early stopping is the calibration's gate; else it is the entropy mean of the other folds."""

    @property
    def groupings(self) -> tuple[str, ...]:
        """Ways in which the problems are grouped."""
        return tuple(self.sweep.rows[0].groups)

    @property
    def shown(self) -> int:
        """The total that is looked at first: the scarcest at which there is something to choose."""
        return self.sweep.totals[1]


def budget_of(table: Table, settings: GateSettings, *, calibrated: bool, seed: int, quantity: str) -> Budget | None:
    """Replay every policy on the problems; None where there is nothing to give away or too little to tell."""
    usable = np.isfinite(table.bits[:, 0])
    if table.steps < 2 or len(table) < FEWEST or usable.sum() < FEWEST or not table.spent[:, -1].sum():
        return None
    if len(table) > MOST:
        chosen = np.sort(np.random.default_rng((seed, 6)).permutation(len(table))[:MOST])
        part = table.rows(chosen)
    else:
        part = table
    held = recorded(part, model="")
    if held.cost("tokens")[:, 1:].sum() < 1 or not np.isfinite(part.bits[:, 0]).sum() >= FEWEST:
        return None
    stops = part.stops(settings) + 1 if calibrated else stops_at_the_mean(held, seed=seed)
    made = sweep(held, points=POINTS, draws=DRAWS, seed=seed, stops=stops.tolist(), groups=groups(part, quantity))
    return Budget(sweep=made, of=len(table), calibrated=calibrated)


def recorded(table: Table, *, model: str) -> Recorded:
    """The table's columns as the budget's replay reads them."""
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
    """By the signal of step 1, in fifths, and by the recorded groups where they are few."""
    made: dict[str, Sequence[str]] = {f"{quantity} of step 1": fifths(table.bits[:, 0])}
    if table.groups is not None and 2 <= len(set(table.groups)) <= MOST_GROUPS:
        made["level"] = table.groups
    return made


def fifths(values: NDArray[np.float64]) -> list[str]:
    """The range of the fifth that each value (n,) is in; equal values share one."""
    known = values[np.isfinite(values)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, FIFTHS + 1), method="lower"))
    if len(edges) < 2:
        edges = np.array([edges[0], edges[0]])
    place = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, len(edges) - 2)
    return [
        f"{bits(float(edges[at]))} to {bits(float(edges[at + 1]))}" if np.isfinite(value) else "no signal"
        for at, value in zip(place.tolist(), values.tolist(), strict=True)
    ]


def sorted_groups(names: Sequence[str]) -> list[str]:
    """Fifths from low to high, levels by name; what has no signal last."""

    def key(name: str) -> tuple[bool, float, str]:
        head = name.partition(" to ")[0]
        try:
            return (name == "no signal", float(head), name)
        except ValueError:
            return (name == "no signal", 0.0, name)

    return sorted(names, key=key)
