"""What a step is worth where problems arrive one at a time: the score at which a policy would run out of budget."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from justenough.budget.curves import Floats
from justenough.budget.policies import NEVER, Policy, View


@dataclass(frozen=True, slots=True)
class Price:
    """The policy's own batch order on a sample of other problems: scores as served, and cost per problem to there."""

    scores: Floats
    """Never rising, (m,)."""
    spent: Floats
    """Cost of all steps served so far over the number of problems, (m,)."""

    @classmethod
    def of(cls, policy: Policy, view: View) -> Price:
        """Serve every step of a sample in order of score."""
        score = policy.score(view)
        n, steps = view.cost.shape
        heap = [(-value, i, 1) for i in range(n) if steps > 1 and (value := score(i, 1, [])) > NEVER]
        heapq.heapify(heap)
        scores: list[float] = []
        costs: list[float] = []
        while heap:
            negative, i, done = heapq.heappop(heap)
            scores.append(-negative)
            costs.append(float(view.cost[i, done]))
            if done + 1 < steps and (value := score(i, done + 1, [])) > NEVER:
                heapq.heappush(heap, (-value, i, done + 1))
        # A step that only prepares the next scores less than that one: both are served at the lower price.
        falling = np.minimum.accumulate(np.asarray(scores, dtype=np.float64))
        return cls(falling, np.cumsum(np.asarray(costs, dtype=np.float64)) / n)

    def at(self, pace: float) -> float:
        """The lowest score served when each problem may spend `pace` beyond its first step."""
        if pace <= 0 or not len(self.scores):
            return float(self.scores[0]) if len(self.scores) else NEVER
        index = int(np.searchsorted(self.spent, pace))
        return float(self.scores[index]) if index < len(self.scores) else NEVER
