"""Sums of parts of an array are those of `math.fsum`, bit for bit."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from justenough.trace.sums import Sums

NUMBERS = st.one_of(
    st.floats(0, 20),
    st.floats(-1e12, 1e12),
    st.sampled_from([0.0, -0.0, 0.1, 1e-300, -math.inf]),
    st.integers(0, 2**53).map(lambda number: number / 2**53),
)


@given(parts=st.lists(st.lists(NUMBERS, max_size=40), max_size=8))
def test_each_sum_is_that_of_the_standard_library(parts: list[list[float]]) -> None:
    ends = np.cumsum([0, *map(len, parts)])
    values = np.array([value for part in parts for value in part], dtype=np.float64)
    assert Sums(values).of(ends[:-1], ends[1:]).tolist() == list(map(math.fsum, parts))


def test_a_sum_halfway_between_two_numbers_is_rounded_to_the_even_one() -> None:
    values = np.array([1.0, 2.0**-53, 1.0, 2.0**-53, 2.0**-105])
    assert Sums(values).of(np.array([0, 2]), np.array([2, 5])).tolist() == [1.0, 1.0 + 2.0**-52]


def test_parts_may_overlap_and_leave_values_out() -> None:
    values = np.arange(10) / 3
    begin, end = np.array([0, 2, 5]), np.array([4, 3, 10])
    expected = [math.fsum(values[first:last]) for first, last in zip(begin, end, strict=True)]
    assert Sums(values).of(begin, end).tolist() == expected
