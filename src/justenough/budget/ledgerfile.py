"""Where ledgers are kept: what one asks of its store, and the SQLite file that one process at a time holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, NamedTuple, Protocol, TypeVar

from msgspec import Meta

from justenough.errors import BudgetError, InputError, LedgerError
from justenough.jsonvalue import read_as

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
    """A reservation whose process died: what it had counted is spent, the rest of `limit` may have been used unseen."""

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
    """Keeps one ledger; every change is in it before the call returns."""

    def load(self) -> LedgerState | None:
        """What is kept; None where the ledger is new. What a dead process left open has lapsed."""

    def create(self, total: int, unit: str) -> None:
        """Begin a ledger."""

    def change_total(self, total: int) -> None:
        """Replace the total."""

    def reserve(self, number: int, key: str, limit: int) -> None:
        """Note a reservation."""

    def use(self, number: int, used: int) -> None:
        """Note what an open reservation has used so far."""

    def settle(self, number: int, used: int) -> None:
        """Note what a reservation used."""

    def close(self) -> None:
        """Let go of it."""


class SqliteFile:
    """An SQLite file held by one process: its exclusive lock dies with the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)

    def _pragmas(self, *pragmas: str) -> None:
        with self._translated():
            for pragma in pragmas:
                self._db.execute(f"PRAGMA {pragma}")

    def close(self) -> None:
        """Let go of the file and its lock."""
        with self._translated():
            self._db.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
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
        """Take the lock, mark what a dead process left open as lapsed, and read; None where the file is new."""
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
        """Make the tables."""
        with self._transaction():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute("INSERT INTO ledger VALUES (?, ?, ?)", (VERSION, total, unit))

    def change_total(self, total: int) -> None:
        """Replace the total."""
        with self._transaction():
            self._db.execute("UPDATE ledger SET total = ?", (total,))

    def reserve(self, number: int, key: str, limit: int) -> None:
        """Note a reservation."""
        with self._transaction():
            self._db.execute("INSERT INTO entry VALUES (?, ?, ?, 0, 'open')", (number, key, limit))

    def use(self, number: int, used: int) -> None:
        """Note what a reservation has used so far."""
        # At every token, so without waiting for the disk: the death of the process loses nothing, a power cut may.
        self._pragmas("synchronous=NORMAL")
        with self._translated():
            self._db.execute("UPDATE entry SET used = ? WHERE id = ?", (used, number))
        self._pragmas("synchronous=FULL")

    def settle(self, number: int, used: int) -> None:
        """Note what a reservation used."""
        with self._transaction():
            self._db.execute("UPDATE entry SET state = 'committed', used = ? WHERE id = ?", (used, number))
