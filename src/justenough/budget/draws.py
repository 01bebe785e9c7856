"""The figures of one policy at one total, averaged over random draws, those of plain early stopping, and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from justenough.budget.curves import Floats
from justenough.budget.expectation import Expectation
from justenough.budget.ledger import Unit
from justenough.budget.policies import Policy
from justenough.budget.schedule import Form
from justenough.budget.simulation import FOLDS, Recorded, folds_of, simulate
from justenough.stats import RESAMPLES, Estimate
from justenough.stats.drawing import generator

_CHUNK: Final = 2_000_000


class Share(NamedTuple):
    """Means over a group of problems."""

    problems: int
    steps: float
    """Complete steps of a problem."""
    cost: float
    """Of a problem, in the budget's unit."""
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of one policy at one total."""

    right: Floats
    """Whether each problem is right in each draw, (draws, n), 0 or 1."""
    costs: Floats
    """The cost of each problem in each draw, (draws, n)."""
    steps: Floats
    """Complete steps of each problem, averaged over the draws, (n,)."""
    spent: float
    tokens: float
    calls: float
    cut: float
    histogram: tuple[float, ...]


def shares(figure: Figures, groups: Sequence[str]) -> dict[str, Share]:
    """The share of each group, in order of first appearance."""
    labels = np.asarray(groups, dtype=object)
    right, costs = figure.right.mean(axis=0), figure.costs.mean(axis=0)
    return {
        group: Share(
            problems=int(mine.sum()),
            steps=float(figure.steps[mine].mean()),
            cost=float(costs[mine].mean()),
            accuracy=float(right[mine].mean()),
        )
        for group in dict.fromkeys(groups)
        for mine in [labels == group]
    }


def stops_at_the_mean(recorded: Recorded, *, folds: int = FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """Steps (n,) after which the paper's rule answers: 1 at or below the mean entropy of right first answers, else all.

    The mean is taken over the other folds. The rule never stops at a first step without a signal, and stops nowhere if
    no other fold has a right answer.
    """
    fold = folds_of(recorded.ids, folds=folds, seed=seed)
    bits, right = recorded.bits[:, 0], recorded.correct[:, 0]
    stops = np.full(len(recorded.ids), recorded.max_steps, dtype=np.int64)
    for part in range(folds):
        fitted = bits[(fold != part) & right & np.isfinite(bits)]
        if len(fitted):
            with np.errstate(invalid="ignore"):
                stops[(fold == part) & (bits <= fitted.mean())] = 1
    return np.minimum(stops, recorded.lengths)


def stopped(recorded: Recorded, stops: Sequence[int], *, unit: Unit) -> Figures:
    """The figures of plain early stopping, which keeps its savings: each budget policy has to beat it."""
    rows, steps = np.arange(len(recorded.ids)), np.minimum(np.asarray(stops, dtype=np.int64), recorded.lengths)
    costs = np.cumsum(recorded.cost(unit), axis=1)[rows, steps - 1]
    return Figures(
        right=recorded.correct[rows, steps - 1].astype(np.float64)[None, :],
        costs=costs[None, :],
        steps=steps.astype(np.float64),
        spent=float(costs.sum()),
        tokens=float(recorded.tokens[rows, steps - 1].sum()),
        calls=float(steps.sum()),
        cut=0.0,
        histogram=tuple(np.bincount(steps, minlength=recorded.max_steps + 1).astype(float).tolist()),
    )


def drawn(
    recorded: Recorded,
    policy: Policy,
    by_problem: Sequence[Expectation],
    *,
    total: int,
    draws: int,
    seed: int,
    unit: Unit,
    form: Form,
) -> Figures:
    """A policy at a total, once for each draw of seed and order; only once if neither matters."""
    n = len(recorded.ids)
    shuffled = form == "online" or policy.in_order
    # Without a signal all problems look alike to a policy, and its seed decides.
    alike = policy.expects and any(expectation.right[0][0].slope == 0 for expectation in by_problem)
    many = draws if shuffled or alike or policy.by_chance else 1
    right, costs, steps = np.zeros((many, n)), np.zeros((many, n)), np.zeros(n)
    sums = np.zeros(4)
    histogram = np.zeros(recorded.max_steps + 1)
    for draw in range(many):
        order = generator(seed, draw, 4).permutation(n) if shuffled else np.arange(n)
        run = simulate(
            recorded.taken(order),
            policy=policy,
            total=total,
            expectation=[by_problem[row] for row in order],
            seed=seed + draw,
            unit=unit,
            form=form,
        )
        right[draw, order], costs[draw, order] = run.correct, run.costs
        steps[order] += run.steps
        sums += (run.spent, run.tokens, run.calls, run.cut)
        histogram += np.bincount(run.steps, minlength=recorded.max_steps + 1)
    spent, tokens, calls, cut = (sums / many).tolist()
    return Figures(
        right=right,
        costs=costs,
        steps=steps / many,
        spent=spent,
        tokens=tokens,
        calls=calls,
        cut=cut,
        histogram=tuple((histogram / many).tolist()),
    )


@dataclass(frozen=True, slots=True)
class Resamples:
    """How often each of n problems occurs in each resample: the same resamples for all comparisons."""

    counts: NDArray[np.float32]
    """(resamples, n); small whole numbers, exact in half the memory."""
    seed: int

    @classmethod
    def of(cls, n: int, *, seed: int, resamples: int = RESAMPLES) -> Resamples:
        """Draw the resamples by `seed`."""
        rng = generator(seed)
        counts = np.empty((resamples, n), dtype=np.float32)
        step = max(1, _CHUNK // n)
        for start in range(0, resamples, step):
            size = min(step, resamples - start)
            drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
            counts[start : start + size] = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        return cls(counts, seed)

    def change(self, scores: Floats, even: Floats) -> Estimate:
        """Difference of the means of two (draws, n) arrays, with a 95 % interval over problems, paired, and draws."""
        n = scores.shape[1]
        value = float(scores.mean() - even.mean())
        # The same answers in all draws, up to rounding: the change is exactly 0.
        if len({len(scores), len(even), 1}) < 3 and np.allclose(scores, even, rtol=0, atol=1e-9):
            return Estimate(0.0, 0.0, 0.0, n)
        rng = generator(self.seed, 5)
        mine, theirs = (self._means(array, rng) for array in (scores, even))
        low, high = np.quantile(mine - theirs, (0.025, 0.975))
        return Estimate(value, float(low), float(high), n)

    def _means(self, scores: Floats, rng: np.random.Generator) -> Floats:
        """The mean of each resample of problems, over resampled draws."""
        draws, n = scores.shape
        # Deviations from the mean: the rounding of half precision is then negligible.
        middle = float(scores.mean())
        means = (scores - middle).astype(np.float32) @ self.counts.T / n
        weights = rng.multinomial(draws, np.full(draws, 1 / draws), size=len(self.counts)) / draws
        return np.asarray(middle + (means * weights.T).sum(axis=0), dtype=np.float64)
