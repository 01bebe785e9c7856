"""Ledgers of equal size, one for each account, per minute or for the whole batch; in memory or in one file.

    accounts = Accounts(100_000, per="minute", path=Path("budget.sqlite"))
    name = accounts.name("the client's key")
    with accounts.reserve(name, 4096, at_least=64) as reservation:
        ...

The file stores one sum for each account, and no key: names are digests with a salt that only this file has. Changes
survive the death of the process at any time. As with every ledger, the counted tokens of a dead process are spent, and
the rest of its reservations has lapsed. Only one process at a time can use a file.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from justenough.budget.ledger import Ledger, Reservation
from justenough.budget.ledgerfile import Count, Lapse, LedgerState, SqliteFile
from justenough.errors import BudgetError

Per = Literal["minute", "batch"]

PERIODS: Final[tuple[Per, ...]] = ("minute", "batch")
VERSION: Final = 2
_MINUTE_S: Final = 60
_SCHEMA: Final = """
CREATE TABLE accounts (version INTEGER NOT NULL, salt BLOB NOT NULL);
CREATE TABLE account (
    name TEXT NOT NULL, period INTEGER NOT NULL, total INTEGER NOT NULL, spent INTEGER NOT NULL,
    lapsed INTEGER NOT NULL, PRIMARY KEY (name, period)
);
CREATE TABLE held (
    name TEXT NOT NULL, period INTEGER NOT NULL, number INTEGER NOT NULL, tokens INTEGER NOT NULL, used INTEGER NOT NULL
);
"""

_DIED: Final = "FROM held WHERE held.name = account.name AND held.period = account.period"


class Standing(NamedTuple):
    """The state of an account."""

    spent: int
    reserved: int
    remaining: int
    lapsed: int
    """Reserved but not counted by processes that died: at most this much was used and is in no sum."""


class Accounts:
    """Budgets of `tokens` each; a context manager. An account begins with its first reservation."""

    def __init__(
        self,
        tokens: int,
        *,
        per: Per,
        path: Path | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the accounts; raises `BudgetError` for bad totals and for a file that is in use or holds no accounts.

        `clock` (seconds since 1970) is read once, for the name of the current minute in the file. After that,
        `monotonic` ends the minutes, so a change of the system's clock neither repeats nor delays a minute.
        """
        if isinstance(tokens, bool) or tokens < 1:
            raise BudgetError(f"the budget is {tokens!r}", hint="a number of tokens above 0")
        if per not in PERIODS:
            raise BudgetError(f"a budget per {per!r}", hint=f"one of {', '.join(PERIODS)}")
        self.tokens = tokens
        self.per: Per = per
        self._monotonic = monotonic
        self._begun = clock()
        self._since = monotonic()
        self._period = 0
        self._open: dict[str, Ledger] = {}
        self._file = AccountsFile(path) if path is not None else None
        self._salt = self._file.salt if self._file is not None else secrets.token_bytes(16)
        self._turn()
        if self._file is not None:
            for name in self._file.names(self._period):
                self._ledger(name)

    def name(self, key: str) -> str:
        """The account of a key: a digest that does not reveal the key."""
        return hashlib.blake2b(key.encode("utf-8", "replace"), key=self._salt, digest_size=8).hexdigest()

    def reserve(self, name: str, limit: int, *, at_least: int) -> Reservation:
        """Reserve up to `limit` tokens of an account; raises `BudgetError` if fewer than `at_least` are left."""
        self._turn()
        return self._ledger(name).reserve(limit, at_least=at_least, key=name)

    @property
    def resets_in_s(self) -> float | None:
        """Seconds until the whole budget is available again; None for a batch."""
        if self.per == "batch":
            return None
        return _MINUTE_S - self._now() % _MINUTE_S

    def standing(self) -> Mapping[str, Standing]:
        """Every account of the current minute or of the batch. Writes nothing, so a full disk does not matter."""
        if self._period_now() != self._period:
            return {}
        return {
            name: Standing(ledger.spent, ledger.reserved, ledger.remaining, sum(lapse.limit for lapse in ledger.lapses))
            for name, ledger in self._open.items()
        }

    def close(self) -> None:
        """Commit the used part of open reservations, and close the file."""
        for ledger in self._open.values():
            ledger.close()
        self._open.clear()
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Accounts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _now(self) -> float:
        return self._begun + (self._monotonic() - self._since)

    def _period_now(self) -> int:
        return int(self._now() // _MINUTE_S) if self.per == "minute" else 0

    def _turn(self) -> None:
        """Begin a new minute if the old one is over. Reservations of the old minute settle there."""
        period = self._period_now()
        if period == self._period:
            return
        self._period = period
        self._open.clear()
        if self._file is not None:
            self._file.forget(other_than=period)

    def _ledger(self, name: str) -> Ledger:
        if name not in self._open:
            store = None if self._file is None else _Account(self._file, name, self._period)
            state = None if store is None else store.load()
            # If the operator has lowered the budget below the spent sum, nothing is left; that is not an error.
            total = self.tokens if state is None else max(self.tokens, sum(state.by_key.values()))
            self._open[name] = Ledger(total, store=store)
        return self._open[name]


class AccountsFile(SqliteFile):
    """The SQLite file of many accounts."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self.salt = self._begin()
        except BudgetError:
            super().close()
            raise

    def _begin(self) -> bytes:
        # Written without waiting for the disk: only a power cut can lose it, and waiting would pause all streams.
        self._pragmas("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL")
        with self._transaction():
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute("INSERT INTO accounts VALUES (?, ?)", (VERSION, secrets.token_bytes(16)))
            elif not {"accounts", "account", "held"} <= tables:
                raise BudgetError(f"{self._path} holds no accounts", hint="take another file")
            row = self._db.execute("SELECT version, salt FROM accounts").fetchone()
            version, salt = self._read(row, tuple[int, bytes])
            if version != VERSION:
                raise BudgetError(
                    f"{self._path} has version {version}, this is for {VERSION}", hint="take another file"
                )
            if not 1 <= len(salt) <= hashlib.blake2b.MAX_KEY_SIZE:
                raise BudgetError(f"{self._path} has a salt of {len(salt)} bytes", hint="take another file")
            # SQLite adds text as 0, so the rows are checked before it computes with them.
            for columns, table in (("total, spent, lapsed", "account"), ("number, tokens, used", "held")):
                rows = self._db.execute(f"SELECT name, {columns} FROM {table}").fetchall()
                self._read(rows, list[tuple[str, Count, Count, Count]])
            self._db.execute(
                "UPDATE account SET"
                f" spent = spent + (SELECT COALESCE(SUM(used), 0) {_DIED}),"
                f" lapsed = lapsed + (SELECT COALESCE(SUM(tokens - used), 0) {_DIED})"
            )
            self._db.execute("DELETE FROM held")
        return salt

    def names(self, period: int) -> list[str]:
        """Accounts with reservations in this minute, or in the batch."""
        with self._translated():
            rows = self._db.execute("SELECT name FROM account WHERE period = ? ORDER BY name", (period,))
            return [name for (name,) in self._read(rows.fetchall(), list[tuple[str]])]

    def forget(self, *, other_than: int) -> None:
        """Delete all other minutes, with their open reservations; later ones come from a clock that was ahead."""
        with self._transaction():
            for table in ("account", "held"):
                # Period 0 is the batch.
                self._db.execute(f"DELETE FROM {table} WHERE period >= 1 AND period != ?", (other_than,))

    def account(self, name: str, period: int) -> tuple[int, int, int] | None:
        """Total, spent and lapsed."""
        with self._translated():
            row = self._db.execute(
                "SELECT total, spent, lapsed FROM account WHERE name = ? AND period = ?", (name, period)
            ).fetchone()
            return None if row is None else self._read(row, tuple[Count, Count, Count])

    def change(self, *statements: tuple[str, tuple[str | int, ...]]) -> None:
        """Run all statements, or none of them."""
        with self._transaction():
            for text, values in statements:
                self._db.execute(text, values)


class _Account:
    """The store of one account's ledger in the file."""

    def __init__(self, file: AccountsFile, name: str, period: int) -> None:
        self._file = file
        self._name = name
        self._period = period

    def load(self) -> LedgerState | None:
        row = self._file.account(self._name, self._period)
        if row is None:
            return None
        total, spent, lapsed = row
        return LedgerState(total, "tokens", 0, {self._name: spent}, [Lapse(self._name, lapsed)] if lapsed else [])

    def create(self, total: int, unit: str) -> None:
        self._file.change(("INSERT INTO account VALUES (?, ?, ?, 0, 0)", (self._name, self._period, total)))

    def change_total(self, total: int) -> None:
        self._file.change(
            ("UPDATE account SET total = ? WHERE name = ? AND period = ?", (total, self._name, self._period))
        )

    def reserve(self, number: int, key: str, limit: int) -> None:
        self._file.change(("INSERT INTO held VALUES (?, ?, ?, ?, 0)", (self._name, self._period, number, limit)))

    def use(self, number: int, used: int) -> None:
        where = (used, self._name, self._period, number)
        self._file.change(("UPDATE held SET used = ? WHERE name = ? AND period = ? AND number = ?", where))

    def settle(self, number: int, used: int) -> None:
        where = (self._name, self._period)
        self._file.change(
            ("UPDATE account SET spent = spent + ? WHERE name = ? AND period = ?", (used, *where)),
            ("DELETE FROM held WHERE name = ? AND period = ? AND number = ?", (*where, number)),
        )

    def close(self) -> None:
        """Do nothing: `Accounts` closes the file."""
