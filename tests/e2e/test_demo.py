"""The demo whole, in its quick form: what it promises, in one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from justenough.calibration.calibration import load_calibration
from justenough.cli import main
from justenough.trace.files import read_traces
from tests.reports import few_draws


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    with few_draws():
        assert main(["demo", "--quick", "--out", str(out)]) == 0
    return out / "quick"


def test_the_four_files_are_there(demo: Path) -> None:
    traces = read_traces(demo / "traces.parquet").traces
    calibration = load_calibration(demo / "calibration.json")
    assert {len(trace.steps) for trace in traces} == {2}
    assert calibration.n == 10
    assert not set(calibration.fitted_on) & {trace.hashed_id for trace in traces}
    assert (demo / "report.html").stat().st_size > 10_000


def test_the_summary_shows_what_was_promised(demo: Path) -> None:
    summary = json.loads((demo / "summary.json").read_text())
    assert summary["problems"] == 180
    assert 0.5 <= summary["accuracy_first"] <= 0.8
    assert 0.9 <= summary["accuracy_full"] < 1.0
    assert summary["cohens_d"] >= 1.5
    assert summary["auroc"] >= 0.90
    assert summary["auroc_within_groups"] >= 0.80
    assert summary["draws"]["draws"] >= 200
    assert summary["draws"]["saving"]["mean"] >= 0.25
    assert summary["draws"]["accuracy_change"]["mean"] >= -0.01
    assert set(summary["families"]) == {"product", "remainder", "sum"}
    assert {"always-one-step", "all-steps", "oracle", "recommended"} <= set(summary["rules"])
    assert 0 <= summary["draw_percentile"] <= 1


def test_the_live_run_is_the_replay(demo: Path) -> None:
    live = json.loads((demo / "summary.json").read_text())["live"]
    assert live["equal_to_replay"] == live["problems"] == 60
    assert live["tokens_gated"] < live["tokens_full"]
    assert live["right_full"] / live["problems"] >= 0.9
    assert live["right_gated"] >= live["right_full"] - 3


def test_the_siblings_contrast(demo: Path) -> None:
    siblings = json.loads((demo / "summary.json").read_text())["siblings"]
    assert not siblings["overconfident"]["advisable"]
    assert siblings["overconfident"]["accuracy_first"] < siblings["repaired"]["accuracy_first"]


def test_a_second_run_makes_nothing_again(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (demo / "summary.json").read_text()
    with few_draws():
        assert main(["demo", "--quick", "--out", str(demo.parent), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    was = json.loads(before)
    for changing in ("live",):
        summary.pop(changing)
        was.pop(changing)
    assert summary == was
