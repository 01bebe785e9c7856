"""The distributions, curves and families of the report."""

from __future__ import annotations

import numpy as np
import pytest

from justenough.report import data
from justenough.report.data import ROC_POINTS, Contents, Scale, histogram, reliability, roc, scale, swept
from tests.reports import Case, contents_of, stand_in


def test_curves_agree_with_the_figures(case: Case) -> None:
    result = contents_of(case)
    evidence = case.evaluation.separation
    curve = np.array([(0.0, 0.0), *result.roc])
    area = float(np.trapezoid(curve[:, 1], curve[:, 0]))
    assert evidence.auroc is not None
    assert area == pytest.approx(evidence.auroc.value)
    assert sum(entry.right for entry in result.histogram) == evidence.right
    assert sum(entry.wrong for entry in result.histogram) == evidence.wrong
    assert sum(entry.share.n for entry in result.reliability) == evidence.right + evidence.wrong
    assert sum(entry.share.value * entry.share.n for entry in result.reliability) == pytest.approx(evidence.right)
    stopped = [row.stopped for row in result.sweep]
    assert stopped == sorted(stopped)
    assert stopped[-1] == 1
    weights = [row.problems / case.evaluation.problems for row in result.families]
    gated = sum(weight * row.gated for weight, row in zip(weights, result.families, strict=True))
    assert gated == pytest.approx(case.evaluation.gated.accuracy)


def test_a_scale_is_logarithmic_if_most_values_are_close_to_zero() -> None:
    crowded = scale(np.geomspace(1e-5, 1.0, 200))
    assert crowded.kind == "log"
    assert crowded.low == pytest.approx(0.9e-4)
    assert crowded.high == pytest.approx(1.1)
    spread = scale(np.linspace(0.1, 2.0, 50))
    assert spread == Scale("linear", 0.0, 2.08)


@pytest.mark.parametrize("values", [[], [0.0, 0.0]])
def test_a_scale_without_positive_values_goes_to_one(values: list[float]) -> None:
    assert scale(np.array(values)) == Scale("linear", 0.0, 1.0)


def test_edges_have_equal_width_on_the_axis() -> None:
    assert Scale("linear", 0.0, 4.0).edges(4).tolist() == [0, 1, 2, 3, 4]
    assert Scale("log", 0.01, 1.0).edges(2) == pytest.approx([0.01, 0.1, 1.0])


def test_values_outside_the_axis_are_in_the_end_bins() -> None:
    bins = histogram(np.array([-1.0, 0.5, 9.0]), np.array([True, True, False]), Scale("linear", 0.0, 1.0))
    assert bins[0].right == 1
    assert bins[-1].wrong == 1
    assert sum(entry.right + entry.wrong for entry in bins) == 3


def test_the_roc_curve_of_perfect_separation_goes_through_the_corner() -> None:
    assert roc(np.array([0.1, 0.2, 0.8, 0.9]), np.array([True, True, False, False])) == (
        (0.0, 0.0), (0.0, 0.5), (0.0, 1.0), (0.5, 1.0), (1.0, 1.0)
    )  # fmt: skip


@pytest.mark.parametrize("correct", [True, False])
def test_there_is_no_roc_curve_of_one_kind_of_answer(correct: bool) -> None:
    assert roc(np.array([0.1, 0.2]), np.array([correct, correct])) == ()


def test_a_long_roc_curve_is_thinned() -> None:
    values = np.linspace(0, 1, 1001)
    assert len(roc(values, np.arange(1001) % 2 == 0)) == ROC_POINTS + 1


def test_equal_values_share_a_reliability_bin() -> None:
    values = np.array([0.0] * 15 + [1.0] * 15)
    bins = reliability(values, values < 0.5)
    assert [(entry.low, entry.high, entry.share.n, entry.share.value) for entry in bins] == [
        (0.0, 0.0, 15, 1.0),
        (1.0, 1.0, 15, 0.0),
    ]


def test_the_threshold_of_the_gate_gives_the_figures_of_the_gate(case: Case, contents: Contents) -> None:
    row = swept(contents.table, contents.settings, contents.settings.threshold)
    gated = case.evaluation.gated
    assert gated.saving is not None
    assert gated.harm is not None
    assert (row.accuracy, row.stopped) == (gated.accuracy, gated.stopped)
    assert row.saving == pytest.approx(gated.saving.value)
    assert row.harm == pytest.approx(gated.harm.value)
    never = swept(contents.table, contents.settings, None)
    assert (never.saving, never.change, never.stopped) == (0, 0, 0)


def test_the_signal_has_a_name_and_a_unit(contents: Contents) -> None:
    assert (contents.quantity, contents.unit) == ("entropy", "bits")
    other = contents_of(stand_in())
    assert other.quantity == other.unit == other.evaluation.signal.unit


def test_only_the_first_problems_are_kept(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PROBLEMS", 5)
    result = contents_of(case)
    assert [trace.id for trace in result.traces] == [trace.id for trace in case.traces[:5]]
    assert len(result.table) == len(case.traces)
