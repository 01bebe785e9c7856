"""The price of a step for problems that arrive one at a time: the score at which a policy would run out of budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from justenough.budget.curves import Floats
from justenough.budget.policies import NEVER, Policy, View, served


@dataclass(frozen=True, slots=True)
class Price:
    """The order in which the policy serves a sample of other problems, with the cost per problem up to each step."""

    scores: Floats
    """Never rising, (m,)."""
    spent: Floats
    """Cost of all steps served so far over the number of problems, (m,)."""

    @classmethod
    def of(cls, policy: Policy, view: View) -> Price:
        """Serve every step of a sample in order of score."""
        n, steps = view.cost.shape
        order = served(policy.score(view), lengths=[steps] * n, ranks=range(n))
        costs = [float(view.cost[step.problem, step.done]) for step in order]
        return cls(np.array([-step.negative for step in order]), np.cumsum(np.array(costs)) / n)

    def at(self, pace: float) -> float:
        """The lowest score that is served if each problem may spend `pace` beyond its first step."""
        if not len(self.scores):
            return NEVER
        index = int(np.searchsorted(self.spent, pace)) if pace > 0 else 0
        return float(self.scores[index]) if index < len(self.scores) else NEVER
