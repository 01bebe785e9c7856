"""Plain early stopping, which keeps what it saves: the rival that every budget policy has to beat at its own total."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from justenough.budget.simulation import FOLDS, Recorded, folds_of


def stops_at_the_mean(held: Recorded, *, folds: int = FOLDS, seed: int = 0) -> NDArray[np.int64]:
    """Steps (n,) after which the paper's rule answers: 1 at or below the mean entropy of right first answers, else all.

    The mean is of the folds that the problem is not in. A first step without a signal is never stopped at, and where no
    other fold has a right answer nothing is.
    """
    fold = folds_of(held.ids, folds=folds, seed=seed)
    bits, right = held.bits[:, 0], held.correct[:, 0]
    stops = np.full(len(held.ids), held.max_steps, dtype=np.int64)
    for part in range(folds):
        fitted = bits[(fold != part) & right & np.isfinite(bits)]
        if len(fitted):
            with np.errstate(invalid="ignore"):
                stops[(fold == part) & (bits <= fitted.mean())] = 1
    return np.minimum(stops, held.lengths)
