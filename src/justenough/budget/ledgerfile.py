"""Storage of ledgers: the interface of a store, and an SQLite file that only one process at a time can use."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, NamedTuple, Protocol, TypeVar

from msgspec import Meta

from justenough.errors import BudgetError, InputError, LedgerError
from justenough.files import read_as

T = TypeVar("T")
Count = Annotated[int, Meta(ge=0)]

VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE ledger (version INTEGER NOT NULL, total INTEGER NOT NULL, unit TEXT NOT NULL);
CREATE TABLE entry (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, held INTEGER NOT NULL, used INTEGER NOT NULL, state TEXT NOT NULL
);
"""


class Lapse(NamedTuple):
    """A reservation whose process died. The counted part is spent; the rest of `limit` may have been used uncounted."""

    key: str
    """Name of the reservation."""
    limit: Count
    """Reserved amount."""
    used: Count = 0
    """Amount that was counted before the process died."""


class LedgerState(NamedTuple):
    """The contents of a ledger when it is opened."""

    total: int
    unit: str
    last: int
    """Number of the last reservation."""
    by_key: dict[str, int]
    """Spent amount of each key."""
    lapses: list[Lapse]
    """Reservations of processes that died."""


class LedgerStore(Protocol):
    """Stores one ledger; every change is stored before the call returns."""

    def load(self) -> LedgerState | None:
        """The stored state; None if the ledger is new. Open reservations of a dead process have lapsed."""

    def create(self, total: int, unit: str) -> None:
        """Begin a ledger."""

    def change_total(self, total: int) -> None:
        """Replace the total."""

    def reserve(self, number: int, key: str, limit: int) -> None:
        """Store a reservation."""

    def use(self, number: int, used: int) -> None:
        """Store the amount that an open reservation has used so far."""

    def settle(self, number: int, used: int) -> None:
        """Close a reservation with the amount that it used."""

    def close(self) -> None:
        """Close the store."""


class SqliteFile:
    """An SQLite file for one process: the exclusive lock ends with the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
            self._opened = path.stat()

    def _pragmas(self, *pragmas: str) -> None:
        with self._translated():
            for pragma in pragmas:
                self._db.execute(f"PRAGMA {pragma}")

    def close(self) -> None:
        """Close the file and release its lock."""
        with self._translated():
            self._db.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, OverflowError) as error:
            busy = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
            raise LedgerError(
                f"the ledger {self._path} {'is in use by another process' if busy else f'cannot be used: {error}'}",
                hint="wait for it to end, or take another file" if busy else "take another file",
            ) from error

    def _read(self, rows: object, kind: type[T]) -> T:
        """Convert what was read; raises `LedgerError` for values that no ledger writes."""
        try:
            return read_as(rows, kind, where="row")
        except InputError as error:
            raise LedgerError(f"the ledger {self._path} is damaged: {error}", hint="take another file") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated():
            if not os.path.samestat(self._path.stat(), self._opened):
                raise FileNotFoundError("another file has replaced it")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


class LedgerFile(SqliteFile):
    """A file for one ledger, with all its reservations."""

    def load(self) -> LedgerState | None:
        """Lock the file, mark open reservations of a dead process as lapsed, and read; None if the file is new."""
        self._pragmas("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL")
        with self._transaction():
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                return None
            if not {"ledger", "entry"} <= tables:
                raise BudgetError(f"{self._path} is no ledger", hint="take another file")
            row = self._db.execute("SELECT version, total, unit FROM ledger").fetchone()
            version, total, unit = self._read(row, tuple[int, Count, str])
            if version != VERSION:
                raise BudgetError(
                    f"{self._path} has version {version}, this is for {VERSION}", hint="take another file"
                )
            self._db.execute("UPDATE entry SET state = 'lapsed' WHERE state = 'open'")
            spent = self._db.execute(
                "SELECT key, SUM(used) FROM entry WHERE state = 'committed' OR used > 0 GROUP BY key"
            )
            lapsed = self._db.execute("SELECT key, held, used FROM entry WHERE state = 'lapsed' ORDER BY id")
            (last,) = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM entry").fetchone()
            by_key = dict(self._read(spent.fetchall(), list[tuple[str, Count]]))
            return LedgerState(total, unit, last, by_key, self._read(lapsed.fetchall(), list[Lapse]))

    def create(self, total: int, unit: str) -> None:
        """Create the tables."""
        with self._transaction():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute("INSERT INTO ledger VALUES (?, ?, ?)", (VERSION, total, unit))

    def change_total(self, total: int) -> None:
        """Replace the total."""
        with self._transaction():
            self._db.execute("UPDATE ledger SET total = ?", (total,))

    def reserve(self, number: int, key: str, limit: int) -> None:
        """Store a reservation."""
        with self._transaction():
            self._db.execute("INSERT INTO entry VALUES (?, ?, ?, 0, 'open')", (number, key, limit))

    def use(self, number: int, used: int) -> None:
        """Store the amount that an open reservation has used so far."""
        # Called for every token, so it does not wait for the disk: only a power cut can lose it, not the process's end.
        self._pragmas("synchronous=NORMAL")
        with self._translated():
            self._db.execute("UPDATE entry SET used = ? WHERE id = ?", (used, number))
        self._pragmas("synchronous=FULL")

    def settle(self, number: int, used: int) -> None:
        """Close a reservation with the amount that it used."""
        with self._transaction():
            self._db.execute("UPDATE entry SET state = 'committed', used = ? WHERE id = ?", (used, number))
