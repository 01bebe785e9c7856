"""Accounts under any order of events: no minute overspends, nothing is lost, and a file holds what memory holds."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.budget import Accounts, Per, Reservation
from justenough.errors import BudgetError

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.sampled_from("ab"), st.integers(1, 80)),
        st.tuples(st.just("settle"), st.just(""), st.integers(0, 100)),
        st.tuples(st.just("wait"), st.just(""), st.integers(0, 90)),
        st.tuples(st.just("reopen"), st.just(""), st.just(0)),
    ),
    max_size=30,
)
TOTAL = 100


@settings(max_examples=30, deadline=None)
@given(events=EVENTS, per=st.sampled_from(["minute", "batch"]))
def test_no_account_overspends_and_nothing_is_lost(events: list[tuple[str, str, int]], per: Per) -> None:
    now = [6_000.0]
    with TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "accounts"

        def opened() -> Accounts:
            return Accounts(TOTAL, per=per, path=path, clock=lambda: now[0], monotonic=lambda: now[0])

        accounts = opened()
        # What an account has been granted or has spent in each minute, as an onlooker counts it.
        spent: dict[tuple[str, int], int] = {}
        held: list[tuple[Reservation, tuple[str, int]]] = []
        for event, name, amount in events:
            minute = int(now[0] // 60) if per == "minute" else 0
            if event == "reserve":
                try:
                    held.append((accounts.reserve(name, amount, at_least=1), (name, minute)))
                except BudgetError:
                    reserved = sum(one.limit for one, key in held if key == (name, minute))
                    assert spent.get((name, minute), 0) + reserved == TOTAL
            elif event == "settle" and held:
                reservation, key = held.pop(0)
                used = min(amount, reservation.limit)
                reservation.commit(used)
                spent[key] = spent.get(key, 0) + used
            elif event == "wait":
                now[0] += amount
            elif event == "reopen":
                # A graceful end: what is open is settled with what was counted, which is nothing here.
                accounts.close()
                held = []
                accounts = opened()
            minute = int(now[0] // 60) if per == "minute" else 0
            for account, row in accounts.standing().items():
                reserved = sum(one.limit for one, key in held if key == (account, minute))
                assert (row.spent, row.reserved) == (spent.get((account, minute), 0), reserved)
                assert row.spent + row.reserved + row.remaining == TOTAL
                assert row.remaining >= 0
        stack.callback(accounts.close)
