"""The schedule: turns of a live run."""

from __future__ import annotations

from justenough.budget import (
    Ledger,
    Schedule,
    Turn,
)


def test_a_live_schedule_keeps_several_turns_under_way_within_the_total() -> None:
    ledger = Ledger(900)
    schedule = Schedule(10, ledger, policy="uniform", limits=[60, 60, 60])
    under_way: list[Turn] = []
    while not schedule.finished:
        turn = schedule.next()
        if turn is not None:
            under_way.append(turn)
            assert turn.max_tokens <= 60
        if under_way and (turn is None or len(under_way) == 4):
            ended = under_way.pop(0)
            schedule.done(ended, tokens=min(40, ended.max_tokens), bits=0.5)
        assert ledger.spent + ledger.reserved <= 900
    assert ledger.spent == 900
    assert sum(schedule.steps) == 23
    assert {len(key.split("#")) for key in ledger.spent_by_key} == {2}


def test_a_schedule_resumes_and_survives_failures() -> None:
    ledger = Ledger(1000)
    schedule = Schedule(3, ledger, policy="first-come", limits=[50, 50])
    schedule.resume(0, [0.4])
    turn = schedule.next()
    assert turn is not None
    assert (turn.problem, turn.step) == (1, 1)
    schedule.failed(turn)
    taken = []
    while (turn := schedule.next()) is not None:
        taken.append((turn.problem, turn.step))
        schedule.done(turn, tokens=10, bits=None)
    assert taken == [(2, 1), (0, 2), (2, 2)]
    assert schedule.finished
    assert ledger.spent == 30
