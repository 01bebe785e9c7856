"""One command from the weights to the report, here on the embedded model's GGUF before llama.cpp's own server."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.real import run
from benchmarks.real.campaign import journaled
from benchmarks.real.leash import ROOT, environment
from benchmarks.real.packages import PackageError, catalogue
from benchmarks.real.plan import PLANS, Plan, Task, WarmUp, cost, forecast, plan_of, tasks
from benchmarks.real.prompts import CUE, NOTATIONS, plugin
from benchmarks.real.run import Story
from benchmarks.real.servers import RunError, ServerSettings
from justenough.backends.notation import notation_for
from justenough.grading import read_tasks
from justenough.signal.thought import Follower
from justenough.trace.files import read_traces
from tests.conftest import GGUF

PLAN = Plan(
    model="embedded",
    task="sum",
    prompts={"sequential": "embedded"},
    max_tokens=60,
    temperature=0.8,
    problems=24,
    live=2,
    server=ServerSettings(slots=4, context=640),
)


def task() -> Task:
    rows = [
        {"id": each.id, "problem": each.problem, "target": each.target, "group": each.group}
        for each in read_tasks("sum", limit=40)
    ]
    return Task(grader="exact", max_tokens=60, lines=tuple(json.dumps(row) for row in rows))


STORY = """
import sys
from pathlib import Path
from tests.unit.benchmarks.test_real_run import GGUF, PLAN, Story, task
Story(PLAN, task(), weights=GGUF, out=Path(sys.argv[1])).run()
"""


def test_a_killed_run_goes_on_and_ends_with_a_report(tmp_path: Path) -> None:
    out = tmp_path / "real"
    traces = out / "embedded.sum.sequential.parquet"
    journal = traces.with_name(f"{traces.name}.part.jsonl")
    with subprocess.Popen([sys.executable, "-c", STORY, str(out)], env=environment([]), cwd=ROOT) as killed:
        deadline = time.monotonic() + 120
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
            assert killed.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
    kept = journaled(journal)
    assert len(kept) > 1
    assert not (out / "summary.json").exists()

    story = Story(PLAN, task(), weights=GGUF, out=out)
    story.run()
    summary = json.loads((out / "summary.json").read_text())
    collected = {each.id: each for each in read_traces(traces).traces}
    assert list(collected) == [each.id for each in story.collected]
    # A step that ran again would have taken another time.
    for before in kept:
        steps = collected[before.id].steps[: len(before.steps)]
        assert [step.latency_s for step in steps] == [step.latency_s for step in before.steps]
    assert not {each.id for each in story.collected} & {each.id for each in story.unseen}

    shape = summary["shapes"]["sequential"]
    assert shape["problems"] == 24
    live = shape["live"]
    assert live["problems"] == 2
    assert sum(live["decisions"].values()) == 2
    assert set(live["decisions"]) <= {"stopped", "finished"}
    assert live["tokens_alone"] >= live["tokens_gateway"] > 0
    page = (out / "report.html").read_text()
    assert page.index("<h2>Live</h2>") < page.index("</main>")
    assert f"{live['tokens_alone']:,}" in page
    assert not list(out.glob("*.partial"))


def test_the_cost_is_tokens_by_measured_speed() -> None:
    warm = WarmUp(tokens=20.0, together=10.0, alone=5.0)
    whole = cost(PLAN, "sequential", step=20.0, warm=warm, problems=24, live=2)
    assert whole.tokens == 24 * 4 * 20 + 2 * 2 * 4 * 20
    assert whole.seconds == pytest.approx(24 * 80 / 10 + 2 * 160 / 5)
    line = forecast(PLAN, warm, {"sequential": (24, 2)})
    assert line.startswith(
        "about 2,240 tokens at 10 tokens/s (5 in one stream): 4 min; at most 6,720 tokens and 13 min"
    )


def test_a_finished_part_costs_nothing() -> None:
    line = forecast(PLAN, WarmUp(tokens=20.0, together=10.0, alone=5.0), {"sequential": (0, 0)})
    assert line.startswith("about 0 tokens")


@pytest.fixture(scope="module")
def all_tasks() -> Mapping[str, Task]:
    return tasks()


@pytest.mark.parametrize("plan", PLANS.values(), ids=lambda plan: plan.name)
def test_the_plans_fit_their_tasks(plan: Plan, all_tasks: Mapping[str, Task]) -> None:
    lines = all_tasks[plan.task].lines
    assert lines is not None
    assert plan.problems + plan.live <= len(lines)
    assert set(plan.prompts.values()) <= set(NOTATIONS)
    assert plan.model in catalogue()
    # All steps of the sequential shape, each with its prompt, in one slot.
    assert plan.steps * (plan.max_tokens + 120) <= plan.server.context


def test_the_prompts_are_known_as_those_of_a_plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(plugin(tmp_path)))
    for name, notation in NOTATIONS.items():
        assert notation_for("any", prompts=name) is notation


def test_the_cue_ends_the_thought_and_begins_the_answer() -> None:
    thought = CUE.prompts.thought
    follower = Follower(thought)
    words = [follower.feed(text) for text in ("Two", " and two.", "\n", "Ans", "wer", ":", " 4")]
    assert "".join(word for word in words if word) == "Two and two.\n"
    assert follower.answering
    assert thought.answer_of("Two and two.\nAnswer: 4") == "Answer: 4"


def test_too_many_problems_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="400 problems and 2 live ones: at least 1 of each, and sum has 40"):
        Story(replace(PLAN, problems=400), task(), weights=GGUF, out=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--problems", "10000"), "10000 problems and 20 live ones"),
        (("--live", "0"), "0 live ones: at least 1 of each"),
        (("--port", "99999"), "port 99999 does not exist"),
        (("--port", "-1"), "port -1 does not exist"),
        (("--threads", "0"), "0 threads: use at least 1"),
    ],
)
def test_arguments_are_refused_before_the_download(
    arguments: tuple[str, str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "obtain", failing(PackageError("the download has begun")))
    assert run.main(["--model", "smollm2-135m", *arguments]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_is_a_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "obtain", lambda *_: GGUF)
    (tmp_path / "real").touch()
    assert run.main(["--model", "smollm2-135m", "--out", str(tmp_path / "real")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"real: {tmp_path / 'real'}: File exists"


def test_a_damaged_line_of_a_journal_is_named(tmp_path: Path) -> None:
    journal = tmp_path / "live.jsonl"
    journal.write_text('{"live": "x"}\n{"way": "alone"}\nnot JSON\n{"half')
    with pytest.raises(RunError, match=r"live\.jsonl:3 is not JSON: delete this line"):
        run._lines(journal)


def failing(error: Exception) -> Callable[..., Path]:
    def obtain(*_: object, **__: object) -> Path:
        raise error

    return obtain


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PackageError("a==1 is not the file that is pinned"), "real: a==1 is not the file that is pinned"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache"), "real: /cache: No space left on device"),
    ],
)
def test_what_is_wrong_is_one_line(
    error: Exception, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "obtain", failing(error))
    out = tmp_path / "real"
    assert run.main(["--model", "smollm2-135m", "--out", str(out), "--cache", str(tmp_path)]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_the_usual_task_of_a_model_comes_first_and_others_are_chosen_by_name() -> None:
    assert plan_of("smollm2-135m").task == "capitals"
    assert plan_of("smollm2-135m", "sums").name == "smollm2-135m.sums"
    assert len({plan.name for plan in PLANS.values()}) == len(PLANS)


def test_a_task_that_the_model_lacks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--model", "qwen2.5-coder-0.5b", "--task", "sums", "--out", str(tmp_path / "real")]) == 2
    assert "qwen2.5-coder-0.5b has no plan for sums; it has word-problems, capitals" in capsys.readouterr().err


def test_a_shape_that_the_model_lacks_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--model", "smollm2-135m", "--shape", "streaming", "--out", str(tmp_path / "real")]) == 2
    assert "smollm2-135m has no streaming shape" in capsys.readouterr().err
