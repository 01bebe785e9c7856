"""Collecting: resumes without repeating or losing, never mixes settings, survives torn journals."""

from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.backends.protocol import Request
from justenough.errors import BackendUnavailable, InputError, Interrupted, ProblemRefused, SettingsMismatch
from justenough.grading import Exact, Problem
from justenough.runner import Runner, RunSettings
from justenough.runner import collect as collecting
from justenough.runner.collect import Collector, CollectResult, settings_digest
from justenough.trace import Shape, Trace
from justenough.trace.files import read_traces
from tests.fakes import ScriptedBackend

PROBLEMS = [Problem(id=f"p{number}", problem=f"{number}+1", target=str(number + 1)) for number in range(12)]


def script(request: Request) -> list[tuple[str, float]]:
    return [("Answer: ", 0.5), (str(int(request.key[0][1:]) + 1), 0.25)]


def collect(
    out: Path,
    *,
    problems: list[Problem] = PROBLEMS,
    backend: ScriptedBackend | None = None,
    settings: RunSettings | None = None,
) -> tuple[CollectResult, ScriptedBackend]:
    backend = backend or ScriptedBackend(script)
    settings = settings or RunSettings(max_steps=2)
    runner = Runner(backend, settings, grader=Exact())
    collector = Collector(runner, digest=settings_digest(backend, settings, grader="exact"))
    return asyncio.run(collector.collect(problems, out)), backend


def without_time(done: CollectResult) -> list[Trace]:
    return [replace(trace, steps=tuple(replace(step, latency_s=None) for step in trace.steps)) for trace in done.traces]


def journal(out: Path) -> Path:
    return out.with_name(out.name + ".part.jsonl")


def test_all_problems_in_their_order(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    done, backend = collect(out)
    assert [trace.id for trace in done.traces] == [problem.id for problem in PROBLEMS]
    assert read_traces(out).traces == list(done.traces)
    assert all(step.correct for trace in done.traces for step in trace.steps)
    assert (done.reused, done.tokens, len(backend.requests)) == (0, 48, 24)
    assert not journal(out).exists()


def test_a_finished_file_is_not_made_again(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    collect(out)
    before = out.read_bytes()
    done, backend = collect(out)
    assert (done.reused, backend.requests) == (12, [])
    assert out.read_bytes() == before


def test_more_problems_of_the_same_settings_are_added(tmp_path: Path) -> None:
    out = tmp_path / "traces.jsonl"
    collect(out, problems=PROBLEMS[:5])
    done, backend = collect(out)
    assert (done.reused, len(done.traces)) == (5, 12)
    assert {request.key[0] for request in backend.requests} == {problem.id for problem in PROBLEMS[5:]}


def test_nothing_is_lost_if_the_output_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All problems are in the old output and the journal then."""
    out = tmp_path / "traces.jsonl"
    collect(out, problems=PROBLEMS[:5])

    def full(traces: object, path: Path) -> int:
        raise InputError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(collecting, "write_traces", full)
        with pytest.raises(Interrupted, match="keeps 12 problems"):
            collect(out)
    done, backend = collect(out)
    assert (done.reused, backend.requests) == (12, [])
    assert [trace.id for trace in read_traces(out).traces] == [problem.id for problem in PROBLEMS]
    assert done.traces[-1].id == "p11"
    assert [trace.id for trace in done.traces[1:3]] == ["p1", "p2"]


def test_finished_traces_do_not_stay_in_memory(tmp_path: Path) -> None:
    def alive() -> int:
        # `isinstance` would ask objects of other libraries for their class, and one of them warns.
        return sum(type(one) is Trace for one in gc.get_objects())

    before, most = alive(), 0

    def counting(request: Request) -> list[tuple[str, float]]:
        nonlocal most
        if (now := alive()) - before >= 10:
            # Traces in cycles may wait for the collector.
            gc.collect()
            now = alive()
        most = max(most, now)
        return script(request)

    backend, settings = ScriptedBackend(counting), RunSettings(max_steps=2)
    collector = Collector(Runner(backend, settings, grader=Exact()), digest="d", concurrency=2)
    problems = [replace(PROBLEMS[0], id=f"p{number}") for number in range(40)]
    asyncio.run(collector.collect(problems, tmp_path / "traces.parquet"))
    assert most - before < 10


def test_a_server_that_goes_away_keeps_what_was_collected(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    with pytest.raises(Interrupted, match="kept"):
        collect(out, backend=ScriptedBackend(script, fail_after=9))
    assert not out.exists()
    kept = [len(json.loads(line)["steps"]) for line in journal(out).read_text().splitlines()[1:]]
    assert kept.count(2) >= 1
    done, backend = collect(out)
    assert done.reused == kept.count(2)
    assert len(backend.requests) == 24 - len(kept)
    assert len(done.traces) == 12
    assert [trace.steps for trace in without_time(done)] == [
        trace.steps for trace in without_time(collect(tmp_path / "whole.parquet")[0])
    ]


def test_a_server_that_was_never_there_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    with pytest.raises(BackendUnavailable):
        collect(out, backend=ScriptedBackend(script, fail_after=0))
    assert list(tmp_path.iterdir()) == []


def test_half_a_line_at_the_end_is_collected_again(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    with pytest.raises(Interrupted):
        collect(out, backend=ScriptedBackend(script, fail_after=12))
    lines = journal(out).read_bytes().splitlines(keepends=True)
    journal(out).write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    done, backend = collect(out)
    assert len(backend.requests) == 24 - (len(lines) - 2)
    assert [trace.id for trace in done.traces] == [problem.id for problem in PROBLEMS]


def test_other_settings_are_refused_in_file_and_journal(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    collect(out)
    with pytest.raises(SettingsMismatch, match="other settings: a setting that traces do not record: --steps"):
        collect(out, settings=RunSettings(max_steps=3))
    with pytest.raises(SettingsMismatch, match=r"other settings: temperature 0\.8, now 0\.5"):
        collect(out, settings=RunSettings(max_steps=2, temperature=0.5))
    broken = tmp_path / "broken.parquet"
    with pytest.raises(Interrupted):
        collect(broken, backend=ScriptedBackend(script, fail_after=9))
    with pytest.raises(SettingsMismatch, match=r"part\.jsonl holds runs of other settings: seed 0, now 1"):
        collect(broken, settings=RunSettings(max_steps=2, seed=1))
    assert journal(broken).exists()
    header = journal(broken).read_text().splitlines(keepends=True)[0]
    journal(broken).write_text(header)
    # A journal without any problem keeps nothing.
    assert len(collect(broken, settings=RunSettings(max_steps=2, seed=1))[0].traces) == len(PROBLEMS)


def test_another_problem_under_the_same_id_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    collect(out)
    changed = [Problem(id="p0", problem="9+9", target="18"), *PROBLEMS[1:]]
    with pytest.raises(SettingsMismatch, match="'p0'"):
        collect(out, problems=changed)
    with pytest.raises(SettingsMismatch, match="that this command does not request"):
        collect(out, problems=PROBLEMS[:3])


def test_a_file_that_is_no_journal_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    journal(out).write_text(json.dumps({"precious": True}) + "\n")
    with pytest.raises(InputError, match="no journal"):
        collect(out)
    assert "precious" in journal(out).read_text()


def test_two_collectors_on_one_file_are_refused(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    out = tmp_path / "traces.parquet"
    with journal(out).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            collect(out)


class Lines:
    """Remembers the progress."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def update(self, *, done: int, total: int, steps: int, tokens: int) -> None:
        self.seen.append((done, steps, tokens))


def test_progress_shows_tokens_and_steps_before_the_first_problem_is_done(tmp_path: Path) -> None:
    backend, lines, settings = ScriptedBackend(script), Lines(), RunSettings(max_steps=2)
    collector = Collector(Runner(backend, settings, grader=Exact()), digest="digest", concurrency=1)
    done = asyncio.run(collector.collect(PROBLEMS[:2], tmp_path / "t.parquet", progress=lines))
    assert list(dict.fromkeys(lines.seen)) == [
        (0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 2), (0, 1, 3), (0, 1, 4), (0, 2, 4), (1, 2, 4),
        (1, 2, 5), (1, 2, 6), (1, 3, 6), (1, 3, 7), (1, 3, 8), (1, 4, 8), (2, 4, 8),
    ]  # fmt: skip
    assert done.tokens == 8


def test_each_finished_step_of_a_problem_under_way_survives(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    settings = RunSettings(max_steps=4)
    with pytest.raises(Interrupted, match="0 of 1 problems are kept"):
        collect(out, problems=PROBLEMS[:1], backend=ScriptedBackend(script, fail_after=3), settings=settings)
    done, backend = collect(out, problems=PROBLEMS[:1], settings=settings)
    assert [request.key for request in backend.requests] == [("p0", 4)]
    assert (done.reused, done.tokens, len(done.traces[0].steps)) == (0, 2, 4)
    assert len(backend.requests[0].messages) == 7, "the next step sees the earlier ones"


def test_an_overlong_conversation_is_the_outcome_of_its_problem_only(tmp_path: Path) -> None:
    out = tmp_path / "traces.parquet"
    settings = RunSettings(max_steps=3)
    backend = ScriptedBackend(script, overlong=lambda request: request.key == ("p1", 2) or request.key[0] == "p2")
    done, _ = collect(out, problems=PROBLEMS[:3], backend=backend, settings=settings)
    whole, later, first = done.traces
    assert [step.finish for step in whole.steps] == ["stop"] * 3
    assert [(step.finish, step.answer, step.correct, step.tokens) for step in later.steps] == [
        ("stop", "2", True, 2),
        ("context", "2", True, 0),
    ]
    assert [(step.finish, step.answer, step.correct, step.tokens) for step in first.steps] == [
        ("context", None, None, 0)
    ]
    assert read_traces(out).traces == list(done.traces)
    again, backend = collect(out, problems=PROBLEMS[:3], settings=settings)
    assert (again.reused, backend.requests) == (3, [])


@pytest.mark.parametrize("shape", ["sequential", "streaming"])
def test_a_problem_outside_the_language_of_the_model_is_the_outcome_of_itself_only(
    shape: Shape, tmp_path: Path
) -> None:
    out, settings = tmp_path / "traces.parquet", RunSettings(shape=shape, max_steps=2)
    backend = ScriptedBackend(script, unread=[PROBLEMS[0].problem])
    done, _ = collect(out, problems=PROBLEMS[:2], backend=backend, settings=settings)
    refused, whole = done.traces
    assert [(step.finish, step.answer, step.correct, step.tokens) for step in refused.steps] == [
        ("refused", None, None, 0)
    ]
    assert whole.steps[-1].finish == "stop"
    assert read_traces(out).traces == list(done.traces)
    again, backend = collect(out, problems=PROBLEMS[:2], settings=settings)
    assert (again.reused, backend.requests) == (2, [])
    backend = ScriptedBackend(script, unread=[problem.problem for problem in PROBLEMS])
    with pytest.raises(ProblemRefused, match="cannot read"):
        collect(tmp_path / "other.parquet", problems=PROBLEMS[:2], backend=backend, settings=settings)


def test_two_collectors_through_a_hard_link_do_not_share_a_file(tmp_path: Path) -> None:
    """The output is replaced, so each name has its own file afterwards."""
    out, hard = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    collect(out, problems=PROBLEMS[:2])
    hard.hardlink_to(out)
    collect(out, problems=PROBLEMS[:4])
    collect(hard, problems=PROBLEMS[:3])
    assert [len(read_traces(path).traces) for path in (out, hard)] == [4, 3]


def test_a_symbolic_link_to_an_output_under_way_is_refused(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    out, link = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    link.symlink_to(out)
    with journal(out).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            collect(link)


def test_an_output_that_cannot_be_written_leaves_the_finished_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "traces.jsonl"

    def full(traces: object, path: Path) -> int:
        raise InputError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("justenough.runner.collect.write_traces", full)
        with pytest.raises(Interrupted, match=r"No space left .* keeps 12 problems"):
            collect(out)
    done, backend = collect(out)
    assert (done.reused, backend.requests) == (12, [])
