"""Numbers as people read them, and aligned tables."""

from __future__ import annotations

import math

import pytest

from justenough.stats import Estimate
from justenough.stats.text import number, percent, points, signed, spread, table


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (signed(1.54), "+1.5"),
        (signed(-0.26), "−0.3"),
        (signed(-0.04), "0.0"),
        (number(-2.346), "−2.35"),
        (number(-0.0), "0.00"),
        (number(None), "–"),
        (number(math.nan), "–"),
        (percent(0.312), "31.2 %"),
        (percent(-0.0001), "0.0 %"),
        (percent(0.05, sign=True), "+5.0 %"),
        (percent(-0.5, digits=0), "−50 %"),
        (percent(None), "–"),
        (percent(math.nan), "–"),
        (points(Estimate(0.015, -0.003, 0.024, 10)), "+1.5 [−0.3 to +2.4]"),
        (points(Estimate(0.0151, None, None, 10), digits=2), "+1.51"),
        (points(None), "–"),
        (spread(Estimate(3.094, 2.8, 3.41, 10)), "3.09 [2.80 to 3.41]"),
        (spread(Estimate(0.5, None, None, 1), digits=3), "0.500"),
    ],
)
def test_numbers_are_shown_as_people_read_them(shown: str, expected: str) -> None:
    assert shown == expected


def test_a_table_is_aligned() -> None:
    shown = table(["rule", "saving"], [["gate", "5 %"], ["oracle", "12 %"]])
    assert shown == "rule    saving\n──────  ──────\ngate       5 %\noracle    12 %"
    assert table(["", ""], [["a", "1"], ["bc", "234"]], left=2) == "a   1\nbc  234"
    assert table(["a"], []) == "a\n─"
