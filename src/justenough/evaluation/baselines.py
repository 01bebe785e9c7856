"""Where the baselines stop, read off the columns of a table at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from justenough.evaluation.table import Table
from justenough.gate import Decide
from justenough.rules.rules import AllSteps, FixedBudget, FixedSteps, Oracle, Rule

Ints = NDArray[np.int64]


def oracle_saving(table: Table, decide: Decide) -> float:
    """The saving of `Oracle`."""
    stops, full = stops_of(Oracle(decide), table), float(table.spent[:, -1].sum())
    return 1 - float(table.spent[np.arange(len(table)), stops].sum()) / full if full > 0 else 0.0


def stops_of(rule: Rule, table: Table) -> Ints | None:
    """The column at which a baseline stops each problem, (n,); None for a rule that must be replayed."""
    match rule:
        case AllSteps():
            return np.full(len(table), table.steps - 1)
        case FixedSteps():
            return np.full(len(table), min(rule.steps, table.steps) - 1)
        case FixedBudget():
            reached = table.spent >= rule.tokens
            return np.where(reached.any(axis=1), reached.argmax(axis=1), table.steps - 1)
        case Oracle():
            spent = np.where(table.correct | ~table.correct[:, -1:], table.spent, np.inf)
            if rule.decide == "first":
                spent[:, 1:-1] = np.inf
            return np.asarray(spent.argmin(axis=1))
        case _:
            return None
