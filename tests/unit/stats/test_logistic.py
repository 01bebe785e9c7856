"""The weights are the maximum of the penalised likelihood, for every caller's penalty."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from justenough.stats.logistic import logistic


@pytest.mark.parametrize("penalty", [(1e-9, 1.0, 1.0), (0.01, 0.16, 0.16), (0.0, 1.0, 2.0)])
def test_the_weights_maximise_the_penalised_likelihood(penalty: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(size=(500, 2))
    labels = rng.random(500) < 1 / (1 + np.exp(-(0.5 + table @ np.array([2.0, -1.0]))))

    def loss(at: np.ndarray) -> float:
        odds = at[0] + table @ at[1:]
        return float(np.logaddexp(0, odds).sum() - odds[labels].sum() + (np.array(penalty) * at**2).sum() / 2)

    weights = logistic(table, labels, penalty=penalty)
    assert weights.tolist() == pytest.approx(minimize(loss, np.zeros(3), tol=1e-9).x.tolist(), abs=1e-4)


def test_separable_labels_have_finite_weights() -> None:
    table = np.random.default_rng(1).normal(size=(500, 1))
    apart = logistic(table, table[:, 0] > 0, penalty=(1e-9, 1.0))
    assert np.isfinite(apart).all()
    assert apart[1] > 1


def test_large_inputs_do_not_overflow() -> None:
    table = np.array([[-1e4], [-9e3], [9e3], [1e4]])
    weights = logistic(table, np.array([False, True, False, True]), penalty=(1e-2, 1.0))
    assert np.isfinite(weights).all()
