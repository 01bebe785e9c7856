"""Whether a signal separates right from wrong within groups, such as levels of difficulty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from justenough.stats.estimates import Bools, Estimate, Floats
from justenough.stats.intervals import auroc_interval

COMPARABLE: Final = 10
"""Comparable answers below which a within-group AUROC cannot tell."""


def comparable(correct: Bools, groups: Sequence[str]) -> int:
    """The sum over groups of the rarer of right and wrong answers."""
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    right, wrong = (
        np.bincount(member[kind], minlength=int(member.max(initial=-1)) + 1) for kind in (correct, ~correct)
    )
    return int(np.minimum(right, wrong).sum())


def within_interval(
    values: Floats, correct: Bools, groups: Sequence[str], *, problems: Sequence[str] | None = None
) -> Estimate | None:
    """The AUROC over pairs of the same group; None with fewer than 10 comparable answers, which cannot tell.

    Of a handful of pairs the interval may be narrow by luck, and a signal that groups explain then passes.
    """
    if comparable(correct, groups) < COMPARABLE:
        return None
    return auroc_interval(values, correct, groups=groups, problems=problems)
