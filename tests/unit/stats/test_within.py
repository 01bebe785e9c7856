import numpy as np

from justenough.stats.within import COMPARABLE, comparable, within_interval


def test_the_rarer_answers_of_each_group_are_comparable() -> None:
    correct = np.array([True, True, True, False, False, True, True])
    assert comparable(correct, ["a", "a", "a", "a", "b", "b", "c"]) == 2
    assert comparable(correct, ["a"] * 7) == 2
    assert comparable(correct[:0], []) == 0


def test_fewer_than_ten_comparable_answers_cannot_tell() -> None:
    # Nine groups of two are nine pairs, all in the right order.
    values, correct = np.arange(20.0), np.arange(20) % 2 == 0
    groups = [str(row // 2) for row in range(20)]
    assert within_interval(values[:18], correct[:18], groups[:18]) is None
    ten = within_interval(values, correct, groups)
    assert ten is not None
    assert ten.interval is not None
    assert (ten.value, COMPARABLE) == (1.0, 10)
    assert ten.interval[0] < 0.85
