"""The tables of the report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from justenough.calibration.decider import FEATURES
from justenough.evaluation.draws import Spread
from justenough.report import sheets
from justenough.report.data import Contents, Sheet
from justenough.report.words import bits, percent_with_interval
from justenough.stats import Estimate, NonInferiority
from justenough.stats.text import percent, signed
from tests.reports import CASES, contents_of, never_stops, uncalibrated, with_decider


def rows_of(sheet: Sheet) -> dict[str, tuple[str, ...]]:
    return {row[0]: tuple(row[1:]) for row in sheet.rows}


@pytest.mark.parametrize("name", CASES)
def test_each_row_has_a_cell_for_each_head(name: str) -> None:
    tables = sheets.all_sheets(contents_of(CASES[name]()))
    keys = [sheet.key for sheet in tables]
    assert len(keys) == len(set(keys))
    for sheet in tables:
        assert sheet.rows
        assert {len(row) for row in sheet.rows} == {len(sheet.header)}, sheet.key


def test_tables_without_rows_are_left_out(contents: Contents) -> None:
    evaluation = replace(contents.evaluation, missing={})
    keys = [sheet.key for sheet in sheets.all_sheets(replace(contents, evaluation=evaluation, sizes=(), budget=None))]
    assert not {"missing", "sizes", "claim", "curve"} & set(keys)
    assert keys[-1] == "provenance"


def test_what_was_not_replayed_comes_just_before_the_provenance(contents: Contents) -> None:
    evaluation = replace(contents.evaluation, missing={"calm": "layers"})
    keys = [sheet.key for sheet in sheets.all_sheets(replace(contents, evaluation=evaluation))]
    assert keys[-2:] == ["missing", "provenance"]


def test_key_figures(contents: Contents) -> None:
    gated = replace(
        contents.evaluation.gated,
        saving=Estimate(0.5, 0.4, 0.6, 90),
        accuracy_change=Estimate(0.01, -0.03, 0.05, 90),
        non_inferiority=NonInferiority("inconclusive", 0.01, -0.03, 0.05),
        harm=None,
    )
    rows = rows_of(sheets.key_figures(replace(contents, evaluation=replace(contents.evaluation, gated=gated))))
    assert rows["tokens saved"] == ("50.0 % [40.0 to 60.0]",)
    assert rows["change in accuracy"] == ("+1.0 points [−3.0 to +5.0]",)
    assert rows["verdict at a margin of 1 percentage point"] == ("inconclusive",)
    assert rows["harm: stopped at a wrong answer, last answer right"] == ("–",)
    assert rows["accuracy of step 1"] == (percent(contents.evaluation.accuracy_first),)


def test_a_gate_without_a_threshold_has_no_saving() -> None:
    contents = contents_of(never_stops())
    assert sheets.saving_words(contents) == "no threshold"
    assert rows_of(sheets.key_figures(contents))["tokens saved"] == ("no threshold",)
    assert "no threshold" in sheets.gate_words(contents)


def test_the_saving_of_a_gate_with_a_threshold_is_a_number(contents: Contents) -> None:
    assert sheets.saving_words(contents) == percent_with_interval(contents.evaluation.gated.saving)


def test_thresholds(contents: Contents) -> None:
    thresholds: dict[str, float | None] = {"mean": 0.25, "risk": None}
    outcomes = {"mean": "ok", "risk": "nothing_certified"}
    evaluation = replace(contents.evaluation, thresholds=thresholds, threshold_outcomes=outcomes)
    sheet = sheets.thresholds(replace(contents, evaluation=evaluation))
    assert sheet.rows == [
        ("entropy mean", "0.250 bits", "fitted"),
        ("risk-controlled", "no threshold", "no threshold can be certified on these examples"),
    ]
    assert contents.calibration is not None
    assert sheet.note == f"Fitted on the {contents.calibration.n} examples of the calibration."


def test_thresholds_without_a_calibration_are_fitted_on_all_problems() -> None:
    assert sheets.thresholds(contents_of(uncalibrated())).note == "Fitted on all of these problems."


def test_families(contents: Contents) -> None:
    sheet = sheets.families(contents)
    assert [row[0] for row in sheet.rows] == [family.name for family in contents.families]
    for row, family in zip(sheet.rows, contents.families, strict=True):
        assert row[2:5] == (percent(family.first), percent(family.gated), percent(family.full))
    assert sheet.note == f"The gate: {sheets.gate_words(contents)}."


@pytest.mark.parametrize(
    ("decide", "words"), [("first", "decides after step 1"), ("every", "decides after every step")]
)
def test_the_gate_in_words(contents: Contents, decide: str, words: str) -> None:
    settings = replace(contents.settings, decide=decide, threshold=0.25)  # type: ignore[arg-type]
    result = sheets.gate_words(replace(contents, settings=settings))
    assert result.endswith(f"τ = 0.250 bits, {words}")


def test_draws(contents: Contents) -> None:
    draws = replace(
        contents.evaluation.draws,
        saving=Spread(mean=0.5, p5=0.2, p95=0.6),
        accuracy_change=Spread(mean=0.01, p5=-0.02, p95=0.03),
        threshold=Spread(mean=0.25, p5=0.125, p95=0.5),
        refused=0.1,
    )
    sheet = sheets.draws(replace(contents, evaluation=replace(contents.evaluation, draws=draws)))
    assert rows_of(sheet) == {
        "saving": ("50.0 %", "20.0 %", "60.0 %"),
        "change, points": ("+1.0", "−2.0", "+3.0"),
        "τ, bits": ("0.250", "0.125", "0.500"),
    }
    assert "10.0 % of the draws gave no threshold" in sheet.note
    assert sheet.note.endswith("The draw of this report saves more than 62.5 % of them.")


def test_draws_without_a_threshold_have_no_row_for_it(contents: Contents) -> None:
    draws = replace(contents.evaluation.draws, threshold=None)
    sheet = sheets.draws(replace(contents, evaluation=replace(contents.evaluation, draws=draws), demo={}))
    assert [row[0] for row in sheet.rows] == ["saving", "change, points"]
    assert "The draw of this report" not in sheet.note


def test_sizes_without_any_threshold_say_so(contents: Contents) -> None:
    first, *others = contents.sizes
    none = replace(first, threshold=None, none=1.0)
    sheet = sheets.sizes(replace(contents, sizes=(none, *others)))
    assert sheet.rows[0] == (str(first.n), "–", "no threshold", "–", "100.0 %")
    assert sheet.rows[1][2].startswith(percent(others[0].saving.mean))
    assert sheet.rows[1][3].startswith(signed(100 * others[0].accuracy_change.mean))


def test_the_sweep_has_a_row_for_each_threshold(contents: Contents) -> None:
    sheet = sheets.sweep(contents)
    assert [row[0] for row in sheet.rows] == [bits(row.threshold) for row in contents.sweep]
    assert [row[3] for row in sheet.rows] == [percent(row.saving) for row in contents.sweep]


def test_the_histogram_leaves_out_empty_bins(contents: Contents) -> None:
    rows = sheets.histogram(contents).rows
    assert sum(int(row[2]) for row in rows) == sum(entry.right for entry in contents.histogram)
    assert sum(int(row[3]) for row in rows) == sum(entry.wrong for entry in contents.histogram)
    assert all(int(row[2]) + int(row[3]) for row in rows)


def test_the_roc_table_has_the_ends_of_the_curve(contents: Contents) -> None:
    rows = sheets.roc(contents).rows
    assert len(rows) <= 11
    assert rows[-1] == ("100.0 %", "100.0 %")
    assert sheets.roc(replace(contents, roc=())).rows == []


def test_reliability(contents: Contents) -> None:
    rows = sheets.reliability(contents).rows
    assert [row[1] for row in rows] == [str(entry.share.n) for entry in contents.reliability]
    assert rows[0][0] == f"{bits(contents.reliability[0].low)} to {bits(contents.reliability[0].high)}"


def test_provenance_names_the_data_and_the_calibration(contents: Contents) -> None:
    rows = rows_of(sheets.provenance(contents))
    assert contents.calibration is not None
    assert rows["command"] == ("justenough report x",)
    assert rows["data"] == (f"sha256 {contents.evaluation.data_fingerprint}",)
    assert rows["calibration data"] == (f"sha256 {contents.calibration.data_fingerprint}",)
    bare = rows_of(sheets.provenance(replace(contents, calibration=None)))
    assert "calibration" not in bare


def test_a_decider_has_its_features_and_its_own_unit() -> None:
    contents = contents_of(with_decider())
    sheet = sheets.decider(contents)
    assert sheet is not None
    assert sheet.rows[0] == ("change", "2.00")
    assert {row[0] for row in sheet.rows} == set(FEATURES)
    units = rows_of(sheets.thresholds(contents))
    assert units["decider"][0] == "0.100 decider score"
    assert units["entropy mean"][0].endswith(" bits")
    assert sheets.gate_words(contents) == "decider, τ = 0.100 decider score, decides after every step"
    # Each draw of labels would fit the decider anew, so there is no table of numbers of labels.
    assert contents.sizes == ()
