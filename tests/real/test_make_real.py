"""`make real` with the smallest real model: obtained, verified, served, collected, stopped live, and reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.real.campaign import journaled
from benchmarks.real.leash import ROOT
from benchmarks.real.packages import catalogue
from justenough.trace.files import read_traces

pytestmark = pytest.mark.real

NAME = "smollm2-135m"
CACHE = Path(os.environ.get("JUSTENOUGH_REAL_CACHE", Path.home() / ".cache" / "justenough-real"))
"""Outside pytest's own folders, so that the weights are downloaded once."""


def command(out: Path, *more: str) -> list[str]:
    arguments = ["--model", NAME, "--problems", "12", "--live", "3", "--threads", "1"]
    return [sys.executable, "-m", "benchmarks.real.run", *arguments, "--cache", str(CACHE), "--out", str(out), *more]


def test_the_whole_story_goes_on_after_a_kill(tmp_path: Path) -> None:
    out = tmp_path / "real"
    journal = out / f"{NAME}.capitals.sequential.parquet.part.jsonl"
    with subprocess.Popen(command(out), cwd=ROOT) as killed:
        deadline = time.monotonic() + 900
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 5):
            assert killed.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        killed.send_signal(signal.SIGKILL)
    kept = journaled(journal)
    assert len(kept) > 3

    done = subprocess.run(command(out), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tokens/s" in done.stderr
    summary = json.loads((out / "summary.json").read_text())
    assert summary["sha256"] == catalogue()[NAME].sha256
    shape = summary["shapes"]["sequential"]
    assert shape["problems"] == 12
    live = shape["live"]
    assert live["problems"] == 3
    assert live["tokens_alone"] > 0
    assert set(live["decisions"]) <= {"stopped", "finished"}
    traces = read_traces(out / shape["traces"]).traces
    collected = {trace.id: trace for trace in traces}
    # A step that ran again would have taken another time.
    for before in kept:
        steps = collected[before.id].steps[: len(before.steps)]
        assert [step.latency_s for step in steps] == [step.latency_s for step in before.steps]
    assert all(len(trace.steps) == 4 for trace in traces)
    assert "<h2>Live</h2>" in (out / "report.html").read_text()

    # Nothing is left to do, and the figures stay.
    again = subprocess.run(command(out), cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "about 0 tokens" in again.stderr
    assert json.loads((out / "summary.json").read_text())["shapes"] == summary["shapes"]


def test_weights_that_were_changed_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "cache" / "models" / catalogue()[NAME].file
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"GGUF")
    done = subprocess.run(
        [*command(tmp_path / "real"), "--cache", str(tmp_path / "cache")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "has 4 bytes and should have 98,362,432" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "real").exists()
