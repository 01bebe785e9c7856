"""Numbers and names as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from justenough.report import words
from justenough.report.data import Contents
from justenough.stats import Estimate, NonInferiority

HALF = Estimate(0.5, 0.25, 0.75, 40)
UNKNOWN = Estimate(0.5, None, None, 40)


@pytest.mark.parametrize(
    ("value", "text"), [(1.46, "+1.5"), (-0.3, "−0.3"), (0.04, "0.0"), (-0.04, "0.0"), (0, "0.0"), (12.0, "+12.0")]
)
def test_signed_has_a_true_minus_and_no_sign_for_zero(value: float, text: str) -> None:
    assert words.signed(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.312, "31.2 %"), (-0.05, "−5.0 %"), (-0.0001, "0.0 %"), (1, "100.0 %"), (None, "–")]
)
def test_percent(value: float | None, text: str) -> None:
    assert words.percent(value) == text


def test_points_are_hundredths() -> None:
    assert words.points(0.0151) == "+1.5 points"
    assert words.points(-0.2) == "−20.0 points"


@pytest.mark.parametrize(("value", "digits", "text"), [(2.291, 2, "2.29"), (-1.5, 1, "−1.5"), (None, 2, "–")])
def test_number(value: float | None, digits: int, text: str) -> None:
    assert words.number(value, digits=digits) == text


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


def test_intervals_in_each_unit() -> None:
    assert words.percent_interval(HALF) == "25.0 to 75.0"
    assert words.points_interval(Estimate(0, -0.007, 0.025, 9)) == "−0.7 to +2.5"
    assert words.interval(HALF) == "0.25 to 0.75"
    assert words.interval(HALF, digits=3) == "0.250 to 0.750"


@pytest.mark.parametrize("estimate", [None, UNKNOWN])
def test_no_interval_is_empty(estimate: Estimate | None) -> None:
    assert words.percent_interval(estimate) == ""
    assert words.points_interval(estimate) == ""
    assert words.interval(estimate) == ""


def test_values_with_their_interval() -> None:
    assert words.percent_with_interval(HALF) == "50.0 % [25.0 to 75.0]"
    assert words.percent_with_interval(UNKNOWN) == "50.0 %"
    assert words.percent_with_interval(None) == "–"


def test_the_change_in_accuracy_has_the_interval_of_the_verdict(contents: Contents) -> None:
    gated = replace(
        contents.evaluation.gated,
        accuracy_change=Estimate(0.01, 0.0, 0.02, 90),
        non_inferiority=NonInferiority("inconclusive", 0.01, -0.03, 0.05),
    )
    assert words.accuracy_change(gated) == Estimate(0.01, -0.03, 0.05, 90)
    assert words.accuracy_change(replace(gated, non_inferiority=None)) == Estimate(0.01, 0.0, 0.02, 90)


def test_lists_and_sentences() -> None:
    assert words.join(["a"]) == "a"
    assert words.join(["a", "b", "c"]) == "a, b and c"
    assert words.sentence("it works") == "It works."
    assert words.sentence("it works.") == "It works."


def test_margins() -> None:
    assert words.margin_words(0.01) == "1 percentage point"
    assert words.margin_words(0.025) == "2.5 percentage points"


def test_names_of_methods_and_outcomes() -> None:
    assert words.method_words("mean") == "entropy mean"
    assert words.method_words("other") == "other"
    assert words.outcome_words("ok") == "fitted"
    assert words.outcome_words("other") == "other"
