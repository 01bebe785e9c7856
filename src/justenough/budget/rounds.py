"""A batch replayed at once: the turns that `Schedule` would hand out one by one to recorded runs, as arrays.

Steps of one problem keep their order, so serving the best score first is sorting by each problem's running worst score.
A test holds both equal, step by step and token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from justenough.budget.curves import Floats
from justenough.budget.policies import NEVER
from justenough.budget.schedule import Competition


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What each problem got."""

    steps: NDArray[np.int64]
    """Steps run to their end, (n,)."""
    costs: Floats
    """In the ledger's unit, the steps that were cut included, (n,)."""
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
    price: Sequence[int] | None,
) -> Replayed:
    """Serve recorded steps of `tokens` (n, K) until `total` is spent; every first step must fit.

    `price` is what a token of each step costs; None counts calls.
    """
    n, steps = tokens.shape
    real = tokens if price is not None else np.ones_like(tokens)
    each = np.asarray(price if price is not None else [1] * steps, dtype=np.int64)
    held = np.asarray(limits, dtype=np.int64) * each if price is not None else np.ones(steps, dtype=np.int64)
    cost = real.astype(np.int64) * each
    taken = np.ones(n, dtype=np.int64)
    costs = cost[:, 0].astype(np.float64)
    generated, calls, cut = int(tokens[:, 0].sum()), n, 0
    left = total - int(cost[:, 0].sum())
    problems, nexts = _order(competition, bits, lengths, steps)
    asked = np.maximum(np.ceil(competition.cost[problems, nexts] - 1e-9).astype(np.int64), each[nexts])
    floors = np.minimum(held[nexts], asked)
    prices = cost[problems, nexts]
    # As long as a whole limit is left, every step is served to its end.
    before = left - np.concatenate(([0], np.cumsum(prices)))[:-1]
    short = np.flatnonzero(before < held.max())
    whole = int(short[0]) if len(short) else len(problems)
    np.add.at(taken, problems[:whole], 1)
    np.add.at(costs, problems[:whole], prices[:whole])
    generated += int(tokens[problems[:whole], nexts[:whole]].sum())
    calls += whole
    left -= int(prices[:whole].sum())
    ended: set[int] = set()
    cheapest = int(each.min())
    for at in range(whole, len(problems)):
        if left < cheapest:
            break
        problem, step = int(problems[at]), int(nexts[at])
        if problem in ended:
            continue
        granted = min(int(held[step]), left)
        granted -= granted % int(each[step])
        if granted < floors[at]:
            ended.add(problem)
            continue
        calls += 1
        spent = min(int(prices[at]), granted)
        left -= spent
        costs[problem] += spent
        generated += int(tokens[problem, step]) if price is None else spent // int(each[step])
        if prices[at] > granted:
            cut += 1
            ended.add(problem)
        else:
            taken[problem] += 1
    return Replayed(steps=taken, costs=costs, tokens=generated, calls=calls, cut=cut)


def _order(
    competition: Competition, bits: Floats, lengths: Sequence[int], steps: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Problems and columns of all further steps in the order in which they are served, where nothing runs out."""
    problems: list[int] = []
    nexts: list[int] = []
    worst: list[float] = []
    for problem, known in enumerate(bits.tolist()):
        reached = np.inf
        for done in range(1, min(lengths[problem], steps)):
            value = competition.score(problem, done, known[:done])
            if value <= NEVER:
                break
            reached = min(reached, value)
            problems.append(problem)
            nexts.append(done)
            worst.append(-reached)
    rank = np.asarray(competition.ranks, dtype=np.int64)[problems]
    order = np.lexsort((np.asarray(nexts), rank, np.asarray(worst))).astype(np.int64)
    return np.asarray(problems, dtype=np.int64)[order], np.asarray(nexts, dtype=np.int64)[order]
