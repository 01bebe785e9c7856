"""A ledger that cannot overspend: reserve before a step, commit the tokens that it really used, release the rest.

`spent + reserved ≤ total` is always true, under threads, tasks and cancellation:

    with ledger.reserve(512, key="problem-3#2") as reservation:
        async for token in stream(max_tokens=reservation.limit):
            reservation.use()

The end of the block, normal or not, commits the counted tokens and releases the rest. With a path, every change (each
`use` too) is in one SQLite file before the call returns: after kill -9 the counted tokens are spent, and reservations
of the dead process have lapsed, by name. Only one process at a time can use a file.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from pathlib import Path
from threading import RLock
from types import MappingProxyType
from typing import Final, Literal

from justenough.budget.ledgerfile import Lapse, LedgerFile, LedgerStore
from justenough.errors import BudgetError

Unit = Literal["tokens", "calls"]

UNITS: Final[tuple[Unit, ...]] = ("tokens", "calls")
"""What a budget can count."""


class Reservation:
    """A part of the budget that nothing else can use until it is settled; a context manager."""

    __slots__ = ("_ledger", "_number", "key", "limit", "settled", "used")

    def __init__(self, ledger: Ledger, number: int, *, key: str, limit: int) -> None:
        self._ledger = ledger
        self._number = number
        self.settled = False
        """Whether it is committed or released."""
        self.key = key
        self.limit = limit
        """The most that may be used: the `max_tokens` of a request."""
        self.used = 0
        """Counted so far; the end of the block commits it."""

    @property
    def unit(self) -> Unit:
        """What is counted."""
        return self._ledger.unit

    def use(self, amount: int = 1) -> int:
        """Count an amount that is being used; returns what is left.

        Raises `BudgetError` if that exceeds the limit. The whole limit then counts as used: the step ends here.
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
        """Settle: `used` (by default the amount that `use` counted) is spent, the rest is free again.

        Raises `BudgetError` if more was used than reserved; exactly the limit is then spent. A second settlement also
        raises: nothing counts twice.
        """
        amount = self.used if used is None else _whole(used, "an amount used")
        with self._ledger._lock:
            self._check()
            # Set first: after an interrupt inside the settlement, the end of the block settles the same amount again.
            self.used = min(amount, self.limit)
            self._ledger._settle(self, self._number, self.used)
            self.settled = True
            if amount > self.limit:
                raise self._over_run(amount)

    def release(self) -> None:
        """Settle with nothing spent."""
        self.commit(0)

    def _check(self) -> None:
        if self.settled:
            raise BudgetError(f"the reservation {self.key!r} is settled already", hint="reserve anew for another step")

    def _over_run(self, amount: int) -> BudgetError:
        return BudgetError(
            f"{self.key!r} used {amount} {self.unit} of a reservation of {self.limit}: {self.limit} are counted",
            hint="give the reservation's limit to the request as max_tokens",
        )

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        with self._ledger._lock:
            if not self.settled:
                self.commit()


class Ledger:
    """A total, the spent and the reserved part of it, in whole numbers of `tokens` or `calls`."""

    def __init__(
        self,
        total: int | None = None,
        *,
        unit: Unit = "tokens",
        path: Path | str | None = None,
        store: LedgerStore | None = None,
    ) -> None:
        """Open a ledger in memory, in the file `path` (created if there is none), or in another store.

        `total` may be omitted for a file that has one. Another total replaces the total of the file, unless more is
        spent already. Raises `BudgetError` for bad totals, another unit than the file's, a file that is not a ledger
        and a file that is in use.
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
        self.unit: Final[Unit] = unit
        """What is counted."""
        self._closed = False
        self._file: LedgerStore | None = LedgerFile(Path(path)) if path is not None else store
        try:
            self.total: Final = self._begin(total)
            """The budget."""
        except BudgetError:
            if self._file is not None:
                self._file.close()
            raise

    def _begin(self, total: int | None) -> int:
        state = self._file.load() if self._file is not None else None
        if state is None:
            if total is None:
                raise BudgetError("there is no budget", hint="give a total")
            if self._file is not None:
                self._file.create(total, self.unit)
            return total
        if state.unit != self.unit:
            raise BudgetError(
                f"the ledger counts {state.unit}, not {self.unit}", hint="give each unit a file of its own"
            )
        self._spent, self._number = sum(state.by_key.values()), state.last
        self._by_key, self._lapses = state.by_key, state.lapses
        if total is None or total == state.total:
            return state.total
        if total < self._spent:
            raise BudgetError(
                f"{self._spent} {state.unit} are spent, the budget is {total}", hint="give a larger total"
            )
        if self._file is not None:
            self._file.change_total(total)
        return total

    @property
    def spent(self) -> int:
        """Committed so far."""
        return self._spent

    @property
    def reserved(self) -> int:
        """The limits of open reservations."""
        return self._reserved

    @property
    def remaining(self) -> int:
        """Neither spent nor reserved."""
        with self._lock:
            return self.total - self._spent - self._reserved

    @property
    def lapses(self) -> tuple[Lapse, ...]:
        """Reservations of all processes that died."""
        return tuple(self._lapses)

    @property
    def spent_by_key(self) -> Mapping[str, int]:
        """The committed amount of each key. A resumed run reads here which steps are paid."""
        with self._lock:
            return MappingProxyType(dict(self._by_key))

    def reserve(self, limit: int, *, at_least: int | None = None, key: str = "") -> Reservation:
        """Reserve `limit`. With `at_least`, reserve the remainder if it is smaller, but not less than `at_least`.

        Raises `BudgetError` if too little remains; open reservations may still give some back.
        """
        limit = _whole(limit, "a reservation")
        least = max(1, limit if at_least is None else min(limit, _whole(at_least, "a reservation")))
        with self._lock:
            self._check()
            granted = min(limit, self.remaining)
            if granted < least:
                raise BudgetError(
                    f"{key or 'a step'} needs {least} {self.unit}, {self.remaining} of {self.total} are left"
                    f" ({self._spent} spent, {self._reserved} reserved)",
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
        """Commit the used part of open reservations, release the rest, and close the file."""
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

    def __exit__(self, *_: object) -> None:
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
