"""Fast replay of the batch form: the turns that `Schedule` would give out one by one, served in one sorted pass.

A test compares both, step by step and token by token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from justenough.budget.curves import Floats
from justenough.budget.ledger import Unit
from justenough.budget.policies import served
from justenough.budget.schedule import Competition


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What each problem got."""

    steps: NDArray[np.int64]
    """Complete steps, (n,)."""
    costs: Floats
    """In the ledger's unit, with the steps that were cut, (n,)."""
    tokens: int
    calls: int
    cut: int


def replay_rounds(
    competition: Competition,
    *,
    total: int,
    bits: Floats,
    lengths: Sequence[int],
    tokens: Floats,
    limits: Sequence[int],
    unit: Unit,
) -> Replayed:
    """Serve recorded steps of `tokens` (n, K) until `total` is spent; every first step must fit."""
    n, most = tokens.shape
    real = tokens.astype(np.int64)
    cost = real if unit == "tokens" else np.ones_like(real)
    limit = list(limits) if unit == "tokens" else [1] * most
    taken = np.ones(n, dtype=np.int64)
    costs = cost[:, 0].astype(np.float64)
    generated, calls, cut, left = int(real[:, 0].sum()), n, 0, total - int(cost[:, 0].sum())
    ended: set[int] = set()
    steps = served(
        competition.score,
        lengths=[min(length, most) for length in lengths],
        ranks=competition.ranks,
        bits=bits.tolist(),
    )
    for _, _, done, problem in steps:
        if left < 1:
            break
        if problem in ended:
            continue
        granted = min(limit[done], left)
        if granted < min(limit[done], max(1, math.ceil(competition.cost[problem, done] - 1e-9))):
            ended.add(problem)
            continue
        calls += 1
        spent = min(int(cost[problem, done]), granted)
        left -= spent
        costs[problem] += spent
        generated += spent if unit == "tokens" else int(real[problem, done])
        if cost[problem, done] > granted:
            cut += 1
            ended.add(problem)
        else:
            taken[problem] += 1
    return Replayed(steps=taken, costs=costs, tokens=generated, calls=calls, cut=cut)
