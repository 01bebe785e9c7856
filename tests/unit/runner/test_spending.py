"""A batch under a budget: it never spends too much, resumes after a stop, and refuses impossible budgets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from justenough.backends.protocol import Finish, Request
from justenough.budget import Expectation, Ledger, Unit
from justenough.errors import BackendUnavailable, BudgetError, Interrupted, SettingsMismatch
from justenough.gate import Reason
from justenough.grading import Exact, Problem, read_tasks
from justenough.runner import Runner, RunSettings
from justenough.runner.collect import run_all, settings_digest
from justenough.runner.journal import journal_of
from justenough.runner.meter import Meter
from justenough.runner.spending import Spender, Spent
from justenough.toy.backend import EmbeddedBackend
from justenough.trace import Token
from justenough.trace.files import read_traces
from tests.fakes import ScriptedBackend

PROBLEMS = [Problem(id=f"p{number}", problem=f"{number}+1", target=str(number + 1)) for number in range(10)]


def script(request: Request) -> list[tuple[str, float]]:
    """Ten tokens; odd problems are unsure and wrong at step 1."""
    number = int(request.key[0][1:])
    wrong = number % 2 == 1 and request.key[1] == 1
    bits = 1.0 if wrong else 0.1
    texts = [("<think>", bits), *[("hm", bits)] * 7, ("</think>", bits)]
    return [*texts, (f"Answer: {0 if wrong else number + 1}", bits)]


def spend(
    out: Path,
    *,
    total: int,
    policy: str = "entropy-proportional",
    backend: ScriptedBackend | None = None,
    expectation: Expectation | None = None,
    unit: Unit = "tokens",
    settings: RunSettings | None = None,
) -> tuple[Spent, ScriptedBackend]:
    backend = backend or ScriptedBackend(script)
    runner = Runner(backend, settings or RunSettings(max_steps=3, max_tokens=10), grader=Exact())
    digest = settings_digest(backend, runner.settings, grader="exact")
    spender = Spender(runner, digest=digest, policy=policy, expectation=expectation, unit=unit)
    return asyncio.run(spender.spend(PROBLEMS, out, total=total)), backend


def test_the_unsure_problems_get_the_spare_steps(tmp_path: Path) -> None:
    result, backend = spend(tmp_path / "t.parquet", total=150)
    assert result.spent == 150 == backend.generated
    steps = {trace.id: len(trace.steps) for trace in result.traces}
    assert all(steps[f"p{number}"] == (2 if number % 2 else 1) for number in range(10))
    assert all(trace.steps[-1].correct for trace in result.traces)
    assert read_traces(tmp_path / "t.parquet").traces == result.traces


def test_collected_traces_are_not_replaced_by_those_of_a_budget(tmp_path: Path) -> None:
    out = tmp_path / "t.jsonl"
    spend(out, total=150)
    before = out.read_bytes()
    for path in (journal_of(out), out.with_name("t.jsonl.ledger")):
        path.unlink()
    with pytest.raises(SettingsMismatch, match=r"other settings: temperature 0\.8, now 0\.5"):
        spend(out, total=150, settings=RunSettings(max_steps=3, max_tokens=10, temperature=0.5))
    assert out.read_bytes() == before
    # Without its journal, the output itself tells which steps are paid.
    assert spend(out, total=150)[1].requests == []


def test_an_overlong_conversation_costs_nothing_and_ends_its_problem(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    backend = ScriptedBackend(script, overlong=lambda request: request.key in {("p1", 2), ("p2", 1)})
    result, _ = spend(out, total=1000, policy="uniform", backend=backend)
    assert result.spent == backend.generated == 8 * 30 + 10
    finishes = {trace.id: [step.finish for step in trace.steps] for trace in result.traces}
    assert finishes["p1"] == ["stop", "context"]
    assert finishes["p2"] == ["context"]
    again, idle = spend(out, total=1000, policy="uniform")
    assert idle.requests == []
    assert again.traces == result.traces


def test_a_problem_outside_the_language_of_the_model_costs_nothing(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    backend = ScriptedBackend(script, unread=[PROBLEMS[1].problem])
    result, _ = spend(out, total=1000, policy="uniform", backend=backend)
    assert result.spent == backend.generated == 9 * 30
    finishes = {trace.id: [step.finish for step in trace.steps] for trace in result.traces}
    assert finishes[PROBLEMS[1].id] == ["refused"]
    again, idle = spend(out, total=1000, policy="uniform")
    assert idle.requests == []
    assert again.traces == result.traces


def test_the_budget_is_never_overspent(tmp_path: Path) -> None:
    for total in (100, 101, 109, 137, 299, 300, 1000):
        result, backend = spend(tmp_path / f"{total}.parquet", total=total)
        assert result.spent == min(total, backend.generated) == backend.generated
        assert result.spent <= min(total, 300)


def test_a_larger_budget_continues_from_the_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    spend(out, total=150)
    result, backend = spend(out, total=200)
    assert backend.generated == 50
    assert result.spent == 200
    again, idle = spend(out, total=200)
    assert idle.generated == 0
    assert again.traces == result.traces


def test_a_server_that_goes_away_keeps_and_resumes(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    with pytest.raises(Interrupted, match="kept"):
        spend(out, total=200, backend=ScriptedBackend(script, fail_after=8))
    with Ledger(path=tmp_path / "t.parquet.ledger") as ledger:
        before = ledger.spent
    assert 0 < before <= 80
    result, backend = spend(out, total=200)
    assert before + backend.generated == result.spent == 200


def test_an_answered_problem_keeps_its_answer_when_the_last_step_is_cut(tmp_path: Path) -> None:
    result, backend = spend(tmp_path / "t.parquet", total=105)
    assert backend.generated == result.spent == 105
    assert result.cut == 1
    assert all(len(trace.steps) == 1 for trace in result.traces)


@pytest.mark.parametrize(("total", "message"), [(0, "the budget is 0"), (-5, "-5")])
def test_a_total_that_is_not_positive_is_refused(total: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=message):
        spend(tmp_path / "t.parquet", total=total)


def test_greedy_needs_an_expectation_of_this_model(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="expectation"):
        spend(tmp_path / "t.parquet", total=200, policy="greedy")

    async def other() -> Expectation:
        backend = EmbeddedBackend()
        runner = Runner(backend, RunSettings(max_steps=3), grader=Exact())
        runs = await run_all(runner, read_tasks("arithmetic-calibration", limit=30), concurrency=32)
        await backend.close()
        return Expectation.fit([run.trace for run in runs])

    with pytest.raises(BudgetError, match="justenough-embedded"):
        spend(tmp_path / "t.parquet", total=200, policy="greedy", expectation=asyncio.run(other()))


def test_one_problem_under_a_ledger() -> None:
    async def run(total: int) -> tuple[int, list[str | None], Reason]:
        ledger = Ledger(total)
        runner = Runner(
            ScriptedBackend(script),
            RunSettings(max_steps=3, max_tokens=10),
            grader=Exact(),
            ledger=ledger,
        )
        result = await runner.run(PROBLEMS[2])
        return ledger.spent, [step.answer for step in result.trace.steps], result.decisions[-1].reason

    assert asyncio.run(run(20)) == (20, ["3", "3"], Reason.BUDGET)
    assert asyncio.run(run(15)) == (15, ["3", "3"], Reason.BUDGET)
    assert asyncio.run(run(99)) == (30, ["3", "3", "3"], Reason.MAX_STEPS)


class IgnoresLimits(ScriptedBackend):
    """A server that does not keep to the limit that it is given."""

    def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        return super().stream(replace(request, max_tokens=1_000_000))


def test_a_step_beyond_its_limit_is_cut_at_the_limit(tmp_path: Path) -> None:
    backend = IgnoresLimits(lambda _: [("hm", 0.5)] * 500)
    result, _ = spend(tmp_path / "t.parquet", total=105, backend=backend)
    assert result.spent == 105
    # One more token shows that the server continues; then the stream is closed.
    assert backend.generated == 105 + len(backend.requests)
    assert len(backend.cancelled) == len(backend.requests)
    assert result.overrun == 0

    ledger = Ledger(25)
    backend = IgnoresLimits(lambda _: [("Answer: 3", 0.5)] * 500)
    runner = Runner(backend, RunSettings(max_steps=9, max_tokens=10), grader=Exact(), ledger=ledger)
    run = asyncio.run(runner.run(PROBLEMS[2]))
    assert [step.tokens for step in run.trace.steps] == [10, 10, 5]
    assert ledger.spent == 25 == backend.generated - 3


def test_the_tokens_of_a_cancelled_step_are_spent(tmp_path: Path) -> None:
    backend = ScriptedBackend(script)

    async def cancelled() -> None:
        runner = Runner(backend, RunSettings(max_steps=3, max_tokens=10), grader=Exact())
        spender = Spender(runner, digest="d", policy="uniform", expectation=None)
        task = asyncio.create_task(spender.spend(PROBLEMS, tmp_path / "t.parquet", total=200))
        while backend.generated < 57:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert backend.cancelled
    with Ledger(path=tmp_path / "t.parquet.ledger") as ledger:
        # A token that was generated when the stream was closed may not have arrived.
        assert backend.generated - len(backend.cancelled) <= ledger.spent <= backend.generated
        assert ledger.spent > 40
        assert ledger.lapses == ()


def test_the_tokens_before_a_broken_connection_are_spent() -> None:
    class Breaking(ScriptedBackend):
        async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
            async for item in super().stream(request):
                yield item
                if self.generated == 4:
                    raise BackendUnavailable("the server is gone")

    ledger = Ledger(100)
    runner = Runner(Breaking(script), RunSettings(max_steps=3, max_tokens=10), grader=Exact(), ledger=ledger)
    with pytest.raises(BackendUnavailable):
        asyncio.run(runner.run(PROBLEMS[0]))
    assert (ledger.spent, ledger.reserved) == (4, 0)


def test_a_run_counts_calls_if_its_ledger_does() -> None:
    ledger = Ledger(2, unit="calls")
    runner = Runner(ScriptedBackend(script), RunSettings(max_steps=3, max_tokens=10), grader=Exact(), ledger=ledger)
    run = asyncio.run(runner.run(PROBLEMS[0]))
    assert [step.tokens for step in run.trace.steps] == [10, 10]
    assert run.decisions[-1].reason == Reason.BUDGET
    assert dict(ledger.spent_by_key) == {"p0#1": 1, "p0#2": 1}


def test_a_budget_below_one_step_is_one_error() -> None:
    ledger = Ledger(7)
    runner = Runner(ScriptedBackend(script), RunSettings(max_steps=3, max_tokens=10), grader=Exact(), ledger=ledger)
    with pytest.raises(BudgetError, match="7 tokens were not enough for one step"):
        asyncio.run(runner.run(PROBLEMS[0]))
    assert ledger.spent == 7


def test_tokens_that_a_server_counts_beyond_the_limit_are_reported_and_not_added(tmp_path: Path) -> None:
    class Counting(ScriptedBackend):
        async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
            async for item in super().stream(request):
                yield replace(item, tokens=item.tokens + 2) if isinstance(item, Finish) else item

    result, _ = spend(tmp_path / "t.parquet", total=100, backend=Counting(script))
    assert (result.spent, result.overrun) == (100, 20)


def test_calls_are_budgeted_too_and_one_that_breaks_off_is_a_call(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    result, backend = spend(out, total=13, unit="calls")
    assert result.spent == 13 == len(backend.requests)
    assert backend.generated == 130
    assert [len(trace.steps) for trace in result.traces].count(2) == 3
    result, backend = spend(out, total=15, unit="calls")
    assert (result.spent, len(backend.requests)) == (15, 2)
    with pytest.raises(BudgetError, match="the ledger counts calls, not tokens"):
        spend(out, total=200)
    with pytest.raises(BudgetError, match="9 calls are below one step for each of 10 problems"):
        spend(tmp_path / "u.parquet", total=9, unit="calls")

    class Breaking(ScriptedBackend):
        async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
            async for item in super().stream(request):
                yield item
                if self.generated == 65:
                    raise BackendUnavailable("the server is gone")

    with pytest.raises(Interrupted, match=r"[1-9] problems and \d+ calls are kept"):
        spend(tmp_path / "v.parquet", total=15, unit="calls", backend=(failing := Breaking(script)))
    with Ledger(unit="calls", path=tmp_path / "v.parquet.ledger") as ledger:
        assert ledger.spent == len(failing.requests)


def test_look_ahead_is_spent_from_the_reservation_too() -> None:
    ledger = Ledger(100)
    with ledger.reserve(8, key="p#1") as reservation:
        meter = Meter(reservation, max_tokens=8)
        assert meter.takes(Token(text="a", entropy=0.1, discarded=3))
        assert reservation.used == 4
        assert meter.takes(Finish(reason="stop", tokens=2))
        assert reservation.used == 5
    with ledger.reserve(6, key="p#2") as reservation:
        meter = Meter(reservation, max_tokens=6)
        assert meter.takes(Token(text="a", entropy=0.1, discarded=3))
        # The look-ahead exceeds the limit: the step is cut, and only the tokens within the limit are spent.
        assert not meter.takes(Token(text="b", entropy=0.1, discarded=2))
        # The tokens of the step are these 3 and the 3 tokens of look-ahead.
        assert meter.cut() == Finish(reason="length", tokens=3)
    assert (ledger.spent, ledger.reserved) == (11, 0)


def test_a_backend_that_reports_fewer_tokens_does_not_reduce_the_count(tmp_path: Path) -> None:
    class Understating(ScriptedBackend):
        async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
            async for item in super().stream(request):
                yield replace(item, tokens=4) if isinstance(item, Finish) else item

    result, backend = spend(tmp_path / "t.parquet", total=150, backend=Understating(script))
    assert result.spent == backend.generated <= 150


def test_steps_that_ended_when_another_failed_are_kept(tmp_path: Path) -> None:
    class Breaking(ScriptedBackend):
        async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
            async for item in super().stream(request):
                if isinstance(item, Finish) and request.key[0] == "p5":
                    raise BackendUnavailable("the server is gone")
                yield item

    out = tmp_path / "t.parquet"
    with pytest.raises(Interrupted) as caught:
        spend(out, total=200, backend=Breaking(script))
    lines = (tmp_path / "t.parquet.part.jsonl").read_text().splitlines()[1:]
    rows = {row["id"]: row["steps"] for row in map(json.loads, lines)}
    with Ledger(path=tmp_path / "t.parquet.ledger") as ledger:
        # The ten tokens of the step that failed are spent, too.
        assert ledger.spent == sum(len(steps) for steps in rows.values()) * 10 + 10
        assert f"{len(rows)} problems and {ledger.spent} tokens are kept" in str(caught.value)
    assert len(rows) > 4


def test_an_expectation_that_was_fitted_on_the_same_problems_is_refused(tmp_path: Path) -> None:
    result, _ = spend(tmp_path / "t.parquet", total=300, policy="uniform")
    own = Expectation.fit(result.traces)
    with pytest.raises(BudgetError, match="fitted on 10 of these problems"):
        spend(tmp_path / "u.parquet", total=200, policy="greedy", expectation=own)


def test_the_expected_accuracy_uses_the_last_step_with_a_signal(tmp_path: Path) -> None:
    calibration = Expectation.fit(spend(tmp_path / "t.parquet", total=300, policy="uniform")[0].traces)
    known = replace(calibration, fitted_on=())

    class WithoutSignal(ScriptedBackend):
        """Second steps come without any signal."""

        async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
            async for item in super().stream(request):
                blind = isinstance(item, Token) and request.key[1] > 1
                yield item._replace(entropy=None) if blind and isinstance(item, Token) else item

    reply: list[float | None] = []

    class Progress:
        def update(self, *, spent: int, total: int, answered: int, expected: float | None) -> None:
            reply.append(expected)

    backend = WithoutSignal(script)
    runner = Runner(backend, RunSettings(max_steps=3, max_tokens=10), grader=Exact())
    spender = Spender(runner, digest="d", policy="uniform", expectation=known)
    asyncio.run(spender.spend(PROBLEMS, tmp_path / "u.parquet", total=200, progress=Progress()))
    bits = [1.0 if number % 2 else 0.1 for number in range(10)]
    assert reply[-1] == pytest.approx(sum(known.after(1, each)[1] for each in bits) / 10)
