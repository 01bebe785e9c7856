"""Logistic regression with a Gaussian prior on each weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from justenough.stats.estimates import Bools, Floats

_MOST_STEPS = 100
_TOLERANCE = 1e-10


def logistic(table: Floats, labels: Bools, *, penalty: Sequence[float]) -> Floats:
    """Intercept and weights (1 + p,) that maximise the penalised likelihood of `labels` (n,) given `table` (n, p).

    `penalty` (1 + p,) holds the inverse variance of each prior, the intercept's first; 0 means no prior. The function
    is concave, so Newton's method with step halving finds the maximum.
    """
    from scipy.special import expit

    design = np.column_stack((np.ones(len(table)), table))
    prior = np.asarray(penalty, dtype=np.float64)
    target = labels.astype(np.float64)

    def loss(weights: Floats) -> float:
        margin = design @ weights
        return float(np.logaddexp(0, margin).sum() - target @ margin + weights @ (prior * weights) / 2)

    weights = np.zeros(design.shape[1])
    for _ in range(_MOST_STEPS):
        probability = expit(design @ weights)
        gradient = design.T @ (probability - target) + prior * weights
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design + np.diag(prior)
        move = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-9 and loss(weights - size * move) > loss(weights):
            size /= 2
        weights = weights - size * move
        if float(np.abs(size * move).max()) < _TOLERANCE:
            break
    return weights
