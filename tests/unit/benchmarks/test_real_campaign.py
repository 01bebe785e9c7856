"""A campaign: jobs by name, and what is published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.real import campaign
from benchmarks.real.campaign import Job, Settings, collector, finished_prefix, publish, without_texts
from benchmarks.real.plan import tasks
from justenough.trace import trace_to_json
from justenough.trace.files import read_traces
from tests.builders import step, trace


def test_a_job_is_named_by_model_task_and_shape() -> None:
    job = Job.named("qwen2.5-coder-0.5b.word-problems.streaming")
    assert (job.model, job.task, job.streaming) == ("qwen2.5-coder-0.5b", "word-problems", True)
    assert job.name == "qwen2.5-coder-0.5b.word-problems.streaming"


@pytest.mark.parametrize("name", ["nobody.capitals", "smollm2-135m.nothing", "smollm2-135m"])
def test_an_unknown_job_is_refused(name: str) -> None:
    with pytest.raises(SystemExit, match="no job"):
        Job.named(name)


def test_the_command_of_a_job_names_what_shapes_it(tmp_path: Path) -> None:
    settings = Settings(cache=tmp_path, problems=50, slots=8, threads=1, port=1)
    job = Job.named("smollm2-135m.capitals")
    command = " ".join(collector(job, tasks()[job.task], settings, base="http://127.0.0.1:2/v1"))
    for part in ("--limit 50", "--temperature 0.7", "--max-tokens 128", "--steps 4", "--concurrency 8"):
        assert part in command
    assert (tmp_path / "tasks" / "capitals.jsonl").exists()


def test_only_the_finished_beginning_is_published() -> None:
    known = [trace(step(0.1), id=name) for name in ("c", "a", "b", "e")]
    assert [each.id for each in finished_prefix(["a", "b", "c", "d", "e"], known, steps=1)] == ["a", "b", "c"]


def test_a_problem_under_way_is_not_published() -> None:
    known = [trace(step(0.1), step(0.1), id="a"), trace(step(0.1), id="b"), trace(step(0.1), step(0.1), id="c")]
    assert [each.id for each in finished_prefix(["a", "b", "c"], known, steps=2)] == ["a"]


def test_a_problem_that_filled_the_context_is_finished() -> None:
    known = [trace(replace(step(0.1), finish="context"), id="a"), trace(step(0.1), step(0.1), id="b")]
    assert [each.id for each in finished_prefix(["a", "b"], known, steps=2)] == ["a", "b"]


def test_a_stopped_collection_is_published_from_its_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "RESULTS", tmp_path / "results")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "runs").mkdir()
    rows = [json.dumps({"id": name}) for name in ("a", "b", "c")]
    whole = [step(0.1)] * 4
    (tmp_path / "tasks" / "capitals.jsonl").write_text("\n".join(rows) + "\n")
    lines = ['{"justenough": "journal"}', *(json.dumps(trace_to_json(trace(*whole, id=name))) for name in "ab")]
    journal = tmp_path / "runs" / "smollm2-135m.capitals.parquet.part.jsonl"
    journal.write_text("\n".join(lines) + '\n{"id": "c", "half a li')
    path = publish(Job.named("smollm2-135m.capitals"), tmp_path)
    assert [found.id for found in read_traces(path).traces] == ["a", "b"]


def test_texts_of_others_are_not_published() -> None:
    bare = without_texts(replace(trace(step(0.1, text="A text")), problem="A problem"))
    assert bare.problem is None
    assert all(part.text == "" and part.token_texts is None for part in bare.steps)
