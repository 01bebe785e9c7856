"""Random draws that a seed decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from justenough import calibrate, evaluate
from justenough.budget.simulation import folds_of
from justenough.errors import InputError
from justenough.stats import resampled_sums
from justenough.stats.drawing import generator
from tests.builders import population

TRACES = population(60, seed=2)


def test_a_seed_gives_numpys_draws_and_each_key_its_own() -> None:
    assert generator(3).random() == np.random.default_rng(3).random()
    assert generator(3, 1, 2).random() == np.random.default_rng((3, 1, 2)).random()
    assert generator(int(np.int64(3)), 1).random() != generator(3, 2).random()


@pytest.mark.parametrize("seed", [-1, 1.5, "x", None])
def test_a_seed_is_a_whole_number_from_0_on(seed: Any) -> None:
    """Also in Python: `Random` takes -1 for 1 without a word, and NumPy's own errors do not name the seed."""
    for call in (
        lambda: generator(seed),
        lambda: evaluate(TRACES, seed=seed, draws=5),
        lambda: calibrate(TRACES, seed=seed),
        lambda: folds_of(["a", "b"], folds=2, seed=seed),
        lambda: resampled_sums(np.ones((3, 1)), seed=seed),
    ):
        with pytest.raises(InputError, match="a whole number, 0 or more"):
            call()


@pytest.mark.parametrize("resamples", [0, -5])
def test_at_least_one_resample_is_drawn(resamples: int) -> None:
    with pytest.raises(InputError, match=f"resamples is {resamples}"):
        evaluate(TRACES, resamples=resamples, draws=5)
