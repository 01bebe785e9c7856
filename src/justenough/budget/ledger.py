"""A ledger that cannot overspend: reserve before a step, commit what it really used, release the rest.

`spent + reserved ≤ total` holds at every moment, under threads, tasks and cancellation:

    with ledger.reserve(512, key="problem-3#2") as reservation:
        async for token in stream(max_tokens=reservation.limit):
            reservation.use()

Leaving the block, by whatever way, commits what was used and releases the rest. With a path every change is in one
SQLite file before the call returns, each `use` too: after kill -9 the sum is what was counted, and reservations of the
dead process have lapsed, by name. One process at a time holds a file.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import Path
from threading import RLock
from types import MappingProxyType, TracebackType

from justenough.budget.ledgerfile import Lapse, LedgerFile, LedgerStore
from justenough.budget.units import UNITS, Unit
from justenough.errors import BudgetError


class Reservation:
    """A part of the budget that nobody else can take until it is settled; a context manager."""

    __slots__ = ("_ledger", "_number", "_settled", "key", "limit", "used")

    def __init__(self, ledger: Ledger, number: int, *, key: str, limit: int) -> None:
        self._ledger = ledger
        self._number = number
        self._settled = False
        self.key = key
        self.limit = limit
        """The most that may be used: what a request passes as `max_tokens`."""
        self.used = 0
        """Counted so far; what leaving the block commits."""

    @property
    def unit(self) -> Unit:
        """What is counted."""
        return self._ledger.unit

    @property
    def settled(self) -> bool:
        """Whether it is committed or released."""
        return self._settled

    def use(self, amount: int = 1) -> int:
        """Count what is being used; returns what is left.

        Raises `BudgetError` where that exceeds the limit, which then counts as used whole: the step ends here.
        """
        amount = _whole(amount, "an amount used")
        with self._ledger._lock:
            self._check()
            used = self.used + amount
            self.used = min(used, self.limit)
            self._ledger._note(self._number, self.used)
            if used > self.limit:
                raise self._over_run(used)
            return self.limit - used

    def commit(self, used: int | None = None) -> None:
        """Settle: `used` (by default what `use` counted) is spent, the rest is free again.

        Raises `BudgetError` where more was used than reserved; the whole limit is then spent, no more. A second
        settlement raises too: nothing counts twice.
        """
        amount = self.used if used is None else _whole(used, "an amount used")
        with self._ledger._lock:
            self._check()
            # Noted first: where an interrupt falls into the settling, leaving the block settles the same amount again.
            self.used = min(amount, self.limit)
            self._ledger._settle(self, self._number, self.used)
            self._settled = True
            if amount > self.limit:
                raise self._over_run(amount)

    def release(self) -> None:
        """Settle with nothing spent."""
        self.commit(0)

    def _check(self) -> None:
        if self._settled:
            raise BudgetError(f"the reservation {self.key!r} is settled already", hint="reserve anew for another step")

    def _over_run(self, amount: int) -> BudgetError:
        unit = self._ledger.unit
        return BudgetError(
            f"{self.key!r} used {amount} {unit} of a reservation of {self.limit}: {self.limit} are counted",
            hint="give the reservation's limit to the request as max_tokens",
        )

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._ledger._lock:
            if not self._settled:
                self.commit()


class Ledger:
    """A total, what is spent of it and what is reserved; whole numbers of `tokens`, `calls` or the smallest coin of
    `cost`."""

    def __init__(
        self,
        total: int | None = None,
        *,
        unit: Unit = "tokens",
        path: Path | str | None = None,
        store: LedgerStore | None = None,
    ) -> None:
        """Open a ledger, in memory, in the file `path`, which is made where there is none, or in another store.

        `total` may be left out for a file that has one; another total than the file's replaces it, if that much is not
        yet spent. Raises `BudgetError` for bad totals, another unit than the file's, and a file that is in use or none.
        """
        if unit not in UNITS:
            raise BudgetError(f"unknown unit {unit!r}", hint=f"one of {', '.join(UNITS)}")
        if total is not None:
            total = _whole(total, "the budget")
            if not total:
                raise BudgetError("the budget is 0", hint=f"a number of {unit} above 0")
        self._lock = RLock()
        self._open: dict[int, Reservation] = {}
        self._by_key: dict[str, int] = {}
        self._lapses: list[Lapse] = []
        self._spent = 0
        self._reserved = 0
        self._number = 0
        self._unit = unit
        self._closed = False
        self._file: LedgerStore | None = LedgerFile(Path(path)) if path is not None else store
        try:
            self._total = self._begin(total)
        except BudgetError:
            if self._file is not None:
                self._file.close()
            raise

    def _begin(self, total: int | None) -> int:
        held = self._file.load() if self._file is not None else None
        if held is None:
            if total is None:
                raise BudgetError("there is no budget", hint="give a total")
            if self._file is not None:
                self._file.create(total, self._unit)
            return total
        if held.unit != self._unit:
            raise BudgetError(
                f"the ledger counts {held.unit}, not {self._unit}", hint="give each unit a file of its own"
            )
        self._spent, self._number = sum(held.by_key.values()), held.last
        self._by_key, self._lapses = held.by_key, held.lapses
        if total is None or total == held.total:
            return held.total
        if total < self._spent:
            raise BudgetError(f"{self._spent} {held.unit} are spent, the budget is {total}", hint="give a larger total")
        if self._file is not None:
            self._file.change_total(total)
        return total

    @property
    def total(self) -> int:
        """The budget."""
        return self._total

    @property
    def unit(self) -> Unit:
        """What is counted."""
        return self._unit

    @property
    def spent(self) -> int:
        """Committed so far."""
        return self._spent

    @property
    def reserved(self) -> int:
        """LedgerState by open reservations."""
        return self._reserved

    @property
    def remaining(self) -> int:
        """Neither spent nor reserved."""
        with self._lock:
            return self._total - self._spent - self._reserved

    @property
    def lapses(self) -> tuple[Lapse, ...]:
        """Reservations of processes that died, of all times."""
        return tuple(self._lapses)

    @property
    def spent_by_key(self) -> Mapping[str, int]:
        """What was committed under each key: a resumed run sees which steps are paid for."""
        with self._lock:
            return MappingProxyType(dict(self._by_key))

    def reserve(self, limit: int, *, at_least: int | None = None, key: str = "") -> Reservation:
        """Set `limit` aside, or, with `at_least`, what is left where that much is.

        Raises `BudgetError` where it is not; open reservations may still give some back.
        """
        wanted = _whole(limit, "a reservation")
        floor = wanted if at_least is None else _whole(at_least, "a reservation")
        with self._lock:
            self._check()
            granted = min(wanted, self.remaining)
            if granted < max(1, min(floor, wanted)):
                raise BudgetError(
                    f"{key or 'a step'} needs {max(1, min(floor, wanted))} {self._unit}, {self.remaining} of"
                    f" {self._total} are left ({self._spent} spent, {self._reserved} reserved)",
                    hint="raise the budget, or wait for steps under way to give back what they do not use",
                )
            self._number += 1
            if self._file is not None:
                self._file.reserve(self._number, key, granted)
            reservation = Reservation(self, self._number, key=key, limit=granted)
            self._open[self._number] = reservation
            self._reserved += granted
            return reservation

    def _note(self, number: int, used: int) -> None:
        self._check()
        if self._file is not None:
            self._file.use(number, used)

    def _settle(self, reservation: Reservation, number: int, used: int) -> None:
        self._check()
        if self._file is not None:
            self._file.settle(number, used)
        del self._open[number]
        self._reserved -= reservation.limit
        self._spent += used
        self._by_key[reservation.key] = self._by_key.get(reservation.key, 0) + used

    def _check(self) -> None:
        if self._closed:
            raise BudgetError("the ledger is closed", hint="open it again")

    def close(self) -> None:
        """Commit what open reservations have used, release the rest, and let go of the file."""
        with self._lock:
            if self._closed:
                return
            for reservation in list(self._open.values()):
                reservation.commit()
            self._closed = True
            if self._file is not None:
                self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _whole(value: int, what: str) -> int:
    """A whole number, at least 0; raises `BudgetError`."""
    try:
        whole = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        whole = None
    if whole is None or whole < 0:
        raise BudgetError(f"{what} is {value!r}", hint="a whole number, at least 0")
    return whole
