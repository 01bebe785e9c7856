"""`justenough collect`: the file, the summary, progress, and resuming."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet
import pytest

from justenough.calibration.calibration import load_calibration
from justenough.grading import Exact
from justenough.grading.regrade import regraded
from justenough.signal.signal import Signal
from justenough.signal.thought import FORMATS
from justenough.testing import MockUpstream
from justenough.trace.files import read_traces, write_traces
from tests.builders import population
from tests.conftest import CHECKPOINT
from tests.unit.cli.invoke import Result, run

SUMS = ["collect", "--model", "embedded", "--tasks", "sum", "--limit", 6]


def test_the_summary_describes_the_file(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    result = run(*SUMS, "--steps", 2, "--out", out, "--json")
    assert result.code == 0
    summary, traces = result.json, read_traces(out).traces
    assert (summary["out"], summary["problems"], summary["reused"]) == (str(out), 6, 0)
    assert summary["model"] == "justenough-embedded" == traces[0].model
    assert summary["tokens"] == sum(trace.tokens for trace in traces)
    assert summary["accuracy_first"] == sum(trace.steps[0].is_correct for trace in traces) / 6
    assert summary["settings"] == traces[0].settings
    assert {trace.family for trace in traces} == {"sum"}
    assert {len(trace.steps) for trace in traces} == {2}


def test_progress_goes_to_stderr_and_the_result_to_stdout(tmp_path: Path) -> None:
    out = tmp_path / "traces.jsonl"
    result = run(*SUMS, "--steps", 1, "--out", out)
    assert result.out.startswith(f"6 problems in {out}; ")
    assert "tokens generated in" in result.out
    assert result.err.splitlines()[-1].startswith("collect: 6/6 problems")


def test_the_same_command_generates_nothing_again(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    assert run(*SUMS, "--out", out).code == 0
    before = out.read_bytes()
    again = run(*SUMS, "--out", out, "--json")
    assert (again.json["reused"], again.json["tokens"]) == (6, 0)
    assert out.read_bytes() == before
    assert "6 problems in" in (text := run(*SUMS, "--out", out).out)
    assert ", 6 of them from an earlier run; 0 tokens" in text


def test_a_larger_limit_continues_and_a_smaller_one_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    assert run(*SUMS, "--steps", 1, "--out", out).code == 0
    more = run(*SUMS[:-1], 8, "--steps", 1, "--out", out, "--json")
    assert (more.json["problems"], more.json["reused"]) == (8, 6)
    fewer = run(*SUMS[:-1], 4, "--steps", 1, "--out", out)
    assert fewer.code == 2
    assert "holds 4 problems that this command does not request" in fewer.error


def test_runs_of_other_settings_are_never_mixed(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    assert run(*SUMS, "--out", out).code == 0
    for option in (("--temperature", 0.5), ("--steps", 2), ("--seed", 1), ("--top-k", 10), ("--grader", "number")):
        result = run(*SUMS, "--out", out, *option)
        assert result.code == 2
        assert "other settings" in result.error


def test_a_task_file_is_run(tmp_path: Path) -> None:
    tasks, out = tmp_path / "mine.jsonl", tmp_path / "o.jsonl"
    rows = [{"id": "a", "problem": "7*18", "target": "126"}, {"id": "b", "problem": "41+93-28", "target": "106"}]
    tasks.write_text("\n".join(map(json.dumps, rows)))
    assert run("collect", "--model", "embedded", "--tasks", tasks, "--steps", 1, "--out", out).code == 0
    assert [(trace.id, trace.task, trace.target) for trace in read_traces(out).traces] == [
        ("a", "mine", "126"),
        ("b", "mine", "106"),
    ]
    tasks.write_text('{"id": "a"}\n')
    assert f"{tasks}:1: problem is None" in run("collect", "--model", "embedded", "--tasks", tasks, "--out", out).error


def test_a_problem_that_the_model_cannot_read_is_unanswered_and_the_others_are_run(tmp_path: Path) -> None:
    tasks, out = tmp_path / "mine.jsonl", tmp_path / "traces.parquet"
    tasks.write_text('{"problem": "Who wrote Faust?", "target": "Goethe"}\n{"problem": "41+93-28", "target": "106"}\n')
    arguments = ("collect", "--model", "embedded", "--tasks", tasks, "--steps", 1, "--out", out)
    result = run(*arguments, "--json")
    assert (result.code, result.json["problems"], result.json["unanswered"]) == (0, 2, 1)
    assert "warning: 1 of 2 problems are outside the language of the model, and count as unanswered" in result.err
    assert [trace.steps[0].finish for trace in read_traces(out).traces] == ["refused", "stop"]
    assert run(*arguments, "--json").json["reused"] == 2
    tasks.write_text('{"problem": "Who wrote Faust?", "target": "Goethe"}\n')
    assert "cannot read 'Who wrote Faust?'" in run(*arguments[:-1], tmp_path / "other.parquet").error


def test_questions_with_several_right_answers_are_graded_by_any_of_them(tmp_path: Path) -> None:
    tasks, out = tmp_path / "t.parquet", tmp_path / "o.jsonl"
    pyarrow.parquet.write_table(
        pyarrow.table({"question": ["41+93-28"], "answer": [["one hundred six", "106"]]}), tasks
    )
    assert run("collect", "--model", "embedded", "--tasks", tasks, "--steps", 1, "--out", out).code == 0
    (trace,) = read_traces(out).traces
    assert (trace.id, trace.target, trace.steps[0].answer, trace.steps[0].correct) == (
        "1",
        "one hundred six",
        "106",
        True,
    )
    assert regraded(trace, Exact()).steps[0].correct
    assert (
        run("collect", "--model", "embedded", "--tasks", tasks, "--steps", 1, "--out", out, "--json").json["reused"]
        == 1
    )


def test_streaming_steps_have_an_answer_each(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    arguments = ["--shape", "streaming", "--splitter", "tokens:8", "--max-tokens", 64, "--out", out]
    assert run(*SUMS[:-1], 1, *arguments).code == 0
    (trace,) = read_traces(out).traces
    assert trace.shape == "streaming"
    assert trace.signal.splitter == "tokens:8"


def test_a_gate_stops_problems_while_they_are_collected(embedded: Path, tmp_path: Path) -> None:
    calibration, out = tmp_path / "c.json", tmp_path / "gated.jsonl"
    assert run("calibrate", embedded, "--force", "--out", calibration).code == 0
    fit = load_calibration(calibration)
    for threshold, steps in ((100.0, 1), (-1.0, 2)):
        replace(fit, threshold=threshold).save(calibration)
        gated = run(*SUMS, "--steps", 2, "--gate", calibration, "--out", out, "--json")
        if steps == 1:
            assert gated.code == 0
            assert {len(trace.steps) for trace in read_traces(out).traces} == {1}
            # The gate is part of the settings.
            assert "other settings" in run(*SUMS, "--steps", 2, "--out", out).error
        else:
            assert "other settings" in gated.error


def test_a_decider_stops_problems_while_they_are_collected(tmp_path: Path) -> None:
    """Its numbers are part of the settings too."""
    labels, calibration, out = tmp_path / "l.jsonl", tmp_path / "d.json", tmp_path / "o.jsonl"
    examples = population(400, steps=3, model="justenough-embedded")
    signal = Signal(top_k=20, logits="raw", temperature=0.8, splitter="completion")
    write_traces([replace(trace, signal=signal) for trace in examples], labels)
    fit = ("--threshold", "decider", "--decide", "every", "--max-harm", 0.1, "--force")
    assert run("calibrate", labels, *fit, "--out", calibration).code == 0
    assert run(*SUMS, "--steps", 3, "--gate", calibration, "--out", out).code == 0
    assert run(*SUMS, "--steps", 3, "--gate", calibration, "--out", out, "--json").json["reused"] == 6


def test_a_rule_stops_problems_and_their_probes_are_in_the_sum(tmp_path: Path) -> None:
    out = tmp_path / "ruled.jsonl"
    stream = ("--shape", "streaming", "--splitter", "tokens:4", "--steps", 12)
    result = run(*SUMS, *stream, "--rule", "dynasor:2", "--out", out, "--json").json
    traces = read_traces(out).traces
    assert result["tokens"] == sum(cast("int", trace.extra["spent"]) for trace in traces)
    assert result["tokens"] > sum(trace.tokens for trace in traces)
    assert {trace.extra["rule"] for trace in traces} == {"dynasor:2@1-8"}
    assert result["accuracy_first"] is None


def test_only_one_thing_decides_which_steps_are_taken(tmp_path: Path) -> None:
    for other in (("--budget", 500), ("--gate", tmp_path / "c.json")):
        result = run(*SUMS, "--rule", "deer", *other, "--out", tmp_path / "o.jsonl")
        assert result.code == 2
        assert "more than one of --gate, --rule and --budget" in result.error


@pytest.mark.parametrize("other", [("--policy", "uniform"), ("--fit", "traces.parquet"), ("--unit", "calls")])
def test_what_divides_a_budget_needs_one(other: tuple[str, str], tmp_path: Path) -> None:
    result = run(*SUMS, *other, "--out", tmp_path / "o.jsonl")
    assert result.code == 2
    assert "divide a budget (give --budget N" in result.error


def served(*arguments: object, upstream: MockUpstream | None = None, **mock: Any) -> Result:
    """`justenough collect` on a `MockUpstream`, two problems."""
    mocked = upstream or MockUpstream(**mock)

    async def main() -> Result:
        async with mocked:
            server = ["--model", "openai:", "--base-url", f"{mocked.url}/v1"]
            command = ["collect", *server, "--tasks", "arithmetic", "--limit", 2, "--concurrency", 1, *arguments]
            return await asyncio.to_thread(run, *command)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--grader", "magic", "unknown grader 'magic'"),
        ("--splitter", "foo", "unknown splitter 'foo'"),
        ("--thought", "foo", "foo"),
        ("--top-k", 0, "must be at least 1"),
        ("--steps", 0, "must be at least 1"),
        ("--out", "/dev/null/o.jsonl", "cannot write /dev/null"),
    ],
)
def test_a_bad_value_is_refused_before_the_model_is_asked(
    tmp_path: Path, option: str, value: object, message: str
) -> None:
    upstream = MockUpstream()
    result = served("--out", tmp_path / "o.jsonl", option, value, upstream=upstream)
    assert result.code == 2
    assert message in result.error
    assert not upstream.requests


@pytest.mark.parametrize("field", [None, "reasoning_content"])
def test_a_served_model_that_thinks_is_streamed_whole(tmp_path: Path, field: str | None) -> None:
    out = tmp_path / "o.jsonl"
    result = served("--out", out, "--json", reasoning_field=field)
    assert result.code == 0, result.err
    assert result.json["shape"] == "streaming"
    assert "shape: streaming, because the model thinks in <think> … </think>" in result.err
    assert r"closed with '\n</think>\n\n'" in result.err
    traces = read_traces(out).traces
    assert {(trace.shape, len(trace.steps)) for trace in traces} == {("streaming", 3)}


def test_the_format_of_the_thought_is_the_one_that_the_model_shows(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    result = served("--out", out, format=FORMATS["mistral"])
    assert "thinks in [THINK] … [/THINK]" in result.err
    prompts = read_traces(out).traces[0].prompts
    assert prompts is not None
    assert (prompts.thought, prompts.close) == (FORMATS["mistral"], "\n[/THINK]\n\n")


def test_a_wrong_name_of_the_model_is_said_once_and_the_traces_have_the_right_one(
    tmp_path: Path, llama_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "o.jsonl"
    command = ("collect", "--model", "openai:other", "--base-url", llama_server, "--tasks", "sum", "--limit", 2)
    for reused in (0, 2):
        caplog.clear()
        result = run(*command, "--out", out, "--json")
        assert result.code == 0, result.err
        assert (result.json["model"], result.json["reused"]) == ("justenough-embedded", reused)
        assert {trace.model for trace in read_traces(out).traces} == {"justenough-embedded"}
        assert sum("no model other" in message for message in caplog.messages) == 1


def test_a_served_model_that_answers_at_once_takes_sequential_steps(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    result = served("--out", out, "--json", thought=[])
    assert result.json["shape"] == "sequential"
    assert "answers without a thought" in result.err
    assert {len(trace.steps) for trace in read_traces(out).traces} == {4}


def test_a_run_that_goes_on_keeps_its_shape(tmp_path: Path) -> None:
    """The model may think at one time and not at another."""
    out = tmp_path / "o.jsonl"
    assert served("--out", out).code == 0
    again = served("--out", out, "--limit", 3, "--json", thought=[])
    assert again.code == 0, again.err
    assert (again.json["shape"], again.json["reused"]) == ("streaming", 2)
    assert "which this command goes on with" in again.err


def test_no_steps_are_refused(tmp_path: Path) -> None:
    for budget in ((), ("--budget", 100)):
        assert "at least 1" in run(*SUMS, "--steps", 0, *budget, "--out", tmp_path / "o.jsonl").error


def test_a_gate_brings_its_shape(tmp_path: Path) -> None:
    traces, calibration, out = tmp_path / "t.jsonl", tmp_path / "c.json", tmp_path / "o.jsonl"
    assert served("--out", traces).code == 0
    assert run("calibrate", traces, "--labels", "agreement", "--force", "--out", calibration).code == 0
    result = served("--gate", calibration, "--out", out)
    assert result.code == 0, result.err
    assert {(trace.shape, len(trace.steps)) for trace in read_traces(out).traces} == {("streaming", 1)}


def test_a_certified_margin_on_another_task_is_a_warning(tmp_path: Path) -> None:
    settings = ("--tasks", "sum", "--limit", 1, "--steps", 1, "--temperature", 0.8)
    result = run("collect", "--model", f"calm:{CHECKPOINT}", *settings, "--out", tmp_path / "traces.jsonl")
    assert result.code == 0
    assert "certified for the task arithmetic, not for sum" in result.err
