"""Collects traces of many problems: concurrent, resumable, and never with mixed settings.

A journal beside the output, `OUT.part.jsonl`, stores each finished problem, and each finished step of sequential
problems under way. When all problems are done, the output is written whole and the journal is removed. After any
interruption, kill -9 included, the same command resumes: no finished step is repeated or lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, Protocol, overload

from justenough.backends.protocol import NOT_BEGUN, Backend
from justenough.errors import BackendError, InputError, Interrupted, SettingsMismatch
from justenough.gate import Decision, GateSettings
from justenough.grading import Problem, open_grader
from justenough.rules.live import LiveRule
from justenough.runner import Run, Runner, RunSettings
from justenough.runner.journal import Journal, journal_of
from justenough.runner.shaping import other_settings, recorded_in, shaping_of
from justenough.runner.shaping import settings_digest as settings_digest
from justenough.runner.walk import require_readable, spent
from justenough.stats.text import counted
from justenough.trace import Step, Token, Trace
from justenough.trace.files import TraceFile, write_traces


class Progress(Protocol):
    """Receives the progress of a collection."""

    def update(self, *, done: int, total: int, steps: int, tokens: int) -> None:
        """`done` of `total` problems are finished. This process has generated `steps` and `tokens` (completion tokens).

        It is called for each token.
        """


class CollectResult(NamedTuple):
    """The result of a collection."""

    traces: Sequence[Trace]
    """In the order of the problems; each loop reads the output again."""
    reused: int
    """Problems that an earlier call had finished."""
    tokens: int
    """Completion tokens that this call generated."""
    seconds: float
    """Duration of this call."""


class Collected(Sequence[Trace]):
    """The traces of an output, which do not stay in memory."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count

    def __iter__(self) -> Iterator[Trace]:
        return TraceFile(self._path).plain()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Trace: ...

    @overload
    def __getitem__(self, index: slice) -> list[Trace]: ...

    def __getitem__(self, index: int | slice) -> Trace | list[Trace]:
        places = range(self._count)[index]
        if isinstance(places, int):
            return next(islice(self, places, None))
        return [self[place] for place in places]


async def collect(
    problems: Sequence[Problem],
    out: Path | str,
    *,
    backend: Backend,
    settings: RunSettings | None = None,
    grader: str = "exact",
    gate: GateSettings | None = None,
    rule: LiveRule | None = None,
    cascade: Backend | None = None,
    concurrency: int | None = None,
    progress: Progress | None = None,
) -> CollectResult:
    """Run all problems, record every step and write the traces to `out`; the same call resumes an interrupted run.

    A `gate` or a `rule` stops problems early. `grader` is a name that `open_grader` knows. `concurrency` is the number
    of problems that run at a time; by default the backend's. The caller closes the backends.

    Raises `SettingsMismatch` if `out` holds runs of other settings, `Interrupted` if the model fails midway (finished
    steps are kept), and `BackendError` if it fails at once.
    """
    settings = settings or RunSettings()
    opened = open_grader(grader)
    try:
        runner = Runner(backend, settings, grader=opened, gate=gate, rule=rule, cascade=cascade)
        digest = settings_digest(backend, settings, grader=grader, gate=gate, rule=rule, cascade=cascade)
        collector = Collector(runner, digest=digest, concurrency=concurrency)
        return await collector.collect(problems, Path(out), progress=progress)
    finally:
        opened.close()


class Collector:
    """Collects traces of problems with a runner; one per output file at a time."""

    def __init__(self, runner: Runner, *, digest: str, concurrency: int | None = None) -> None:
        self.runner = runner
        self.digest = digest
        streams = concurrency or runner.backend.concurrency
        rule, sequential = runner.rule, runner.settings.shape == "sequential"
        records = runner.gate.threshold is None and rule is None
        # A thought stays open while its answers are elicited: each problem needs two streams.
        elicits = not sequential and (records or (rule is not None and rule.elicits))
        self.concurrency = max(1, streams // 2 if elicits else streams)
        # Without a threshold, a trace with fewer steps is unfinished. An interrupted thought cannot be continued.
        self._keeps_steps = records and sequential

    async def collect(
        self, problems: Sequence[Problem], out: Path, *, progress: Progress | None = None, keep_journal: bool = False
    ) -> CollectResult:
        """Run all problems that `out` and its journal do not contain yet, and write `out`.

        Raises `SettingsMismatch` if they contain runs of other settings, `Interrupted` if the model fails after the
        first stored step, the backend's own error if nothing is stored, and `ProblemRefused` if the model can read none
        of the problems. If it can read others, a problem that it cannot read is recorded as `refused`.
        """
        require_readable(self.runner.backend, problems)
        path = journal_of(out)
        begun = time.monotonic()
        with Journal(path, digest=self.digest, shaping=shaping_of(self.runner)) as journal:
            known, written = self._known(out, journal, problems)
            missing = [problem for problem in problems if known.get(problem.id, ()) is not None]
            reused = done = len(problems) - len(missing)
            complete = not journal.traces and written == [problem.id for problem in problems]
            if not complete and written:
                # The output is written anew from the journal.
                for trace in TraceFile(out).plain():
                    if trace.id not in journal.traces:
                        journal.append(trace)

            def keep(problem: Problem, steps: Sequence[Step]) -> None:
                trace = self.runner.trace(problem, steps, settings_digest=self.digest)
                if not self._finished(trace):
                    journal.append(trace)

            work = _Work(
                self.runner,
                digest=self.digest,
                concurrency=self.concurrency,
                total=len(problems),
                progress=progress,
                done=reused,
                earlier={name: steps for name, steps in known.items() if steps is not None},
                keep=keep if self._keeps_steps else None,
            )
            try:
                async for run in work.runs(missing):
                    journal.append(run.trace)
                    done += 1
            except BackendError as error:
                if not done and not journal.traces:
                    raise
                raise Interrupted(
                    f"{error}; {done} of {len(problems)} problems are kept in {path}",
                    hint="the same command continues from there",
                ) from error
            if not complete:
                try:
                    write_traces((journal.traces[problem.id] for problem in problems), out)
                except InputError as error:
                    raise Interrupted(
                        f"{error}; {path} keeps {counted(done, 'problem')}",
                        hint="the same command continues from there",
                    ) from error
            if not keep_journal:
                journal.delete()
        return CollectResult(Collected(out, len(problems)), reused, work.tokens, time.monotonic() - begun)

    def _finished(self, trace: Trace) -> bool:
        steps = trace.steps
        if not self._keeps_steps or len(steps) >= self.runner.gate.max_steps or steps[-1].finish in NOT_BEGUN:
            return True
        return not self.runner.settings.can_extend(steps)

    def _known(
        self, out: Path, journal: Journal, problems: Sequence[Problem]
    ) -> tuple[dict[str, tuple[Step, ...] | None], list[str]]:
        """Problem → its steps so far, or None if it is finished; and the problems of `out`, in its order."""
        expected = {problem.id: problem for problem in problems}
        known, written, strangers, changed = dict[str, tuple[Step, ...] | None](), list[str](), set[str](), list[str]()
        earlier = ((True, trace) for trace in TraceFile(out).plain()) if out.exists() else ()
        for is_written, trace in chain(earlier, ((False, trace) for trace in journal.traces.values())):
            if trace.settings != self.digest:
                raise other_settings(out, recorded_in(trace), shaping_of(self.runner))
            if (problem := expected.get(trace.id)) is None:
                strangers.add(trace.id)
            elif (trace.problem, trace.target) != (problem.problem, problem.target):
                changed.append(trace.id)
            known[trace.id] = None if self._finished(trace) else trace.steps
            if is_written:
                written.append(trace.id)
        if strangers:
            raise SettingsMismatch(
                f"{out} holds {counted(len(strangers), 'problem')} that this command does not request,"
                f" such as {min(strangers)!r}",
                hint="choose another --out, or raise --limit",
            )
        if changed:
            raise SettingsMismatch(
                f"{out}: the problem {changed[0]!r} was another one when it was collected",
                hint="an id must always name the same problem: choose another --out",
            )
        return known, written


async def run_all(
    runner: Runner, problems: Sequence[Problem], *, concurrency: int, progress: Progress | None = None
) -> list[Run]:
    """Run problems concurrently without any file; in their order. Raises `ProblemRefused` if none can be read."""
    require_readable(runner.backend, problems)
    work = _Work(runner, digest=None, concurrency=concurrency, total=len(problems), progress=progress)
    done = {run.trace.id: run async for run in work.runs(problems)}
    return [done[problem.id] for problem in problems]


@dataclass(kw_only=True)
class _Work:
    """Problems under way: counts their tokens and steps as they come, and shows and keeps them."""

    runner: Runner = field(kw_only=False)
    digest: str | None
    concurrency: int
    total: int
    progress: Progress | None
    done: int = 0
    earlier: Mapping[str, Sequence[Step]] = field(default_factory=dict)
    """Problem → its steps from an earlier process."""
    keep: Callable[[Problem, Sequence[Step]], None] | None = None
    """Stores the steps of a problem under way."""
    steps: int = 0
    tokens: int = 0

    def show(self) -> None:
        """Show the progress."""
        if self.progress is not None:
            self.progress.update(done=self.done, total=self.total, steps=self.steps, tokens=self.tokens)

    async def runs(self, problems: Sequence[Problem]) -> AsyncIterator[Run]:
        """Runs as they finish, at most `concurrency` under way."""
        waiting = iter(problems)
        running: set[asyncio.Task[Run]] = set()
        self.show()
        try:
            while True:
                while len(running) < self.concurrency and (problem := next(waiting, None)) is not None:
                    running.add(asyncio.create_task(self._run(problem)))
                if not running:
                    return
                finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                # A failure must not lose the runs that finished at the same moment.
                for task in finished:
                    if task.exception() is None:
                        self.done += 1
                        self.show()
                        yield task.result()
                for task in finished:
                    task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, problem: Problem) -> Run:
        earlier = tuple(self.earlier.get(problem.id, ()))
        watch = _Watch(self, problem, list(earlier))
        run = await self.runner.run(problem, settings_digest=self.digest, earlier=earlier, observer=watch)
        watch.count(run.trace.steps[len(earlier) :])
        return run


@dataclass(slots=True)
class _Watch:
    """The observer of one problem."""

    work: _Work
    problem: Problem
    steps: list[Step]
    counted: int = 0
    """Tokens of this problem in the sum of `work`."""
    fresh: list[Step] = field(default_factory=list)

    def token(self, token: Token, *, step: int) -> None:
        """Count a token."""
        self.counted += 1 + token.discarded
        self.work.tokens += 1 + token.discarded
        self.work.show()

    def step(self, step: Step, decision: Decision) -> None:
        """Count a step, and keep it."""
        self.steps.append(step)
        self.fresh.append(step)
        self.work.steps += 1
        self.count(self.fresh)
        if self.work.keep is not None:
            self.work.keep(self.problem, self.steps)

    def count(self, fresh: Sequence[Step]) -> None:
        """Correct the sum to the tokens of the steps, with their probes and with tokens that come without text."""
        tokens = spent(fresh)
        self.work.tokens += tokens - self.counted
        self.counted = tokens
        self.work.show()
