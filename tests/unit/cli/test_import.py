"""`justenough import`: good lines are kept, bad lines are reported and counted."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from justenough.cli import import_
from justenough.importing import AUTO, FORMATS
from justenough.trace.files import read_traces, write_traces
from tests.builders import trace
from tests.unit.cli.invoke import run
from tests.unit.importing.samples import chat, known_chat

RECORDS = (
    "model,question_id,token_length,correct,category,correct_answer,extracted_answer,answered,mean_token_prob\n"
    "small,q1,12,True,maths,42,42,True,0.9\n"
    "small,q2,20,False,maths,7,8,True,0.6\n"
    "large,q1,30,True,maths,42,42,True,0.95\n"
    "large,q2,40,True,maths,7,7,True,0.8\n"
)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    write_traces([trace(id="a"), trace(id="b")], path)
    good = path.read_text().splitlines()
    path.write_text("\n".join([good[0], "{", good[1], '{"id": "c"}']))
    return path


def test_each_bad_line_is_reported_and_both_are_counted(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    result = run("import", mixed, "--format", "justenough", "--out", out)
    assert result.code == 0
    assert result.out == f"{out}: 2 traces kept, 2 bad lines\n"
    assert [line.split(": ")[0] for line in result.err.splitlines()] == [f"{mixed}:2", f"{mixed}:4"]
    assert [one.id for one in read_traces(out).traces] == ["a", "b"]


def test_json_has_every_bad_line(mixed: Path, tmp_path: Path) -> None:
    data = run("import", mixed, "--format", "justenough", "--out", tmp_path / "o.jsonl", "--json").json
    assert (data["kept"], data["bad"], [bad["line"] for bad in data["bad_lines"]]) == (2, 2, [2, 4])
    assert all(bad["reason"] for bad in data["bad_lines"])


def test_only_the_first_twenty_bad_lines_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    write_traces([trace(id="a")], path)
    with path.open("a") as file:
        file.write("{\n" * 25)
    result = run("import", path, "--format", "justenough", "--out", tmp_path / "o.jsonl")
    assert len(result.err.splitlines()) == 21
    assert result.err.splitlines()[-1] == "… and 5 more"
    assert result.out.endswith("1 trace kept, 25 bad lines\n")


def test_a_file_of_another_format_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "o.parquet"
    path.write_text('{"id": "c"}\n')
    result = run("import", path, "--format", "justenough", "--out", out)
    assert result.code == 2
    assert f"{path} has no trace that can be imported (1 bad line); the first: model is missing" in result.err
    assert not out.exists()


def test_records_of_two_models_become_steps(tmp_path: Path) -> None:
    path, out = tmp_path / "r.csv", tmp_path / "o.jsonl"
    path.write_text(RECORDS)
    arguments = ["import", path, "--format", "records", "--out", out]
    assert run(*arguments, "--model", "small", "--then", "large").code == 0
    traces = read_traces(out).traces
    assert [[step.correct for step in one.steps] for one in traces] == [[True, True], [False, True]]
    assert {one.model for one in traces} == {"small"}
    assert run(*arguments, "--model", "large", "--json").json["kept"] == 2
    assert "2 models: large, small (--model NAME, or --model all)" in run(*arguments).error
    assert "--then needs --model" in run(*arguments, "--then", "large").error


def test_options_of_another_format_are_refused(mixed: Path, tmp_path: Path) -> None:
    arguments = ["import", mixed, "--format", "justenough", "--out", tmp_path / "o.jsonl"]
    result = run(*arguments, "--tasks", "x")
    assert result.code == 2
    assert "--tasks means nothing to the format justenough" in result.error
    assert run("import", mixed, "--format", "magic", "--out", tmp_path / "o").code == 2


def test_standard_input_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content, message in (
        ("{}", "standard input has no trace that can be imported (1 bad line); the first: is not of this format"),
        ("{", "standard input:1: not JSON"),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        result = run("import", "-", "--format", "openai", "--out", tmp_path / "o.jsonl")
        assert result.code == 2
        assert message in result.err
        assert str(tmp_path.parent) not in result.err


def test_a_reply_that_makes_the_top_k_small_is_named(tmp_path: Path) -> None:
    path, out = tmp_path / "chat.jsonl", tmp_path / "o.jsonl"
    path.write_text("\n".join(json.dumps(known_chat(id=name)) for name in "ab") + "\n" + json.dumps(chat()))
    result = run("import", path, "--out", out)
    assert result.err == f"{path}: top_k is 2 for all replies of m-1: line 3 has no more, others have up to 4\n"
    assert {trace.signal.top_k for trace in read_traces(out).traces} == {2}


def test_targets_and_grader_reach_the_import(tmp_path: Path) -> None:
    path, tasks, out = tmp_path / "chat.jsonl", tmp_path / "tasks.jsonl", tmp_path / "o.jsonl"
    reply = {
        "id": "x",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "message": {"content": "Answer: 42.0"},
                "finish_reason": "stop",
                "logprobs": {
                    "content": [
                        {"token": "42", "logprob": -0.1, "top_logprobs": [{"logprob": -0.1}, {"logprob": -2.5}]}
                    ]
                },
            }
        ],
        "usage": {"completion_tokens": 1, "prompt_tokens": 3},
    }
    path.write_text(json.dumps(reply))
    tasks.write_text('{"id": "x", "problem": "6*7", "target": "42"}\n')
    arguments = ["import", path, "--format", "openai", "--tasks", tasks, "--out", out]
    assert run(*arguments, "--grader", "number", "--model", "mine").code == 0
    (one,) = read_traces(out).traces
    assert (one.steps[0].correct, one.model, one.target) == (True, "mine", "42")


def test_the_formats_are_those_of_the_library() -> None:
    assert sorted(import_._FORMATS) == sorted((AUTO, *FORMATS))


def test_a_reply_without_log_probabilities_is_not_a_trace(tmp_path: Path) -> None:
    path, out = tmp_path / "chat.jsonl", tmp_path / "o.jsonl"
    choice = {"message": {"content": "4"}, "finish_reason": "stop", "logprobs": None}
    path.write_text(json.dumps({"id": "x", "object": "chat.completion", "model": "m", "choices": [choice]}))
    result = run("import", path, "--out", out)
    assert result.code == 2
    assert "has no log-probabilities: request logprobs: true, top_logprobs: 20" in result.err
    assert not out.exists()
