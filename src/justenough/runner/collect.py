"""Many problems, concurrent and resumable: each finished problem is kept at once, runs of other settings never mix.

Finished problems go to a journal beside the output, `OUT.part.jsonl`, line by line; when all are done the output is
written whole and the journal removed. Whatever happens in between, kill -9 included, the same command goes on where
it stopped: it repeats no finished problem and loses none.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, Protocol

from justenough.backends.protocol import Backend
from justenough.errors import BackendError, Interrupted, SettingsMismatch
from justenough.gate import GateSettings
from justenough.grading import Problem, open_grader
from justenough.runner import Run, Runner, RunSettings, signal_of
from justenough.runner.journal import Journal
from justenough.trace import Trace
from justenough.trace.files import read_traces, write_traces


class Progress(Protocol):
    """Receives the progress of a collection."""

    def update(self, *, done: int, total: int, tokens: int) -> None:
        """`done` of `total` problems are finished; this process has generated `tokens` completion tokens."""


class CollectResult(NamedTuple):
    """The result of a collection."""

    traces: list[Trace]
    """In the order of the problems."""
    reused: int
    """Problems that an earlier call had finished."""
    tokens: int
    """Completion tokens that this call generated."""
    seconds: float
    """Duration of this call."""


def settings_digest(
    backend: Backend,
    settings: RunSettings,
    *,
    grader: str,
    gate: GateSettings | None = None,
    cascade: Backend | None = None,
) -> str:
    """SHA-256 of all that shapes a run: model, prompts, settings, signal, grading and gate."""
    shaping = {
        "model": backend.model,
        "prompts": asdict(backend.prompts),
        "settings": asdict(settings),
        "signal": asdict(signal_of(backend, settings)),
        "grader": grader,
        "gate": None if gate is None else asdict(gate),
        "cascade": None if cascade is None else cascade.model,
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


async def collect(
    problems: Sequence[Problem],
    out: Path | str,
    *,
    backend: Backend,
    settings: RunSettings | None = None,
    grader: str = "exact",
    cascade: Backend | None = None,
    concurrency: int | None = None,
    progress: Progress | None = None,
) -> CollectResult:
    """Run all problems, record every step and write the traces to `out`; the same call resumes an interrupted run.

    `grader` is a name that `open_grader` knows. `concurrency` is the number of problems that run at a time; by default
    the backend's. The caller closes the backends. Raises `SettingsMismatch` if `out` holds runs of other settings,
    `Interrupted` if the model fails midway (finished problems are kept), and `BackendError` if it fails at once.
    """
    settings = settings or RunSettings()
    opened = open_grader(grader)
    try:
        runner = Runner(backend, settings, grader=opened, cascade=cascade)
        digest = settings_digest(backend, settings, grader=grader, cascade=cascade)
        collector = Collector(runner, digest=digest, concurrency=concurrency)
        return await collector.collect(problems, Path(out), progress=progress)
    finally:
        opened.close()


class Collector:
    """Collects traces of problems with a runner; one per output file at a time."""

    def __init__(self, runner: Runner, *, digest: str, concurrency: int | None = None) -> None:
        self.runner = runner
        self.digest = digest
        wanted = concurrency or runner.backend.concurrency
        recording = runner.gate.threshold is None and runner.settings.shape == "streaming"
        # A recorded thought stays open while its answers are elicited: each problem needs two streams.
        self.concurrency = max(1, wanted // 2 if recording else wanted)

    async def collect(
        self, problems: Sequence[Problem], out: Path, *, progress: Progress | None = None, keep_journal: bool = False
    ) -> CollectResult:
        """Run all problems that `out` and its journal do not hold yet, and write `out`.

        Raises `SettingsMismatch` where they hold runs of other settings, `Interrupted` where the model failed after
        something had been collected (it is kept), and the backend's own error where nothing had.
        """
        for problem in problems:
            self.runner.backend.read(problem.problem)
        journal = out.with_name(out.name + ".part.jsonl")
        begun = time.monotonic()
        with Journal(journal, digest=self.digest) as kept:
            done = self._known(out, kept.traces, problems)
            missing = [problem for problem in problems if problem.id not in done]
            reused = len(problems) - len(missing)
            tokens = 0
            if progress is not None:
                progress.update(done=reused, total=len(problems), tokens=0)
            try:
                async for run in _each(self.runner, missing, digest=self.digest, concurrency=self.concurrency):
                    trace = run.trace
                    kept.append(trace)
                    done[trace.id] = trace
                    tokens += _generated(trace)
                    if progress is not None:
                        progress.update(done=len(done), total=len(problems), tokens=tokens)
            except BackendError as error:
                if not done:
                    raise
                raise Interrupted(
                    f"{error}; {len(done)} of {len(problems)} problems are kept in {journal}",
                    hint="the same command goes on from there",
                ) from error
            traces = [done[problem.id] for problem in problems]
            if missing or not out.exists():
                write_traces(traces, out)
            if not keep_journal:
                kept.delete()
        return CollectResult(traces, reused, tokens, time.monotonic() - begun)

    def _known(self, out: Path, journaled: Mapping[str, Trace], problems: Sequence[Problem]) -> dict[str, Trace]:
        earlier = {trace.id: trace for trace in read_traces(out).traces} if out.exists() else {}
        known = {**earlier, **journaled}
        for trace in known.values():
            if trace.settings != self.digest:
                raise SettingsMismatch(
                    f"{out} holds runs of other settings ({(trace.settings or 'none')[:12]}, now {self.digest[:12]})",
                    hint="choose another --out, or delete that file to begin anew",
                )
        wanted = {problem.id: problem for problem in problems}
        if strangers := sorted(known.keys() - wanted.keys()):
            raise SettingsMismatch(
                f"{out} holds {len(strangers)} problems that are not asked for, {strangers[0]!r} among them",
                hint="choose another --out, or raise --limit",
            )
        for identity, trace in known.items():
            problem = wanted[identity]
            if (trace.problem, trace.target) != (problem.problem, problem.target):
                raise SettingsMismatch(
                    f"{out}: the problem {identity!r} was another one when it was collected",
                    hint="ids must keep their meaning: choose another --out",
                )
        return known


async def run_all(
    runner: Runner, problems: Sequence[Problem], *, concurrency: int, progress: Progress | None = None
) -> list[Run]:
    """Run problems concurrently without any file; in their order."""
    done: dict[str, Run] = {}
    tokens = 0
    async for run in _each(runner, problems, digest=None, concurrency=concurrency):
        done[run.trace.id] = run
        tokens += _generated(run.trace)
        if progress is not None:
            progress.update(done=len(done), total=len(problems), tokens=tokens)
    return [done[problem.id] for problem in problems]


async def _each(
    runner: Runner, problems: Sequence[Problem], *, digest: str | None, concurrency: int
) -> AsyncIterator[Run]:
    """Runs as they finish, at most `concurrency` under way."""
    waiting = iter(problems)
    running: set[asyncio.Task[Run]] = set()
    try:
        while True:
            while len(running) < concurrency and (problem := next(waiting, None)) is not None:
                running.add(asyncio.create_task(runner.run(problem, settings_digest=digest)))
            if not running:
                return
            finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            failure: BaseException | None = None
            for task in finished:
                # One failure must not lose what finished in the same moment.
                failure = failure or task.exception()
            for task in finished:
                if task.exception() is None:
                    yield task.result()
            if failure is not None:
                raise failure
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _generated(trace: Trace) -> int:
    return sum(step.total_tokens for step in trace.steps)
