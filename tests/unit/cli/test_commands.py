"""The command line as others script it: outputs, exit codes, one clear line for each error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from justenough.calibration.calibration import load_calibration
from justenough.cli import main
from justenough.cli.main import COMMANDS, build_parser
from justenough.trace.files import read_traces, write_traces
from tests.builders import population, step, trace


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    path = tmp_path / "traces.parquet"
    write_traces(population(150, seed=2), path)
    return path


def run(*arguments: object) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        return int(exit_.code or 0)


def test_help_names_every_command_and_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert command in shown
        assert run(command, "--help") == 0
    assert "exit codes" in shown
    assert "examples:" in shown


def test_every_command_can_be_parsed_at_once() -> None:
    assert build_parser().parse_args(["solve", "47*36"]).problem == "47*36"


def test_calibrate_then_evaluate(traces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "calibration.json"
    assert run("calibrate", traces, "-n", 20, "--seed", 3, "--out", out, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == made
    assert (made["n"], made["seed"], made["method"], len(made["fitted_on"])) == (20, 3, "mean", 20)
    assert run("evaluate", traces, "--calibration", out, "--draws", 5, "--json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["problems"], found["left_out"], found["calibrated"]) == (130, 20, True)
    assert run("evaluate", traces, "--calibration", out, "--draws", 5) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "entropy-mean" in captured.err


def test_jsonl_and_parquet_are_alike(traces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = tmp_path / "traces.jsonl"
    write_traces(read_traces(traces).traces, lines)
    shown = []
    for path in (traces, lines):
        assert run("evaluate", path, "--draws", 5, "--json") == 0
        shown.append(json.loads(capsys.readouterr().out))
    assert shown[0] == shown[1]


def test_what_does_not_separate_is_refused_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "blind.jsonl", tmp_path / "calibration.json"
    write_traces(population(400, seed=1, right=0.5, wrong=0.5), path)
    assert run("calibrate", path, "--out", out) == 1
    assert "not advisable" in capsys.readouterr().err
    assert not out.exists()
    assert run("calibrate", path, "--out", out, "--force") == 0
    assert "forced" in capsys.readouterr().err
    assert run("diagnose", path, "--json") == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "absent"


def test_nothing_certified_is_a_no(traces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "c.json"
    assert run("calibrate", traces, "--threshold", "risk", "--max-harm", 0.001, "--out", out) == 1
    assert "2845 labels" in capsys.readouterr().err  # (1 - .001)^2995 ≤ .05, less the 150 at hand
    assert run("calibrate", traces, "--threshold", "risk", "--max-harm", 0.2, "--out", out) == 0
    assert "at most 20.00%" in capsys.readouterr().err


def test_diagnose_tells_several_models_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "two.parquet"
    knows, blind = population(150, seed=2), population(400, seed=1, right=0.5, wrong=0.5, model="blind")
    write_traces([*knows, *blind], path)
    assert run("diagnose", path, "--json") == 1
    found = json.loads(capsys.readouterr().out)["models"]
    assert {model: made["verdict"] for model, made in found.items()} == {"model": "separates", "blind": "absent"}
    assert run("diagnose", path) == 1
    shown = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in shown[2:]] == ["model", "blind"]
    write_traces([*knows, *population(150, seed=3, model="knows too")], path)
    assert run("diagnose", path) == 0
    capsys.readouterr()
    silent = [replace(one, model="silent", steps=(replace(one.steps[0], answer=None, correct=None),)) for one in blind]
    write_traces([*knows, *silent], path)
    assert run("diagnose", path, "--answered-only") == 1
    told = capsys.readouterr().err
    assert "separates" in told
    assert "silent: every first step is unanswered" in told
    assert run("diagnose", path, "--answered-only", "--json") == 1
    assert "unanswered" in json.loads(capsys.readouterr().out)["models"]["silent"]["error"]


def test_ungraded_traces_are_diagnosed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bare.jsonl"
    write_traces([trace(step(0.5, correct=None))], path)
    assert run("diagnose", path) == 1
    shown = capsys.readouterr().err
    assert "cannot tell" in shown
    assert "ungraded (1 of 1)" in shown


def test_diagnose_says_yes(traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("diagnose", traces, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "separates"
    assert found["extension_gain"]["value"] > 0
    assert isinstance(found["defects"], list)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["calibrate", "nowhere.parquet", "--out", "x.json"], "no file nowhere.parquet"),
        (["evaluate", "{traces}", "--rules", "magic"], "unknown rule 'magic'"),
        (["evaluate", "{traces}", "--calibration", "nowhere.json"], "nowhere.json"),
        (["evaluate", "{traces}", "--margin", "7"], "margin"),
        (["diagnose"], "TRACES, or --model"),
        (["diagnose", "--model", "embedded"], "needs --tasks"),
        (["solve", "Who wrote Faust?"], "product"),
        (["solve", "47*36", "--model", "magic:1"], "unknown model 'magic:1'"),
        (["solve", "47*36", "--model", "embedded:gigantic"], "gigantic"),
        (["solve", "47*36", "--temperature", "-1"], "temperature"),
        (["collect", "--model", "embedded", "--tasks", "nowhere.jsonl", "--out", "x.parquet"], "no task"),
        (["collect", "--model", "embedded", "--tasks", "arithmetic", "--grader", "magic", "--out", "x"], "grader"),
        (["calibrate", "{traces}", "-n", "0", "--out", "x.json"], "n is 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], said: str, traces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(argument.format(traces=traces) for argument in arguments)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert len(shown.err.strip().splitlines()) == 1


def test_too_few_examples_is_a_no(traces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("calibrate", traces, "-n", 151, "--out", "x.json") == 1
    assert "150 are there" in capsys.readouterr().err


def test_bad_lines_end_the_command_or_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "some.jsonl"
    write_traces([trace(step(0.2), step(0.1), id=str(number)) for number in range(20)], path)
    with path.open("a") as file:
        file.write('{"id": "x"}\n')
    assert run("diagnose", path) == 2
    assert f"{path}:21: model is missing" in capsys.readouterr().err
    assert run("diagnose", path, "--skip-bad") == 1
    assert "left out 1 bad lines" in capsys.readouterr().err


def test_bad_rows_of_parquet_are_counted_by_calibrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    write_traces([trace(step(0.2 + number / 50), id=str(number)) for number in range(20)], good)
    rows = pq.read_table(good)
    nameless = rows.set_column(0, "id", pa.nulls(len(rows), pa.string()))
    for path, table in ((good, pa.concat_tables([rows, nameless])), (bad, nameless)):
        pq.write_table(table, path)
    out = tmp_path / "made.json"
    assert run("calibrate", good, "--out", out) == 2
    assert f"{good}:21: id is" in capsys.readouterr().err
    assert run("calibrate", good, "--skip-bad", "--out", out) == 0
    assert "left out 20 bad lines" in capsys.readouterr().err
    assert load_calibration(out).n == 20
    assert run("calibrate", good, "--skip-bad", "-n", 21, "--out", out) == 1
    assert "left out 20 bad lines" in capsys.readouterr().err
    capsys.readouterr()
    assert run("calibrate", bad, "--skip-bad", "--out", out) == 2
    assert "left out 20 bad lines" in capsys.readouterr().err


def test_solve_prints_and_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("solve", "What is 7 times 18?", "--target", "126", "--verify") == 0
    shown = capsys.readouterr().out
    assert "answer: 126 (right)" in shown
    assert "step 1: <think>7*18=126" in shown
    assert "\x1b" not in shown
    assert run("solve", "7*18", "--json", "--verify", "--target", "126") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["answer"], found["correct"]) == ("126", True)
    assert found["tokens"] <= found["all_steps"]["tokens"]
    assert found["steps"][0]["reason"] in ("confident", "uncertain")


def test_solve_stops_where_its_calibration_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    from justenough.calibration.calibration import load_calibration
    from justenough.toy.backend import shipped_calibration

    made = load_calibration(shipped_calibration())
    path = tmp_path / "calibration.json"
    for threshold, steps in ((100.0, 1), (-1.0, 4)):
        path.write_text(replace(made, threshold=threshold).dumps())
        assert run("solve", "47*36", "--calibration", path, "--json") == 0
        assert len(json.loads(capsys.readouterr().out)["steps"]) == steps
    assert run("solve", "47*36", "--calibration", path, "--shape", "streaming") == 2
    assert "splitter" in capsys.readouterr().err
    assert run("solve", "47*36", "--calibration", path, "--top-k", "5") == 2
    assert "top_k" in capsys.readouterr().err


def test_collect_writes_resumes_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "traces.parquet"
    wanted = ("collect", "--model", "embedded", "--tasks", "sum", "--limit", 6, "--out", out, "--json")
    assert run(*wanted) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["problems"], first["reused"]) == (6, 0)
    assert run(*wanted) == 0
    assert json.loads(capsys.readouterr().out)["reused"] == 6
    assert run(*wanted, "--temperature", 0.5) == 2
    assert "other settings" in capsys.readouterr().err
    assert {made.family for made in read_traces(out).traces} == {"sum"}


def test_import_reports_each_bad_line_and_counts_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    write_traces([trace(id="a"), trace(id="b")], path)
    good = path.read_text().splitlines()
    path.write_text("\n".join([good[0], "{", good[1], '{"id": "c"}']))
    assert run("import", path, "--format", "justenough", "--out", out) == 0
    shown = capsys.readouterr().err
    assert f"{path}:2: " in shown
    assert f"{path}:4: " in shown
    assert "2 traces kept, 2 bad lines" in shown
    assert run("import", path, "--format", "justenough", "--out", out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kept"], found["bad"], [bad["line"] for bad in found["bad_lines"]]) == (2, 2, [2, 4])
    assert all(bad["reason"] for bad in found["bad_lines"])
    assert len(read_traces(out).traces) == 2
