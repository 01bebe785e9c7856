"""The tables of the demo."""

from __future__ import annotations

from dataclasses import replace

import pytest

from justenough.report.data import Contents
from justenough.report.demosheets import live, number_in, recommended, siblings
from justenough.trace import Json


def test_the_live_run_is_compared_with_all_steps(contents: Contents) -> None:
    sheet = live(contents)
    assert sheet is not None
    assert sheet.rows == [
        ("gated", "2.5", "4,321", "37"),
        ("all steps", "10.0", "9,876", "36"),
        ("saved", "75.0 %", "56.2 %", "–"),
    ]
    assert sheet.note.startswith("39 of 40 live runs")


def test_a_live_run_without_tokens_has_no_saving(contents: Contents) -> None:
    sheet = live(replace(contents, demo={"live": {}}))
    assert sheet is not None
    assert sheet.rows[-1] == ("saved", "–", "–", "–")


def test_the_recommended_gate(contents: Contents) -> None:
    sheet = recommended(contents)
    assert sheet is not None
    assert sheet.rows == [
        ("threshold", "0.250 bits"),
        ("pooling", "sum"),
        ("decides after", "every step"),
        ("labelled problems", "120"),
        ("loss allowed", "1.0 %"),
    ]


def test_a_recommended_gate_that_never_stops_has_no_threshold(contents: Contents) -> None:
    sheet = recommended(replace(contents, demo={"recommended": {"threshold": None, "decide": "first"}}))
    assert sheet is not None
    assert sheet.rows[0] == ("threshold", "no threshold")
    assert sheet.rows[2] == ("decides after", "step 1")


def test_the_sibling_models(contents: Contents) -> None:
    sheet = siblings(contents)
    assert sheet is not None
    assert sheet.rows == [("overconfident", "300", "46.3 %", "1.18", "0.771", "0.552", "weak", "no")]


def test_a_sibling_without_figures_has_dashes(contents: Contents) -> None:
    sheet = siblings(replace(contents, demo={"siblings": {"broken": 7}}))
    assert sheet is not None
    assert sheet.rows == [("broken", "0", "–", "–", "–", "–", "–", "no")]


def test_a_report_without_the_demo_has_no_such_tables(contents: Contents) -> None:
    bare = replace(contents, demo={})
    assert live(bare) is None
    assert recommended(bare) is None
    assert siblings(bare) is None


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3.0), (0.5, 0.5), (True, None), ("3", None), (None, None), ([1], None)]
)
def test_only_numbers_are_numbers(value: Json, number: float | None) -> None:
    assert number_in({"key": value}, "key") == number
    assert number_in({}, "key") is None
