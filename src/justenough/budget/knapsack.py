"""The multiple-choice knapsack: the numbers of steps with the largest sum of gains."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.budget.curves import Floats

ROUNDING: Final = 1e-12
"""A gain below this counts as 0."""
CORE: Final = 24
"""Number of problems that are solved together exactly, around the price at which the budget runs out."""


def optimum(gain: Floats, cost: Floats, *, room: float) -> NDArray[np.int64]:
    """Steps (n,) that maximise Σ gain (n, K) under Σ cost (n, K) ≤ room; column 0, step 1, has neither.

    The linear relaxation is solved first (steps on each problem's concave hull, by gain per cost: Sinha & Zoltners
    1979), then the problems at the margin, the core, as an integer programme (Balas & Zemel 1980). With at most `CORE`
    problems this is the exact optimum. It is faster than SciPy's `milp` and within 1e-5 of it.
    """
    n = len(gain)
    pieces = [piece for i in range(n) for piece in _hull(gain[i], cost[i], i)]
    pieces.sort(key=lambda piece: (-piece.rate, piece.problem, piece.to))
    steps = np.ones(n, dtype=np.int64)
    spent, margin = 0.0, None
    ended: set[int] = set()
    for piece in pieces:
        if piece.problem in ended:
            continue
        if spent + piece.cost <= room:
            spent += piece.cost
            steps[piece.problem] = piece.to
            continue
        ended.add(piece.problem)
        # The relaxation ends at the first piece that does not fit; cheaper pieces fill the rest.
        margin = piece.rate if margin is None else margin
    if margin is None:
        return steps
    nearest: dict[int, float] = {}
    for piece in pieces:
        nearest[piece.problem] = min(nearest.get(piece.problem, np.inf), abs(piece.rate - margin))
    core = np.array(sorted(nearest, key=lambda problem: (nearest[problem], problem))[:CORE])
    rows = np.arange(n)
    others = np.ones(n, dtype=np.bool_)
    others[core] = False
    left = room - float(cost[rows, steps - 1][others].sum())
    better = _exact(gain[core], cost[core], room=left, rate=margin, above=float(gain[core, steps[core] - 1].sum()))
    if better is not None:
        steps[core] = better
    return steps


class _Piece(NamedTuple):
    """The line from one corner of a problem's hull to the next."""

    problem: int
    to: int
    gain: float
    cost: float

    @property
    def rate(self) -> float:
        """Gain per cost."""
        return self.gain / max(self.cost, 1e-300)


def _hull(gain: Floats, cost: Floats, problem: int) -> list[_Piece]:
    """The pieces of the upper concave hull from step 1 to its highest point."""
    pieces: list[_Piece] = []
    at, last = 0, len(gain) - 1
    while at < last:
        ahead = [
            _Piece(problem, to + 1, float(gain[to] - gain[at]), float(cost[to] - cost[at]))
            for to in range(at + 1, last + 1)
            if gain[to] - gain[at] > ROUNDING
        ]
        if not ahead:
            break
        best = max(ahead, key=lambda piece: (piece.rate, piece.to))
        pieces.append(best)
        at = best.to - 1
    return pieces


def _exact(gain: Floats, cost: Floats, *, room: float, rate: float, above: float) -> NDArray[np.int64] | None:
    """Exact steps (m,) of a few problems if their gain can exceed `above`, else None.

    Keeps the undominated sums of cost and gain, problem by problem (Nemhauser & Ullmann 1969), without sums that could
    not exceed `above` even if the rest of the room gained `rate` per cost.
    """
    hope = np.maximum(gain - rate * cost, 0.0).max(axis=1)
    ahead = (np.cumsum(hope[::-1])[::-1] - hope).tolist()
    states: list[tuple[float, float, tuple[int, ...]]] = [(0.0, 0.0, ())]
    for chances, prices, rest in zip(gain.tolist(), cost.tolist(), ahead, strict=True):
        grown = [
            (spent + price, won + chance, (*chosen, number))
            for spent, won, chosen in states
            for number, (chance, price) in enumerate(zip(chances, prices, strict=True), 1)
            if spent + price <= room and won + chance + rate * (room - spent - price) + rest > above + ROUNDING
        ]
        grown.sort(key=lambda state: (state[0], -state[1]))
        states, best = [], -np.inf
        for state in grown:
            if state[1] > best + ROUNDING:
                states.append(state)
                best = state[1]
    if not states or states[-1][1] <= above + ROUNDING:
        return None
    return np.array(states[-1][2], dtype=np.int64)
