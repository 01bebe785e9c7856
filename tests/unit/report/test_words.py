"""Numbers and names as text."""

from __future__ import annotations

import pytest

from justenough.report import words
from justenough.stats import Estimate

HALF = Estimate(0.5, 0.25, 0.75, 40)
UNKNOWN = Estimate(0.5, None, None, 40)


def test_count_has_thousands() -> None:
    assert words.count(108645.4) == "108,645"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0.000"),
        (1.23456, "1.235"),
        (0.1, "0.100"),
        (0.05678, "0.0568"),
        (0.00056789, "0.000568"),
        (0.0000567, "5.7e-05"),
    ],
)
def test_bits_keep_significant_digits(value: float | None, text: str) -> None:
    assert words.bits(value) == text


def test_values_with_their_interval() -> None:
    assert words.percent_with_interval(HALF) == "50.0 % [25.0 to 75.0]"
    assert words.percent_with_interval(UNKNOWN) == "50.0 %"
    assert words.percent_with_interval(None) == "–"


def test_a_change_is_in_points() -> None:
    assert words.change(Estimate(0.0151, -0.007, 0.025, 9)) == "+1.5 points [−0.7 to +2.5]"
    assert words.change(Estimate(-0.2, None, None, 9)) == "−20.0 points"


def test_sentences() -> None:
    assert words.sentence("it works") == "It works."
    assert words.sentence("it works.") == "It works."
    assert words.sentence("note: it works") == "Note: it works."
    assert words.sentence("deer:0.95: it differs") == "deer:0.95: it differs."


def test_margins() -> None:
    assert words.margin_words(0.01) == "1 percentage point"
    assert words.margin_words(0.025) == "2.5 percentage points"


def test_names_of_methods_and_outcomes() -> None:
    assert words.method_words("mean") == "entropy mean"
    assert words.method_words("other") == "other"
    assert words.outcome_words("ok") == "fitted"
    assert words.outcome_words("other") == "other"
