"""The contrast, through the command line: a confidently wrong model is refused, the repaired one is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from justenough.cli import main


def collected(name: str, folder: Path) -> Path:
    out = folder / f"{name}.parquet"
    wanted = ["collect", "--model", f"embedded:{name}", "--tasks", "arithmetic-calibration", "--limit", "300"]
    assert main([*wanted, "--steps", "1", "--out", str(out)]) == 0
    return out


def test_the_confidently_wrong_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traces = collected("overconfident", tmp_path)
    capsys.readouterr()
    assert main(["diagnose", str(traces), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    # Pooled, it looks as if the signal were there; within difficulty levels it is next to nothing.
    assert found["cohens_d"] > 1.0
    assert found["auroc_within_groups_ci"][0] <= 0.60
    out = tmp_path / "calibration.json"
    assert main(["calibrate", str(traces), "--out", str(out)]) == 1
    assert not out.exists()
    assert main(["calibrate", str(traces), "--out", str(out), "--force"]) == 0
    assert any("forced" in warning for warning in json.loads(out.read_text())["warnings"])


def test_the_repaired_model_is_not_refused(tmp_path: Path) -> None:
    traces = collected("repaired", tmp_path)
    assert main(["diagnose", str(traces)]) == 0
    assert main(["calibrate", str(traces), "--out", str(tmp_path / "calibration.json")]) == 0
