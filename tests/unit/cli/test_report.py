"""`justenough report`: one file in the format of its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from justenough.trace.files import write_traces
from tests.builders import population
from tests.unit.cli.invoke import run


@pytest.mark.parametrize(("suffix", "start"), [("html", "<!doctype html>"), ("md", "# "), ("json", "{")])
def test_the_suffix_chooses_the_format(suffix: str, start: str, traces: Path, tmp_path: Path) -> None:
    out = tmp_path / f"report.{suffix}"
    result = run("report", traces, "--out", out)
    assert (result.code, result.out) == (0, "")
    assert result.err == f"wrote {out}\n"
    assert out.read_text().lower().startswith(start)


def test_problems_of_the_calibration_are_left_out(traces: Path, tmp_path: Path) -> None:
    calibration, out = tmp_path / "c.json", tmp_path / "r.json"
    assert run("calibrate", traces, "-n", 20, "--out", calibration).code == 0
    assert run("report", traces, "--calibration", calibration, "--out", out).code == 0
    reply = json.loads(out.read_text())
    assert (reply["problems"], reply["left_out"]) == (130, 20)


def test_an_unknown_suffix_is_refused(traces: Path, tmp_path: Path) -> None:
    result = run("report", traces, "--out", tmp_path / "r.docx")
    assert result.code == 2
    assert ".docx" in result.error
    assert not (tmp_path / "r.docx").exists()


def test_bad_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    write_traces(population(60, seed=2), path)
    with path.open("a") as file:
        file.write("{\n")
    assert f"{path}:61: no JSON" in run("report", path, "--out", tmp_path / "r.md").error
    result = run("report", path, "--skip-bad", "--out", tmp_path / "r.md")
    assert result.code == 0
    assert "skipped 1 bad line" in result.err


def test_a_gate_that_never_stops_is_said_with_a_remedy(traces: Path, tmp_path: Path) -> None:
    calibration, out = tmp_path / "c.json", tmp_path / "r.txt"
    assert run("calibrate", traces, "-n", 20, "--min-tokens", 10**6, "--out", calibration).code == 0
    assert run("report", traces, "--calibration", calibration, "--out", out).code == 0
    text = " ".join(out.read_text().split())
    assert "No: the gate stopped at no problem" in text
    assert "fewer --min-tokens" in text
