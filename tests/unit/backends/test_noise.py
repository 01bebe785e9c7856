"""The sampling noise depends on its key and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.backends.noise import noise


def test_a_longer_request_begins_with_the_same_noise() -> None:
    whole = noise(3, "47*36", 2, 50)
    for length in (0, 1, 10, 50):
        assert np.array_equal(whole[:length], noise(3, "47*36", 2, length))


@pytest.mark.parametrize(("seed", "problem", "step"), [(4, "47*36", 2), (3, "47*37", 2), (3, "47*36", 1)])
def test_each_part_of_the_key_changes_the_noise(seed: int, problem: str, step: int) -> None:
    assert not np.array_equal(noise(seed, problem, step, 50), noise(3, "47*36", 2, 50))


def test_parts_of_the_key_do_not_run_into_each_other() -> None:
    assert not np.array_equal(noise(1, "1", 1, 20), noise(11, "", 1, 20))
    assert not np.array_equal(noise(0, "1", 11, 20), noise(0, "11", 1, 20))


@given(st.integers(0, 2**63), st.text(max_size=20), st.integers(0, 1000))
def test_numbers_are_in_the_unit_interval(seed: int, problem: str, step: int) -> None:
    values = noise(seed, problem, step, 30)
    assert values.shape == (30,)
    assert ((values >= 0) & (values < 1)).all()


def test_the_noise_is_uniform() -> None:
    values = np.concatenate([noise(0, f"{number}", 1, 100) for number in range(100)])
    counts, _ = np.histogram(values, bins=10, range=(0, 1))
    # Ten bins with an expectation of 1000; five standard deviations are 150.
    assert abs(counts - 1000).max() < 150
