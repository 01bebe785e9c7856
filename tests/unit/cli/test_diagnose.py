"""`justenough diagnose`: verdicts, several models, defects, and problems that are run first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from justenough.trace.files import write_traces
from tests.builders import population, step, trace
from tests.unit.cli.invoke import run


def test_a_signal_that_separates_is_a_yes(traces: Path) -> None:
    result = run("diagnose", traces, "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json["verdict"] == "separates"
    assert result.json["extension_gain"]["value"] > 0
    assert result.json["defects"] == []
    text = run("diagnose", traces)
    assert text.code == 0
    assert text.out.startswith("model: separates; a gate is advisable\n150 of 150 problems measured, ")
    assert "running all steps changes the accuracy by +" in text.out


def test_a_signal_that_says_nothing_is_a_no(blind: Path) -> None:
    result = run("diagnose", blind, "--json")
    assert result.code == 1
    assert (result.json["verdict"], result.json["advisable"]) == ("absent", False)
    assert "a gate is not advisable" in run("diagnose", blind).out


def test_ungraded_traces_are_diagnosed_too(tmp_path: Path) -> None:
    path = tmp_path / "bare.jsonl"
    write_traces([trace(step(0.5, correct=None))], path)
    result = run("diagnose", path)
    assert result.code == 1
    assert "cannot tell" in result.out
    assert "defect: ungraded (1 of 1)" in result.out


def test_several_models_are_one_table(tmp_path: Path) -> None:
    path = tmp_path / "two.parquet"
    knows, blind = population(150, seed=2), population(400, seed=1, right=0.5, wrong=0.5, model="blind")
    write_traces([*blind, *knows], path)
    reply = run("diagnose", path, "--json")
    assert reply.code == 1
    assert {model: one["verdict"] for model, one in reply.json["models"].items()} == {
        "model": "separates",
        "blind": "absent",
    }
    result = run("diagnose", path)
    assert result.code == 1
    # The model with the best separation comes first.
    assert [line.split()[0] for line in result.out.splitlines()[2:]] == ["model", "blind", "next:"]
    write_traces([*knows, *population(150, seed=3, model="knows too")], path)
    assert run("diagnose", path).code == 0


def test_a_model_that_cannot_be_diagnosed_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "two.parquet"
    knows = population(150, seed=2)
    silent = [replace(one, model="silent", steps=(replace(one.steps[0], answer=None, correct=None),)) for one in knows]
    write_traces([*knows, *silent], path)
    result = run("diagnose", path, "--answered-only")
    assert result.code == 1
    assert "separates" in result.out
    assert "silent: every first step is unanswered" in result.out
    reply = run("diagnose", path, "--answered-only", "--json")
    assert reply.code == 1
    assert "unanswered" in reply.json["models"]["silent"]["error"]


def test_bad_lines_end_the_command_or_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    write_traces([trace(step(0.2), step(0.1), id=str(number)) for number in range(20)], path)
    with path.open("a") as file:
        file.write('{"id": "x"}\n')
    refused = run("diagnose", path)
    assert refused.code == 2
    assert f"{path}:21: model is missing" in refused.error
    result = run("diagnose", path, "--skip-bad")
    assert result.code == 1
    assert "skipped 1 bad line" in result.err
    path.write_text('{"id": "x"}\n')
    assert "no trace that can be read" in run("diagnose", path, "--skip-bad").err


def test_problems_are_run_first_without_a_file() -> None:
    result = run("diagnose", "--model", "embedded", "--tasks", "sum", "--limit", 6, "--json")
    assert result.code in (0, 1)
    assert (result.json["problems"], result.json["model"]) == (6, "justenough-embedded")
    # Only the first step is run, so nothing is known about further steps.
    assert result.json["extension_gain"] is None
    assert "diagnose: 6/6 problems" in result.err


def test_traces_or_a_model_but_not_both(traces: Path) -> None:
    for arguments in ((), (traces, "--model", "embedded", "--tasks", "sum")):
        result = run("diagnose", *arguments)
        assert result.code == 2
        assert "needs either TRACES, or --model and --tasks" in result.error


def test_the_last_sentence_says_what_to_do(traces: Path, blind: Path, tmp_path: Path) -> None:
    few, ungraded = tmp_path / "few.jsonl", tmp_path / "ungraded.jsonl"
    write_traces(population(12, seed=2), few)
    write_traces(
        [replace(trace, steps=tuple(replace(s, correct=None) for s in trace.steps)) for trace in population(9)],
        ungraded,
    )
    one, bare = tmp_path / "one.jsonl", tmp_path / "bare.jsonl"
    write_traces(population(150, seed=2, steps=1), one)
    write_traces([trace(step(0.5, correct=None))], bare)
    expected = {
        one: "next: collect with --steps 2 or more",
        bare: "next: mend the defects above, and collect with --steps 2 or more",
        traces: f"next: justenough calibrate {traces} --out calibration.json",
        blind: "next: do not gate this model on this signal",
        few: "more problems (--limit) and diagnose again",
        ungraded: "--labels agreement",
    }
    for path, sentence in expected.items():
        assert sentence in run("diagnose", path).out.splitlines()[-1]


def test_a_plot_has_a_panel_for_each_model(tmp_path: Path) -> None:
    both, out = tmp_path / "both.parquet", tmp_path / "signal.svg"
    write_traces([*population(150, seed=2), *population(40, seed=1, model="other")], both)
    assert run("diagnose", both, "--plot", out).code == 0
    assert out.read_text().count("<g ") == 2
    assert "other" in out.read_text()
