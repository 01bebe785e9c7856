import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from justenough.errors import InputError
from justenough.stats.sequence import (
    BITS,
    harm_controlled,
    last_passed,
    one_run_each,
    quantile_grid,
    spend,
    sums_of_stops,
)


@given(st.data())
def test_the_sums_are_those_of_walking_through_each_problem(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=8))
    if data.draw(st.booleans()):
        lengths.append(90)  # One problem is far longer than the others.
    count = sum(lengths)
    levels = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, math.nan])
    scores = data.draw(arrays.arrays(np.float64, count, elements=levels))
    values = data.draw(arrays.arrays(np.float64, count, elements=st.sampled_from([-1.0, 0.0, 1.0])))
    starts = np.cumsum([0, *lengths[:-1]])
    grid = np.array([-1.0, 0.0, 0.25, 0.5, 1.0, 1.9, 3.0])
    wanted = np.zeros(len(grid))
    for at, threshold in enumerate(grid):
        for start, length in zip(starts, lengths, strict=True):
            for row in range(start, start + length):
                if scores[row] <= threshold:
                    wanted[at] += values[row]
                    break
    assert sums_of_stops(grid, scores, values, starts).tolist() == wanted.tolist()


def test_without_checkpoints_nothing_is_summed() -> None:
    assert sums_of_stops(BITS, np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)).tolist() == [0.0] * len(BITS)


def test_grids_ascend_and_quantiles_are_scores() -> None:
    assert (np.diff(BITS) > 0).all()
    assert (BITS[0], BITS[-1]) == (0.0, 1024.0)
    scores = np.array([3.0, 1.0, math.nan, 2.0, 2.0, math.inf])
    assert quantile_grid(scores, 4).tolist() == [1.0, 2.0, 3.0]
    assert quantile_grid(scores, 1).tolist() == [3.0]
    with pytest.raises(InputError):
        quantile_grid(np.array([math.nan]), 5)
    with pytest.raises(InputError):
        quantile_grid(scores, 0)


@given(st.floats(1e-6, 0.999), st.integers(1, 2000))
def test_refits_share_the_error_and_waste_none(error: float, refits: int) -> None:
    levels = spend(error, refits)
    assert len(levels) == refits
    assert math.fsum(levels) <= error
    assert math.fsum(levels) == pytest.approx(error)


def test_spending_needs_an_error_and_refits() -> None:
    for error, refits in ((0.0, 1), (1.0, 1), (0.05, 0)):
        with pytest.raises(InputError):
            spend(error, refits)


def test_each_problem_gives_one_run_and_each_run_the_same_chance() -> None:
    problems = ["b", "a", "b", "c", "b", "a"]
    draws = [one_run_each(problems, seed=seed).tolist() for seed in range(600)]
    assert all(sorted(problems[row] for row in rows) == ["a", "b", "c"] for rows in draws)
    assert draws[7] == one_run_each(problems, seed=7).tolist()
    for row, share in ((0, 1 / 3), (2, 1 / 3), (4, 1 / 3), (1, 1 / 2), (5, 1 / 2), (3, 1.0)):
        assert sum(row in rows for rows in draws) / 600 == pytest.approx(share, abs=0.08)
    assert one_run_each([], seed=0).tolist() == []


def test_the_sequence_ends_at_the_first_failure() -> None:
    grid = np.array([0.1, 0.2, 0.3, 0.4])
    assert last_passed(grid, np.array([True, True, False, True])) == 0.2
    assert last_passed(grid, np.ones(4, dtype=bool)) == 0.4
    assert last_passed(grid, np.array([False, True, True, True])) is None
    # 299 labels allow no harm at 1 %, 95 %.
    assert harm_controlled(grid, np.array([0.0, 0.0, 1.0, 0.0]), 299, max_harm=0.01, error=0.05) == 0.2
    assert harm_controlled(grid, np.zeros(4), 298, max_harm=0.01, error=0.05) is None
