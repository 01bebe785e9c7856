from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from justenough.budget import Ledger
from justenough.budget.ledgerfile import LedgerFile
from justenough.errors import BudgetError, LedgerError


def test_a_step_commits_what_it_used_and_gives_back_the_rest() -> None:
    ledger = Ledger(100)
    with ledger.reserve(60, key="p#1") as reservation:
        assert (ledger.reserved, ledger.remaining) == (60, 40)
        assert reservation.use(20) == 40
    assert (ledger.spent, ledger.reserved, ledger.remaining) == (20, 0, 80)
    assert dict(ledger.spent_by_key) == {"p#1": 20}


def test_a_step_that_over_runs_is_cut_at_its_limit_and_named() -> None:
    ledger = Ledger(100)
    with pytest.raises(BudgetError, match=r"'p#2' used 31 tokens of a reservation of 30"):
        ledger.reserve(30, key="p#2").commit(31)
    assert (ledger.spent, ledger.reserved) == (30, 0)
    with ledger.reserve(30, key="p#3") as reservation:
        reservation.use(20)
        with pytest.raises(BudgetError, match="'p#3' used 41"):
            reservation.use(21)
    assert (ledger.spent, ledger.reserved) == (60, 0)


def test_what_is_left_can_be_taken_whole_but_not_more() -> None:
    ledger = Ledger(100)
    held = ledger.reserve(70)
    with pytest.raises(BudgetError, match=r"needs 40 tokens, 30 of 100 are left \(0 spent, 70 reserved\)"):
        ledger.reserve(50, at_least=40, key="p#1")
    assert ledger.reserve(50, at_least=20).limit == 30
    held.release()
    assert ledger.remaining == 70


@pytest.mark.parametrize("total", [0, -1, 1.5, float("nan"), True, None])
def test_totals_that_cannot_be_spent(total: int | None) -> None:
    with pytest.raises(BudgetError) as caught:
        Ledger(total)
    assert caught.value.hint


def test_a_file_keeps_total_unit_and_sum(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.sqlite"
    with Ledger(100, unit="calls", path=path) as ledger:
        ledger.reserve(10, key="a").commit(7)
        ledger.reserve(5, key="left open").use(2)
    assert [entry.name for entry in path.parent.iterdir()] == ["ledger.sqlite"]
    with Ledger(unit="calls", path=path) as ledger:
        assert (ledger.total, ledger.spent, ledger.reserved) == (100, 9, 0)
        assert ledger.lapses == ()
    with Ledger(200, unit="calls", path=path) as ledger:
        assert ledger.remaining == 191
    with Ledger(unit="calls", path=path) as ledger:
        assert ledger.total == 200
    with pytest.raises(BudgetError, match="9 calls are spent, the budget is 8"):
        Ledger(8, unit="calls", path=path)
    with pytest.raises(BudgetError, match="counts calls, not tokens"):
        Ledger(path=path)


def test_a_file_in_use_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with Ledger(10, path=path), pytest.raises(BudgetError, match="in use by another process"):
        Ledger(10, path=path)
    text = tmp_path / "text"
    text.write_text("no database " * 100)
    with pytest.raises(BudgetError, match="cannot be used"):
        Ledger(10, path=text)
    other = tmp_path / "other"
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE t (x)")
    database.close()
    with pytest.raises(BudgetError, match="is no ledger"):
        Ledger(10, path=other)
    with pytest.raises(BudgetError, match="cannot be used"):
        Ledger(10, path=tmp_path)


def test_a_closed_ledger_serves_nobody() -> None:
    ledger = Ledger(10)
    ledger.close()
    ledger.close()
    with pytest.raises(BudgetError, match="closed"):
        ledger.reserve(1)


def test_a_settlement_that_the_file_refuses_leaves_the_reservation_held(tmp_path: Path) -> None:
    ledger = Ledger(100, path=tmp_path / "ledger")
    reservation = ledger.reserve(40, key="a")
    file = ledger._file
    assert isinstance(file, LedgerFile)
    file._db.execute("CREATE TRIGGER stop BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(BudgetError, match="disk full"):
        reservation.commit(10)
    assert (ledger.spent, ledger.reserved) == (0, 40)
    file._db.execute("DROP TRIGGER stop")
    # The amount was noted: leaving the block afterwards settles it, once.
    with reservation:
        pass
    assert (ledger.spent, ledger.reserved) == (10, 0)
    ledger.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ledger",
        "UPDATE ledger SET total = 'many'",
        "UPDATE entry SET used = -3",
        "UPDATE entry SET used = 1.5",
        "UPDATE entry SET key = x'00'",
    ],
)
def test_a_file_with_odd_rows_is_refused_in_one_line(statement: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    with Ledger(100, path=path) as ledger, ledger.reserve(60, key="p#1") as reservation:
        reservation.use(20)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(statement)
    with pytest.raises(LedgerError, match="is damaged: row"), Ledger(100, path=path):
        pass
