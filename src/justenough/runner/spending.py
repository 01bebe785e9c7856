"""Runs a batch of problems under a budget: a policy chooses the next step, and a ledger prevents overspending.

The ledger counts each token as it comes; the journal stores the finished steps. After kill -9 the same command resumes:
steps that were under way are paid, but their answers are lost.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from justenough.backends.protocol import NOT_BEGUN
from justenough.budget import Expectation, Ledger, Schedule, Turn, Unit, policy_named
from justenough.errors import BackendError, BudgetError, Interrupted
from justenough.grading import Problem
from justenough.runner import Runner
from justenough.runner.journal import Journal, journal_of
from justenough.runner.shaping import other_settings, recorded_in, shaping_of
from justenough.runner.walk import require_readable
from justenough.stats.text import counted
from justenough.trace import Step, Trace, hashed
from justenough.trace.files import TraceFile, write_traces


class SpendingProgress(Protocol):
    """Receives the progress after each finished step."""

    def update(self, *, spent: int, total: int, answered: int, expected: float | None) -> None:
        """`spent` of `total` is used; `expected` is the expected accuracy so far."""


class Spent(NamedTuple):
    """The result of a batch under a budget."""

    traces: list[Trace]
    """Problems with at least one step, in their order."""
    spent: int
    total: int
    cut: int
    """Steps cut at the end of the budget; they are paid and are in no trace."""
    overrun: int
    """Tokens above the limits of the requests, as reported by the server; in no sum."""
    seconds: float


class Spender:
    """Runs a batch of sequential steps under a ledger."""

    def __init__(
        self,
        runner: Runner,
        *,
        digest: str,
        policy: str,
        expectation: Expectation | None,
        unit: Unit = "tokens",
        concurrency: int | None = None,
    ) -> None:
        """`unit` is what the budget counts: tokens or calls."""
        if runner.settings.shape != "sequential":
            raise BudgetError("a budget is spent in sequential steps", hint="--shape sequential")
        if expectation is not None:
            expectation.check(model=runner.backend.model, signal=runner.signal)
        self.runner = runner
        self.digest = digest
        self.policy = policy_named(policy)
        if self.policy.name == "oracle":
            reason = "the oracle needs to know which steps are right, so it works only in a replay"
            raise BudgetError(reason, hint="choose another policy")
        if self.policy.expects and expectation is None:
            reason = f"the policy {policy} needs an estimate of what further steps gain"
            hint = "fit an expectation on labelled traces of other problems (--fit), or choose entropy-proportional"
            raise BudgetError(reason, hint=hint)
        self.expectation = expectation
        self.unit: Unit = unit
        self.concurrency = concurrency or runner.backend.concurrency

    async def spend(
        self, problems: Sequence[Problem], out: Path, *, total: int, progress: SpendingProgress | None = None
    ) -> Spent:
        """Spend up to `total` completion tokens, or calls, on the problems and write their traces to `out`.

        Raises `BudgetError` for a budget that cannot be spent in this way, for example below one step each, and
        `Interrupted` if the model fails midway; finished steps are kept, and the same command resumes.
        """
        require_readable(self.runner.backend, problems)
        if self.expectation is not None:
            self.expectation.check(ids=[hashed(problem.task, problem.id) for problem in problems])
        start = time.monotonic()
        journal_path = journal_of(out)
        ledger_path = journal_path.with_name(out.resolve().name + ".ledger")
        if not ledger_path.exists():
            self._check(total, len(problems))
        with (
            Journal(journal_path, digest=self.digest, shaping=shaping_of(self.runner)) as journal,
            Ledger(total, unit=self.unit, path=ledger_path) as ledger,
        ):
            self._check_output(out, journal)
            batch = _Batch(self, problems, journal, ledger)
            batch.resume()
            try:
                await batch.run(progress)
            except BackendError as error:
                if not journal.traces:
                    raise
                raise Interrupted(
                    f"{error}; {len(journal.traces)} problems and {ledger.spent} {self.unit} are kept",
                    hint="the same command continues from there",
                ) from error
            traces = [journal.traces[problem.id] for problem in problems if problem.id in journal.traces]
            if not traces:
                raise BudgetError(f"{total} {self.unit} were not enough for one answer", hint="raise --budget")
            write_traces(traces, out)
            return Spent(traces, ledger.spent, total, batch.cut, batch.overrun, time.monotonic() - start)

    def _check_output(self, out: Path, journal: Journal) -> None:
        """Refuse an output that this journal cannot write again."""
        for trace in TraceFile(out).plain() if out.exists() else ():
            if trace.settings != self.digest:
                raise other_settings(out, recorded_in(trace), shaping_of(self.runner))
            if trace.id not in journal.traces:
                journal.append(trace)

    def _check(self, total: int, n: int) -> None:
        """Refuse a total below one step each, by the expected tokens of a first step or at least one token each."""
        least, hint = n, f"at least {n} {self.unit}, or fewer problems"
        if self.expectation is not None and self.unit == "tokens":
            least = max(n, math.ceil(self.expectation.first_step()[0] * n))
            hint = f"about {least} tokens are expected for that: raise the budget, or take fewer problems"
        if 0 < total < least:
            raise BudgetError(f"{total} {self.unit} are below one step for each of {counted(n, 'problem')}", hint=hint)


class _Batch:
    """One batch under way."""

    def __init__(self, spender: Spender, problems: Sequence[Problem], journal: Journal, ledger: Ledger) -> None:
        self.spender, self.problems, self.journal, self.ledger = spender, problems, journal, ledger
        self.runner = spender.runner
        self.cut = self.overrun = 0
        settings, expectation = self.runner.settings, spender.expectation
        self.schedule = Schedule(
            len(problems),
            ledger,
            policy=spender.policy,
            limits=[settings.max_tokens] * settings.max_steps,
            expectations=None if expectation is None else [expectation] * len(problems),
            seed=settings.seed,
            keys=[problem.id for problem in problems],
        )

    def steps(self, problem: Problem) -> tuple[Step, ...]:
        trace = self.journal.traces.get(problem.id)
        return trace.steps if trace is not None else ()

    def resume(self) -> None:
        """Resume the steps of an earlier process; steps that are missing in a new ledger are paid again."""
        paid = self.ledger.spent_by_key
        for row, problem in enumerate(self.problems):
            steps = self.steps(problem)
            for number, step in enumerate(steps, 1):
                key = f"{problem.id}#{number}"
                cost = 1 if self.ledger.unit == "calls" else step.tokens
                if cost and key not in paid:
                    self.ledger.reserve(cost, key=key).commit(cost)
            bits = [step.usable_bits(self.runner.signal) for step in steps]
            settings = self.runner.settings
            more = len(steps) < settings.max_steps and not any(step.finish in NOT_BEGUN for step in steps)
            more = more and settings.can_extend(steps)
            self.schedule.resume(row, bits, more=more)

    async def run(self, progress: SpendingProgress | None) -> None:
        running: dict[asyncio.Task[Step], Turn] = {}
        try:
            while True:
                while len(running) < self.spender.concurrency and (turn := self.schedule.next()) is not None:
                    running[asyncio.create_task(self.take(turn))] = turn
                if not running:
                    return
                finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    self.finish(running.pop(task), task)
                if progress is not None:
                    answered, ledger = len(self.journal.traces), self.ledger
                    expected = self.expected()
                    progress.update(spent=ledger.spent, total=ledger.total, answered=answered, expected=expected)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for task, turn in running.items():
                # Steps that finished when another one failed are paid and kept.
                if task.cancelled() or task.exception() is not None:
                    self.schedule.failed(turn)
                else:
                    self.finish(turn, task)

    async def take(self, turn: Turn) -> Step:
        problem = self.problems[turn.problem]
        return await self.runner.step(
            problem, self.steps(problem), max_tokens=turn.max_tokens, reservation=turn.reservation
        )

    def finish(self, turn: Turn, task: asyncio.Task[Step]) -> None:
        problem = self.problems[turn.problem]
        if task.exception() is not None:
            self.schedule.failed(turn)
        step = task.result()
        settings = self.runner.settings
        # Cut by the budget, not by the step's own limit: it has no answer of its own.
        short = step.finish == "length" and turn.max_tokens < settings.max_tokens
        self.cut += short
        steps = (*self.steps(problem), step)
        if not short:
            self.journal.append(self.runner.trace(problem, steps, settings_digest=self.spender.digest))
        more = (
            not short and step.finish not in NOT_BEGUN and turn.step < settings.max_steps and settings.can_extend(steps)
        )
        within = min(step.tokens, turn.max_tokens)
        if self.ledger.unit == "tokens":
            # Counted tokens stay counted, even if the backend reports fewer at the end.
            within = max(within, turn.reservation.used)
        self.overrun += step.tokens - within
        self.schedule.done(turn, tokens=within, bits=step.usable_bits(self.runner.signal), more=more)

    def expected(self) -> float | None:
        """Mean P(right) of all problems, by the last step with a signal; a problem without one counts as wrong."""
        expectation = self.spender.expectation
        if expectation is None:
            return None
        total = 0.0
        for problem in self.problems:
            steps = self.steps(problem)[: expectation.max_steps]
            measured = [
                (at, bits)
                for at, step in enumerate(steps, 1)
                if (bits := step.usable_bits(self.runner.signal)) is not None
            ]
            if measured:
                at, bits = measured[-1]
                total += expectation.after(at, bits)[len(steps) - at]
        return total / len(self.problems)
