"""A collection that is killed with SIGKILL, again and again, loses and repeats no problem."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from justenough.grading import read_tasks
from justenough.trace.files import read_traces

PROBLEMS = 40


def command(out: Path) -> list[str]:
    return [
        sys.executable, "-m", "justenough", "collect", "--model", "embedded", "--tasks", "arithmetic-calibration",
        "--limit", str(PROBLEMS), "--out", str(out),
    ]  # fmt: skip


def written(journal: Path) -> list[tuple[str, int]]:
    """(id, steps) of the whole lines of the journal."""
    if not journal.exists():
        return []
    lines = [line for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return [(row["id"], len(row["steps"])) for row in map(json.loads, lines[1:])]


def finished(journal: Path) -> list[str]:
    """Ids of the problems with all four steps."""
    return [name for name, steps in written(journal) if steps == 4]


def heeding_interrupts() -> None:
    """A suite that was started in the background ignores SIGINT, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_kill_nine_and_resume(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    journal = tmp_path / "traces.parquet.part.jsonl"
    known: list[str] = []
    kills = 0
    while kills < 3 and not out.exists():
        process = subprocess.Popen(command(out), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and len(finished(journal)) < len(known) + 4:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = finished(journal)
        if out.exists():
            break
        kills += 1
        assert now[: len(known)] == known  # nothing lost
        assert len(set(written(journal))) == len(written(journal))  # nothing repeated, no step either
        known = now
    assert kills >= 1
    done = subprocess.run(command(out), capture_output=True, text=True, check=True)
    assert f"{len(known)} of them from an earlier run" in done.stdout
    traces = read_traces(out).traces
    assert [trace.id for trace in traces] == [
        problem.id for problem in read_tasks("arithmetic-calibration", limit=PROBLEMS)
    ]
    assert not journal.exists()


def test_interrupted_by_hand_exits_130(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    process = subprocess.Popen(command(out), stderr=subprocess.PIPE, text=True, preexec_fn=heeding_interrupts)
    deadline = time.monotonic() + 60
    while len(finished(tmp_path / "traces.parquet.part.jsonl")) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; finished problems are kept" in shown
