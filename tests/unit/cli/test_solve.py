"""`justenough solve`: the text, the JSON object, stopping, verifying and budgets."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.calibration.calibration import load_calibration
from justenough.cli.main import COMMANDS
from justenough.trace.files import write_traces
from tests.builders import population
from tests.unit.cli.invoke import run


def test_the_text_shows_steps_decisions_and_answer() -> None:
    result = run("solve", "What is 7 times 18?", "--target", "126", "--verify")
    assert (result.code, result.err) == (0, "")
    assert "answer: 126 (right)" in result.out
    assert "step 1: <think>7*18=126" in result.out
    assert " bits against " in result.out
    assert "stopping saved " in result.out
    assert "\x1b" not in result.out


def test_the_example_of_the_help_stops_and_saves() -> None:
    reply = run("solve", *shlex.split(COMMANDS["solve"][1]), "--json").json
    assert (reply["answer"], reply["stopped"], len(reply["steps"])) == ("106", True, 1)
    assert reply["saving"] > 0.5


@pytest.mark.parametrize("problem", ["7*6", "Who wrote Faust?"])
def test_a_problem_that_the_model_cannot_read_gets_examples(problem: str) -> None:
    error = run("solve", problem).error
    assert f"cannot read {problem!r}" in error
    assert all(example in error for example in ("7*18", "41+93-28", "5821%7"))


def test_the_json_object_has_every_step() -> None:
    reply = run("solve", "7*18", "--json", "--verify", "--target", "126").json
    assert (reply["answer"], reply["correct"], reply["model"]) == ("126", True, "justenough-embedded")
    assert reply["tokens"] == sum(step["tokens"] for step in reply["steps"])
    assert reply["tokens"] <= reply["all_steps"]["tokens"]
    assert reply["saving"] == 1 - reply["tokens"] / reply["all_steps"]["tokens"]
    assert reply["steps"][0]["reason"] in ("confident", "uncertain")
    assert "all_steps" not in run("solve", "7*18", "--json").json


def test_a_wrong_or_missing_target_is_shown() -> None:
    assert "answer: 126 (wrong)" in run("solve", "7*18", "--target", "127").out
    ungraded = run("solve", "7*18", "--json").json
    assert ungraded["correct"] is None


@pytest.fixture
def calibration(embedded: Path, tmp_path: Path) -> Path:
    path = tmp_path / "calibration.json"
    assert run("calibrate", embedded, "--force", "--out", path).code == 0
    return path


def test_the_calibration_decides_when_to_stop(calibration: Path) -> None:
    fit = load_calibration(calibration)
    for threshold, steps in ((100.0, 1), (-1.0, 2)):
        replace(fit, threshold=threshold).save(calibration)
        reply = run("solve", "47*36", "--calibration", calibration, "--json").json
        assert (len(reply["steps"]), reply["stopped"], reply["threshold"]) == (steps, steps == 1, threshold)


def test_a_calibration_of_another_run_is_refused(calibration: Path, tmp_path: Path) -> None:
    for option, message in ((("--shape", "streaming"), "splitter"), (("--top-k", "5"), "top_k")):
        result = run("solve", "47*36", "--calibration", calibration, *option)
        assert result.code == 2
        assert message in result.error
    other = tmp_path / "other.jsonl"
    write_traces(population(60, seed=2), other)
    assert run("calibrate", other, "--out", calibration).code == 0
    result = run("solve", "47*36", "--budget", 60, "--calibration", calibration, "--temperature", 0.6, "--json")
    assert result.code == 2
    assert "justenough-embedded" in result.error


def test_without_a_calibration_for_the_settings_nothing_stops() -> None:
    reply = run("solve", "47*36", "--temperature", 0.5, "--max-steps", 2, "--json").json
    assert (len(reply["steps"]), reply["stopped"], reply["threshold"]) == (2, False, None)
    assert reply["reason"] == "max_steps"


def test_the_budget_limits_the_tokens() -> None:
    free = run("solve", "47*36", "--json").json["tokens"]
    assert run("solve", "47*36", "--budget", free - 3, "--json").json["tokens"] <= free - 3
    assert len(run("solve", "47*36", "--budget", 1, "--unit", "calls", "--json").json["steps"]) == 1
    too_small = run("solve", "47*36", "--budget", 3, "--json")
    assert too_small.code == 2
    assert too_small.error == "justenough solve: 3 tokens were not enough for one step (raise the budget)"


def test_verify_and_budget_exclude_each_other() -> None:
    result = run("solve", "47*36", "--budget", 40, "--verify")
    assert result.code == 2
    assert "--verify runs all steps, which a --budget does not allow" in result.error


def test_a_streaming_run_is_shown_step_by_step() -> None:
    result = run("solve", "47*36", "--shape", "streaming", "--splitter", "tokens:8", "--max-tokens", 64)
    assert result.code == 0
    assert "step 2: " in result.out


STREAM = ("--shape", "streaming", "--splitter", "tokens:4", "--max-steps", 20)


def test_a_rule_stops_the_run_and_all_its_probes_are_shown() -> None:
    reply = run("solve", "47*36", "--rule", "dynasor:2", "--probe-every", 1, *STREAM, "--json").json
    assert reply["spent"] > reply["tokens"]
    assert {step["reason"] for step in reply["steps"]} <= {"rule", "max_steps", "no_threshold"}
    text = run("solve", "47*36", "--rule", "dynasor:2", "--probe-every", 1, *STREAM).out
    assert f"{reply['tokens']} tokens in {len(reply['steps'])} steps, {reply['spent']} with all probes" in text
    assert " of a probe, " in text
    assert "the stopping rule decides so" in text


def test_a_rule_takes_the_place_of_the_shipped_calibration() -> None:
    reply = run("solve", "47*36", "--rule", "always-2-steps", "--verify", "--json").json
    assert (len(reply["steps"]), reply["stopped"], reply["reason"], reply["threshold"]) == (2, True, "rule", None)
    assert reply["saving"] == 1 - reply["spent"] / reply["all_steps"]["tokens"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rule", "oracle"), "oracle cannot stop a live run"),
        (("--rule", "entropy-mean"), "entropy-mean is a gate (run it by its calibration)"),
        (("--rule", "deer:x"), "the rule deer:x needs a number"),
        (("--rule", "deer", "--probe-every", "often"), "the probes of deer are 'often' steps apart"),
        (("--probe-every", 4), "--probe-every is for a rule (give --rule NAME)"),
        (("--rule", "deer", "--calibration", "x.json"), "both --rule and --calibration decide when to stop"),
    ],
)
def test_a_rule_that_cannot_run_is_one_error(arguments: tuple[object, ...], message: str) -> None:
    result = run("solve", "47*36", *arguments)
    assert result.code == 2
    assert message in result.error


def test_a_calibration_brings_its_shape(tmp_path: Path) -> None:
    traces, path = tmp_path / "t.jsonl", tmp_path / "c.json"
    collect = ["collect", "--model", "embedded", "--tasks", "sum", "--limit", 4, "--shape", "streaming"]
    collect += ["--splitter", "tokens:8"]
    assert run(*collect, "--out", traces).code == 0
    assert run("calibrate", traces, "--force", "--labels", "agreement", "--out", path).code == 0
    replace(load_calibration(path), threshold=-1.0).save(path)
    reply = run("solve", "41+93-28", "--calibration", path, "--splitter", "tokens:8", "--json").json
    # No step is confident, so the whole thought is followed: it has more parts than a sequential run has steps.
    assert 4 < len(reply["steps"]) <= load_calibration(path).max_steps
    assert (
        "splitter is 'completion', the calibration's 'tokens:8'"
        in run("solve", "41+93-28", "--calibration", path, "--shape", "sequential").error
    )
