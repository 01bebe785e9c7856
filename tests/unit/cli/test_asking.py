"""`calibrate --ask`: questions in the terminal and in a file; judgements are kept, and the work goes on."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from justenough.calibration.calibration import load_calibration
from justenough.trace.files import write_traces
from tests.unit.calibration.test_asking import without_grades
from tests.unit.calibration.test_decider import runs
from tests.unit.cli.invoke import Result, run

GRADED = runs(200)
ASK = ("--threshold", "risk", "--decide", "every", "--max-harm", "0.2")


@pytest.fixture
def ungraded(tmp_path: Path) -> Path:
    path = tmp_path / "ungraded.parquet"
    write_traces(without_grades(GRADED), path)
    return path


@pytest.fixture
def threshold(tmp_path: Path) -> float | None:
    """The threshold that all labels give."""
    path, out = tmp_path / "graded.parquet", tmp_path / "full.json"
    write_traces(GRADED, path)
    assert run("calibrate", path, *ASK, "--out", out).code == 0
    return load_calibration(out).threshold


class Person:
    """Sits at a terminal, judges by the grades, and leaves after `most` answers."""

    def __init__(self, *, most: int = 10_000) -> None:
        self.left = most

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        self.left -= 1
        assert isinstance(sys.stderr, io.StringIO)
        # The answer 1 is right in these traces.
        right = sys.stderr.getvalue().rpartition("answer:")[2].split()[0] == "1"
        return "q\n" if self.left < 0 else "y\n" if right else "no\n"


def ask(traces: Path, out: Path, *options: object) -> Result:
    return run("calibrate", traces, *ASK, "--ask", "--out", out, *options)


def test_a_person_at_the_terminal_may_leave_and_go_on(
    ungraded: Path, tmp_path: Path, threshold: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "asked.json"
    monkeypatch.setattr(sys, "stdin", Person(most=3))
    first = ask(ungraded, out)
    assert first.code == 1
    assert "keeps your judgements" in first.err
    assert not out.exists()
    lines = (tmp_path / "asked.labels.jsonl").read_text().splitlines()
    assert [json.loads(line)["right"] is None for line in lines].count(False) == 3
    monkeypatch.setattr(sys, "stdin", Person())
    then = ask(ungraded, out)
    assert then.code == 0, then.err
    calibration = load_calibration(out)
    assert calibration.threshold == threshold
    assert f"{calibration.judged} labels; full labelling would have taken {calibration.judged_in_full}" in then.out
    assert then.err.count("is it right?") == (calibration.judged or 0) - 3


def test_without_a_terminal_the_questions_are_a_file_to_fill_in(
    ungraded: Path, tmp_path: Path, threshold: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, labels = tmp_path / "asked.json", tmp_path / "labels.jsonl"
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    rounds = 0
    while (result := run("calibrate", ungraded, *ASK, "--ask", labels, "--out", out)).code == 1:
        rounds += 1
        lines = [json.loads(line) for line in labels.read_text().splitlines()]
        empty = [line for line in lines if line["right"] is None]
        assert 0 < len(empty) <= 20
        assert f"fill in `right` (true or false) in {len(empty)} lines" in result.err
        for line in empty:
            line["right"] = line["answer"] == "1"
        labels.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert result.code == 0
    assert rounds > 1
    calibration = load_calibration(out)
    assert calibration.threshold == threshold
    # A round asks for answers that its other judgements may make needless.
    assert calibration.judged is not None
    assert len(lines) > calibration.judged > 0
    assert f"{labels} holds {len(lines)} judgements: some were not needed in the end" in result.out


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "line 1"),
        ('{"id": "p-1", "answer": "1", "right": "maybe"}', "line 1"),
        ('\n{"id": "p-1"}', "line 2"),
        ("[" * 100_000, "line 1"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_error(ungraded: Path, tmp_path: Path, text: str, problem: str) -> None:
    labels = tmp_path / "labels.jsonl"
    labels.write_text(text)
    refused = run("calibrate", ungraded, *ASK, "--ask", labels, "--out", tmp_path / "asked.json")
    assert refused.code == 2
    assert problem in refused.error
    assert labels.read_text() == text


@pytest.mark.parametrize("options", [("--threshold", "mean"), ("--threshold", "net"), ("--labels", "agreement")])
def test_options_that_need_all_labels_are_refused(ungraded: Path, tmp_path: Path, options: tuple[str, str]) -> None:
    refused = run("calibrate", ungraded, "--threshold", "risk", "--ask", *options, "--out", tmp_path / "asked.json")
    assert refused.code == 2
    assert "--ask" in refused.error
