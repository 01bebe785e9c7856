"""Accounts: many ledgers in one file, by the minute or for a batch; nothing lost, nothing twice, no key in the file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from justenough.budget import Accounts, Per
from justenough.errors import BudgetError, LedgerError


class Clock:
    now = 6_000.0

    def __call__(self) -> float:
        return self.now


def test_each_account_has_its_own_budget_and_no_more() -> None:
    with Accounts(100, per="batch") as accounts:
        with accounts.reserve("a", 80, at_least=1) as reservation:
            reservation.use(30)
            with pytest.raises(BudgetError, match="20 of 100"):
                accounts.reserve("a", 50, at_least=21)
            assert accounts.reserve("b", 100, at_least=100).limit == 100
        assert accounts.standing()["a"] == (30, 0, 70, 0)
        assert accounts.reserve("a", 500, at_least=16).limit == 70
        assert accounts.resets_in_s is None


@pytest.mark.parametrize("kept", [False, True])
def test_a_new_minute_begins_with_everything_and_old_reservations_settle_in_their_own(
    kept: bool, tmp_path: Path
) -> None:
    clock = Clock()
    with Accounts(
        100, per="minute", path=tmp_path / "a" if kept else None, clock=lambda: 6_000.0, monotonic=clock
    ) as accounts:
        held = accounts.reserve("a", 90, at_least=1)
        clock.now += 17.5
        assert accounts.resets_in_s == 42.5
        clock.now += 42.5
        assert accounts.reserve("a", 100, at_least=100).limit == 100
        held.commit(90)
        assert accounts.standing()["a"] == (0, 100, 0, 0)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("ahead_s", [86_400.0, -86_400.0])
def test_a_clock_that_is_corrected_neither_holds_a_minute_up_nor_gives_it_twice(
    kept: bool, ahead_s: float, tmp_path: Path
) -> None:
    path = tmp_path / "a" if kept else None
    wall, ticks = Clock(), Clock()
    wall.now += ahead_s
    with Accounts(100, per="minute", path=path, clock=wall, monotonic=ticks) as accounts:
        accounts.reserve("a", 100, at_least=100).commit(100)
        wall.now -= ahead_s
        with pytest.raises(BudgetError):
            accounts.reserve("a", 1, at_least=1)
        assert accounts.resets_in_s == 60.0
        ticks.now += 60
        assert accounts.reserve("a", 100, at_least=100).limit == 100
    # A later process with the right clock begins with the present minute.
    with Accounts(100, per="minute", path=path, clock=wall, monotonic=ticks) as accounts:
        assert accounts.reserve("a", 100, at_least=100).limit == 100


def test_reading_the_accounts_writes_nothing_when_the_minute_turns(tmp_path: Path) -> None:
    clock = Clock()
    with Accounts(100, per="minute", path=tmp_path / "a", clock=lambda: 6_000.0, monotonic=clock) as accounts:
        accounts.reserve("a", 90, at_least=1).commit(40)
        assert accounts._file is not None
        accounts._file._db.execute("CREATE TRIGGER t BEFORE DELETE ON account BEGIN SELECT RAISE(FAIL, 'full'); END")
        clock.now += 61
        assert accounts.standing() == {}
        assert accounts.resets_in_s == 59.0
        with pytest.raises(LedgerError, match="full"):
            accounts.reserve("a", 90, at_least=1)
        assert accounts.standing() == {}
        # The old minute's rows stay until the next turn; a new minute does not need them to be deleted.
        assert accounts.reserve("a", 100, at_least=100).limit == 100


@pytest.mark.parametrize("per", ["minute", "batch"])
def test_a_number_that_the_file_cannot_hold_is_refused_in_one_line(per: Per, tmp_path: Path) -> None:
    with Accounts(10**30, per=per, path=tmp_path / "a") as accounts, pytest.raises(LedgerError, match="too large"):
        accounts.reserve("a", 5, at_least=1)


def test_a_file_keeps_sums_and_no_key(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    with Accounts(100, per="batch", path=path) as accounts:
        name = accounts.name("sk-secret")
        for _ in range(50):
            accounts.reserve(name, 2, at_least=1).commit(1)
        with pytest.raises(BudgetError, match="in use"):
            Accounts(100, per="batch", path=path)
    with Accounts(60, per="batch", path=path) as accounts:
        assert accounts.name("sk-secret") == name
        assert accounts.standing() == {name: (50, 0, 10, 0)}
    with Accounts(40, per="batch", path=path) as accounts, pytest.raises(BudgetError):
        accounts.reserve(name, 1, at_least=1)
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"sk-secret" not in written
    assert name.encode() in written
    assert len(written) < 100_000
    with Accounts(1, per="batch") as other:
        assert other.name("sk-secret") != name


def test_the_sum_survives_a_process_that_dies(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    script = f"""
import os
from pathlib import Path
from justenough.budget import Accounts, Per
accounts = Accounts(100, per="batch", path=Path({str(path)!r}))
accounts.reserve("a", 30, at_least=1).commit(20)
accounts.reserve("a", 40, at_least=1).use(5)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    with Accounts(100, per="batch", path=path) as accounts:
        assert accounts.standing() == {"a": (25, 0, 75, 35)}


def test_what_is_no_budget_and_no_file_is_refused(tmp_path: Path) -> None:
    for tokens in (0, -1, True):
        with pytest.raises(BudgetError):
            Accounts(tokens, per="batch")
    wrong = tmp_path / "wrong"
    wrong.write_text("not a database, but long enough to be taken for one" * 30)
    with pytest.raises(BudgetError, match="cannot be used"):
        Accounts(1, per="batch", path=wrong)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM accounts",
        "UPDATE accounts SET salt = 'text'",
        "UPDATE account SET spent = 'many'",
        "UPDATE account SET spent = -3",
        "UPDATE account SET lapsed = 1.5",
        "UPDATE account SET total = x'00'",
        "UPDATE account SET name = x'00'",
    ],
)
def test_a_file_with_odd_rows_is_refused_in_one_line(statement: str, tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    with Accounts(100, per="batch", path=path) as accounts, accounts.reserve("a", 80, at_least=1) as reservation:
        reservation.use(30)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)
    with pytest.raises(LedgerError, match="is damaged: row"), Accounts(100, per="batch", path=path):
        pass


@pytest.mark.parametrize("replaced", [False, True])
def test_nothing_is_reserved_in_a_file_that_is_no_longer_in_its_place(tmp_path: Path, replaced: bool) -> None:
    path = tmp_path / "ledger.sqlite"
    with Accounts(100, per="batch", path=path) as accounts:
        accounts.reserve("a", 20, at_least=1).commit(20)
        path.rename(tmp_path / "away")
        if replaced:
            path.write_bytes(b"")
        with pytest.raises(LedgerError, match="replaced it" if replaced else "No such file"):
            accounts.reserve("a", 20, at_least=1)
        assert accounts.standing()["a"].reserved == 0
        (tmp_path / "away").rename(path)
        accounts.reserve("a", 20, at_least=1).commit(20)
