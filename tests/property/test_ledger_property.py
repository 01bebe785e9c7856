"""The ledger's invariants, whatever happens in whatever order: by model, by threads, by tasks that are cancelled."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from random import Random
from threading import Barrier, Thread

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from justenough.budget import UNITS, Ledger, Reservation, Unit
from justenough.errors import BudgetError

TOTAL = 1000


class LedgerMachine(RuleBasedStateMachine):
    """Reserve, use, over-use, commit, release, close and crash, against plain sums."""

    open_reservations = Bundle("open_reservations")

    @initialize(persistent=st.booleans(), unit=st.sampled_from(UNITS))
    def begin(self, persistent: bool, unit: Unit) -> None:
        self.unit = unit
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger" if persistent else None
        self.ledger = Ledger(TOTAL, unit=unit, path=self.path)
        self.spent = 0
        self.held: dict[int, int] = {}

    @rule(target=open_reservations, limit=st.integers(0, 400), at_least=st.none() | st.integers(0, 400))
    def reserve(self, limit: int, at_least: int | None) -> Reservation | None:
        free = TOTAL - self.spent - sum(self.held.values())
        floor = max(1, limit if at_least is None else min(at_least, limit))
        if min(limit, free) < floor:
            with pytest.raises(BudgetError, match="are left"):
                self.ledger.reserve(limit, at_least=at_least)
            return None
        made = self.ledger.reserve(limit, at_least=at_least, key="step")
        assert made.limit == min(limit, free)
        self.held[id(made)] = made.limit
        return made

    @rule(reservation=open_reservations, amount=st.integers(0, 300))
    def use(self, reservation: Reservation | None, amount: int) -> None:
        if reservation is None or reservation.settled:
            return
        before = reservation.used
        if before + amount > reservation.limit:
            with pytest.raises(BudgetError, match="'step' used"):
                reservation.use(amount)
            assert reservation.used == reservation.limit
        else:
            assert reservation.use(amount) == reservation.limit - before - amount

    @rule(reservation=consumes(open_reservations), used=st.none() | st.integers(0, 500))
    def commit(self, reservation: Reservation | None, used: int | None) -> None:
        if reservation is None or reservation.settled:
            return
        amount = reservation.used if used is None else used
        if amount > reservation.limit:
            with pytest.raises(BudgetError, match=f"used {amount} {self.unit} of a reservation of {reservation.limit}"):
                reservation.commit(used)
        else:
            reservation.commit(used)
        self.spent += min(amount, self.held.pop(id(reservation)))
        with pytest.raises(BudgetError, match="settled already"):
            reservation.commit(1)

    @rule(reservation=consumes(open_reservations), fails=st.booleans())
    def leave_the_block(self, reservation: Reservation | None, fails: bool) -> None:
        if reservation is None or reservation.settled:
            return
        used = reservation.used
        try:
            with reservation:
                if fails:
                    raise KeyError
        except KeyError:
            pass
        self.held.pop(id(reservation))
        self.spent += used

    @rule()
    def close_and_open(self) -> None:
        if self.path is None:
            return
        self.spent += sum(made.used for made in self.ledger._open.values())
        self.held.clear()
        self.ledger.close()
        self.ledger = Ledger(unit=self.unit, path=self.path)

    @rule()
    def crash_and_open(self) -> None:
        """The process dies: the file is let go of as it is, without a word."""
        if self.path is None:
            return
        self.spent += sum(made.used for made in self.ledger._open.values())
        open_then = [(made.key, made.limit, made.used) for made in self.ledger._open.values()]
        before = self.ledger.lapses
        self.held.clear()
        assert self.ledger._file is not None
        self.ledger._file.close()
        for made in self.ledger._open.values():
            made.settled = True
        self.ledger = Ledger(unit=self.unit, path=self.path)
        assert [tuple(lapse) for lapse in self.ledger.lapses[len(before) :]] == open_then

    @invariant()
    def sums_hold(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert (self.ledger.spent, self.ledger.reserved) == (self.spent, sum(self.held.values()))
        assert self.ledger.spent + self.ledger.reserved + self.ledger.remaining == self.ledger.total == TOTAL
        assert self.ledger.remaining >= 0
        assert sum(self.ledger.spent_by_key.values()) == self.spent

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.folder.cleanup()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("persistent", [False, True])
def test_threads_never_overspend_and_lose_nothing(tmp_path: Path, persistent: bool) -> None:
    ledger = Ledger(3000 if not persistent else 600, path=tmp_path / "ledger" if persistent else None)
    workers = 8
    spent = [0] * workers
    refused = [0] * workers
    worst = [0] * workers
    barrier = Barrier(workers)

    def work(worker: int) -> None:
        random = Random(worker)
        barrier.wait()
        while refused[worker] < 20:
            limit = random.randint(1, 60)
            try:
                with ledger.reserve(limit, at_least=random.choice((None, 1))) as reservation:
                    worst[worker] = max(worst[worker], ledger.spent + ledger.reserved)
                    used = random.randint(0, reservation.limit)
                    for _ in range(used):
                        reservation.use()
                    spent[worker] += used
            except BudgetError:
                refused[worker] += 1

    threads = [Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.spent == sum(spent) <= ledger.total
    assert ledger.reserved == 0
    assert sum(spent) > ledger.total * 0.8
    ledger.close()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_cancelled_tasks_commit_what_they_used(seed: int) -> None:
    random = Random(seed)
    ledger = Ledger(500)
    really = 0

    async def step(limit: int, tokens: int) -> None:
        nonlocal really
        with ledger.reserve(limit, at_least=1) as reservation:
            for _ in range(min(tokens, reservation.limit)):
                await asyncio.sleep(0)
                reservation.use()
                really += 1

    async def run() -> None:
        tasks = [asyncio.create_task(step(random.randint(1, 80), random.randint(0, 90))) for _ in range(20)]
        for task in tasks:
            for _ in range(random.randint(0, 5)):
                await asyncio.sleep(0)
                assert ledger.spent + ledger.reserved <= ledger.total
            if random.random() < 0.5:
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, asyncio.CancelledError | BudgetError) for outcome in outcomes)

    asyncio.run(run())
    assert ledger.spent == really <= 500
    assert ledger.reserved == 0
