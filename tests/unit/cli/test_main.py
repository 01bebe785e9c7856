"""The command line as a whole: help, exit codes, streams, and errors of one line."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.cli.main import COMMANDS, TITLES, actions_of, build_parser, exit_code, main
from justenough.cli.paths import FILES, Output, folder
from justenough.errors import (
    BackendUnavailable,
    GatingRefused,
    InputError,
    Interrupted,
    JustEnoughError,
    MissingExtra,
    NothingCertified,
)
from justenough.trace.files import read_traces, write_traces
from tests.builders import population
from tests.unit.cli.invoke import run


def test_help_names_every_command_and_has_examples() -> None:
    result = run("--help")
    assert result.code == 0
    for command in COMMANDS:
        assert re.search(rf"^    {command}\b", result.out, flags=re.MULTILINE)
    titles = re.findall(r"^  (.*):$", result.out, flags=re.MULTILINE)
    assert titles == list(TITLES.values())
    assert "exit codes:" in result.out
    assert "examples:" in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_explains_each_option(command: str) -> None:
    result = run(command, "--help")
    assert (result.code, result.err) == (0, "")
    parser = build_parser(command)
    own = next(action for action in parser._actions if action.dest == "command").choices
    assert own is not None
    for action in own[command]._actions:  # type: ignore[index]
        assert action.help, f"{command} {action.dest} has no help"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_that_is_valid(command: str) -> None:
    _, example = COMMANDS[command]
    assert f"example:\n  justenough {command} {example}\n" in run(command, "--help").out
    assert build_parser(command).parse_args([command, *shlex.split(example)]).command == command


def test_only_the_arguments_of_one_command_are_needed_to_parse_it() -> None:
    assert build_parser().parse_args(["solve", "47*36"]).problem == "47*36"
    assert build_parser("solve").parse_args(["solve", "47*36"]).problem == "47*36"


def test_an_unknown_command_is_exit_2() -> None:
    result = run("fly")
    assert (result.code, result.error.startswith("justenough: COMMAND: invalid choice: 'fly'")) == (2, True)
    assert result.error.endswith("(all options: justenough --help)")


def test_without_a_command_the_help_shows_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    code = main([])
    output, error = capsys.readouterr()
    assert (code, output) == (2, "")
    assert all(f"\n    {command}" in error for command in COMMANDS)


def test_an_unknown_option_names_the_one_that_looks_like_it() -> None:
    result = run("serve", "--calibratoin=c.json")
    assert result.code == 2
    end = "unknown arguments: --calibratoin=c.json (did you mean --calibration? all options: justenough serve --help)"
    assert result.error.endswith(end)
    assert run("diagnose", "a", "b").error.endswith("unknown arguments: b (all options: justenough diagnose --help)")


def test_the_version_goes_to_stdout() -> None:
    assert run("--version").out.startswith("justenough 0.")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 2),
        (BackendUnavailable("x"), 2),
        (MissingExtra("torch", extra="hf"), 2),
        (GatingRefused("x"), 1),
        (NothingCertified("x", needed=1), 1),
        (Interrupted("x"), 3),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: JustEnoughError, code: int) -> None:
    assert exit_code(error) == code


# The package has a function of the same name.
MODULE = sys.modules["justenough.cli.main"]


class Failing:
    """A command that raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def add(self, parser: object) -> None:
        """It has no arguments."""

    def run(self, options: object) -> int:
        """Raise."""
        raise self.error


def test_an_error_is_one_line_that_cannot_control_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    error = BackendUnavailable("no\nanswer \x1b[2J from \x9bhost", hint="start it")
    monkeypatch.setattr(MODULE, "load", lambda name: Failing(error))
    result = run("demo")
    assert result.code == 2
    assert result.error == "justenough demo: no answer �[2J from �host (start it)"
    monkeypatch.setattr(MODULE, "load", lambda name: Failing(BackendUnavailable("no answer")))
    assert run("demo").error == "justenough demo: no answer (try again later)"


def test_an_interrupt_is_exit_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "load", lambda name: Failing(KeyboardInterrupt()))
    for command, left in {
        "demo": "finished problems are kept, and the same command resumes",
        "calibrate": "no calibration was written; judgements of --ask are kept",
        "evaluate": "no file was written",
    }.items():
        result = run(command)
        assert (result.code, result.error) == (130, f"justenough: interrupted; {left}")


def test_an_interrupt_while_a_command_is_loaded_is_exit_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MODULE, "load", load)
    assert run("solve", "7*6").code == 130


def test_other_exceptions_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "load", lambda name: Failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        run("demo")


def justenough(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "justenough", *map(str, arguments)]


def test_a_reader_that_leaves_early_is_no_error(traces: Path) -> None:
    """As in `justenough evaluate … | head -1`: the pipe is closed before the first byte."""
    reading, writing = os.pipe()
    os.close(reading)
    outcome = subprocess.run(
        justenough("diagnose", traces), stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (outcome.returncode, outcome.stderr) == (0, "")


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "{traces}", "--draws", "5", "--rules", "oracle"],
        ["diagnose", "{traces}"],
        ["budget", "{traces}", "--total", "200"],
        ["calibrate", "{traces}", "--out", "{folder}/c.json"],
        ["import", "{traces}", "--format", "justenough", "--out", "{folder}/copy.jsonl"],
        ["collect", "--model", "embedded", "--tasks", "sum", "--limit", "2", "--out", "{folder}/o.jsonl"],
        ["solve", "47*36"],
    ],
)
def test_results_go_to_stdout(command: list[str], traces: Path) -> None:
    """`justenough … > out.txt` keeps the result, as text and as one JSON object."""
    arguments = [argument.format(traces=traces, folder=traces.parent) for argument in command]
    result = run(*arguments)
    assert result.code == 0
    assert result.out.strip()
    reply = run(*arguments, "--json")
    assert reply.out.count("\n") == 1
    assert reply.json


@pytest.mark.parametrize(
    "command",
    [["evaluate", "--draws", "5", "--rules", "oracle"], ["diagnose", "--json"], ["calibrate", "--out", "{out}"]],
)
def test_a_result_that_cannot_be_written_is_one_line(command: list[str], traces: Path, tmp_path: Path) -> None:
    name, *rest = (part.format(out=tmp_path / "c.json") for part in command)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            justenough(name, traces, *rest), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    *notes, error = done.stderr.splitlines()
    assert done.returncode == 3
    assert error.startswith(f"justenough {name}: cannot write the result to stdout: No space left on device (free")
    assert all(note.startswith("warning: ") for note in notes)


def test_notes_that_cannot_be_written_do_not_stop_the_work(traces: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            justenough("diagnose", traces), stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert done.returncode == 0
    assert "AUROC" in done.stdout


def test_out_to_stdout_is_the_file_alone_and_the_result_goes_to_stderr(traces: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        justenough("calibrate", traces, "--out", "/dev/stdout"), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["method"] == "mean"
    assert "stop at or below" in done.stderr
    with (tmp_path / "log").open("a") as file:
        file.write("before\n")
        file.flush()
        done = subprocess.run(
            justenough("calibrate", traces, "--out", "-"), stdout=file, stderr=subprocess.PIPE, text=True, check=True
        )
    before, _, written = (tmp_path / "log").read_text().partition("\n")
    assert before == "before"
    assert json.loads(written)["method"] == "mean"
    assert "stop at or below" in done.stderr
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            justenough("calibrate", traces, "--out", "-"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("justenough calibrate: cannot write -: No space left on device")


def test_traces_can_come_from_stdin_and_go_to_stdout(traces: Path) -> None:
    copy = subprocess.run(
        justenough("import", traces, "--format", "justenough", "--out", "-"), capture_output=True, check=True
    )
    assert b"150 traces kept" in copy.stderr
    for command in (["diagnose", "-"], ["evaluate", "-", "--draws", "5", "--rules", "oracle"]):
        done = subprocess.run(justenough(*command), input=copy.stdout, capture_output=True, check=True)
        assert b"model" in done.stdout


def test_a_collection_needs_a_file() -> None:
    result = run("collect", "--model", "embedded", "--tasks", "sum", "--out", "-")
    assert result.code == 2
    assert "collect needs a file" in result.error


def test_evaluate_into_a_file_is_not_empty(traces: Path, tmp_path: Path) -> None:
    with (tmp_path / "out.txt").open("w") as file:
        subprocess.run(justenough("evaluate", traces, "--draws", 5), stdout=file, check=True)
    assert "entropy-mean" in (tmp_path / "out.txt").read_text()


EVIL = "m\x1b]0;owned\x07\x9b2J\u202e"


def test_escapes_in_files_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """Models, families and ids come from files of others; only `\\n` and `\\t` are left as they are."""
    path, calibration, other = tmp_path / "evil.jsonl", tmp_path / "c.json", tmp_path / "other.jsonl"
    evil = [replace(one, model=EVIL, family=EVIL, id=f"{EVIL}{one.id}") for one in population(150, seed=2)]
    write_traces(evil, path)
    write_traces(population(150, seed=3), other)
    assert run("calibrate", other, "--out", calibration).code == 0
    for arguments, code in (
        (("evaluate", path, "--draws", 5), 0),
        (("diagnose", path), 0),
        (("evaluate", path, "--calibration", calibration), 2),
        (("report", path, "--calibration", calibration, "--out", tmp_path / "r.html"), 2),
        (("budget", path, "--total", 200, "--fit", other), 2),
    ):
        result = run(*arguments)
        assert result.code == code
        assert "owned" in result.out + result.err
        assert not set("\x1b\x07\x9b\u202e") & set(result.out + result.err)
        if code == 0:
            reply = run(*arguments, "--json")
            assert not set("\x1b\x07\x9b\u202e") & set(reply.out)
            assert reply.json["model"] == EVIL


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["calibrate", "nowhere.parquet", "--out", "x.json"], "no file nowhere.parquet"),
        (["report", "nowhere.parquet", "--out", "x.html"], "no file nowhere.parquet"),
        (["evaluate", "{traces}", "--rules", "magic"], "unknown rule 'magic'"),
        (["evaluate", "{traces}", "--calibration", "nowhere.json"], "nowhere.json"),
        (["evaluate", "{traces}", "--prices", "nowhere.json"], "nowhere.json"),
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
        (["import", "nowhere.json", "--format", "openai", "--out", "x"], "no file nowhere.json"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments: list[str], message: str, traces: Path) -> None:
    result = run(*(argument.format(traces=traces) for argument in arguments))
    assert result.code == 2
    assert message in result.error
    assert result.error.startswith(f"justenough {arguments[0]}: ")


def test_parquet_and_jsonl_give_the_same_result(traces: Path, tmp_path: Path) -> None:
    lines = tmp_path / "traces.jsonl"
    write_traces(read_traces(traces).traces, lines)
    for command in (["evaluate", "--draws", 5], ["diagnose"], ["budget", "--total", 200]):
        one, other = (run(command[0], path, *command[1:], "--json") for path in (traces, lines))
        assert json.loads(one.out) == json.loads(other.out)


@pytest.mark.parametrize(
    "arguments", [["\x1b[31mx"], ["evaluate", "x", "--\x1b[31mx"], ["evaluate", "x", "--seed", "\x9b1"]]
)
def test_an_error_about_the_arguments_cannot_control_the_terminal(
    arguments: list[str],
) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "\x1b" not in result.err
    assert "\x9b" not in result.err


@pytest.mark.parametrize("command", ["calibrate", "report", "import"])
def test_an_input_is_not_replaced(traces: Path, tmp_path: Path, command: str) -> None:
    path = tmp_path / "copy.jsonl"
    path.write_bytes(traces.read_bytes())
    (tmp_path / "link.html").symlink_to(path)
    for out in (path, tmp_path / "link.html"):
        result = run(command, path, "--out", out)
        assert result.code == 2
        assert f"{out} is an input of this command and would be replaced" in result.error
    assert path.read_bytes() == traces.read_bytes()


def test_every_argument_that_names_a_path_says_whether_it_is_read_or_written() -> None:
    for action in actions_of(build_parser()):
        metavar = str(action.metavar)
        if any(word in metavar for word in ("FILE", "TRACES", "DIR", "CALIBRATION", "LABELLED")):
            is_output = action.dest in ("out", "plot", "record", "ledger", "recalibrated") and "DIR" not in metavar
            assert isinstance(action.type, Output) == is_output, action
            assert is_output or action.type in (*FILES, folder), action
        else:
            assert action.type is not Path, action


def test_an_output_replaces_only_a_file_of_its_own_kind(traces: Path, tmp_path: Path) -> None:
    calibration, report, notes = tmp_path / "c.json", tmp_path / "r.html", tmp_path / "notes.md"
    assert run("calibrate", traces, "--out", calibration).code == 0
    assert run("report", traces, "--out", report).code == 0
    notes.write_text("mine")
    collected = tmp_path / "collected.jsonl"
    write_traces([replace(one, settings="0" * 64) for one in population(150, seed=2)], collected)
    for command, out in (
        (["import", collected], calibration),
        (["import", traces], collected),
        (["calibrate", traces], collected),
        (["calibrate", traces], report),
        (["report", traces], notes),
        (["collect", "--model", "embedded", "--tasks", "arithmetic", "--limit", 1], calibration),
    ):
        before = out.read_bytes()
        result = run(*command, "--out", out)
        assert result.code == 2
        assert f"{out} exists, is not a" in result.error
        assert "(choose another --out, or delete that file)" in result.error
        assert out.read_bytes() == before
    # What the same command can make again is replaced, and so is an empty file.
    notes.write_text("")
    again = tmp_path / "imported.jsonl"
    for command, out in (
        (["calibrate", traces], calibration),
        (["report", traces], report),
        (["report", traces], notes),
    ):
        assert run(*command, "--out", out).code == 0
    assert [run("import", traces, "--out", again).code for _ in range(2)] == [0, 0]
