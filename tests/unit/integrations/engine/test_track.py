"""One gated request without a batch: where tokens are forced and barred."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from justenough.integrations.engine.closing import Closing
from justenough.integrations.engine.request import Order
from justenough.integrations.engine.track import Track
from justenough.signal.thought import THINK
from tests.unit.gateway.serving import calibration_of


class Characters:
    def decode(self, ids: Sequence[int], /) -> str:
        return "".join(map(chr, ids))


def ids(text: str) -> list[int]:
    return [ord(character) for character in text]


THOUGHT = "<think>a b\n\n"
END = "So.</think>"
CLOSING = Closing(tuple(ids("<think>")), tuple(ids(END)), tuple(ids("</think>")), THINK)


def track(*, measured: bool = True, threshold: float = 0.5) -> Track:
    one = Track(Order("key", "id", calibration_of(threshold)), CLOSING, Characters())
    one.begin(())
    if measured:
        one.measures |= {position: [-0.001] * 1 + [-9.0] * 19 for position in range(40)}
    return one


def heard(text: str = THOUGHT) -> Track:
    one = track()
    one.hear(ids(text))
    return one


def test_the_configured_end_is_forced_position_by_position() -> None:
    one = heard()
    forced = [one.forced(position) for position in range(len(THOUGHT) + len(END) + 2)]
    assert forced == [*[None] * len(THOUGHT), *ids(END), None, None]


def test_a_second_closing_tag_is_barred_at_its_last_character() -> None:
    one = heard()
    one.hear(ids(END + "42</think"))
    assert one.barred(one.position) == ord(">")
    one.hear(ids("!"))
    assert one.barred(one.position) is None


def test_nothing_is_barred_inside_the_end_itself() -> None:
    one = heard()
    one.hear(ids("So.</think"))
    assert one.barred(one.position) is None


def test_nothing_is_cut_in_the_middle_of_a_step() -> None:
    one = track()
    one.hear(ids(THOUGHT + "c"))
    assert one.thought is not None
    assert (one.cut_at, one.report()["decision"], len(one.thought.decisions)) == (None, "going_on", 1)
    assert one.thought.stopped is not None
    one.hear(ids(" d\n\n"))
    assert (one.cut_at, one.report()["decision"]) == (len(THOUGHT) + 5, "stopped")


def test_a_thought_that_ended_before_it_could_be_cut_was_not_stopped() -> None:
    one = track()
    one.hear(ids(THOUGHT + "c</think>42"))
    assert [one.report()[name] for name in ("decision", "cut_at")] == ["going_on", None]


def test_an_end_that_was_forced_after_drafts_is_the_cut() -> None:
    one = track()
    one.hear(ids(THOUGHT[:-1]))
    ahead = one.ahead()
    assert one.with_draft(ahead, ord("\n")).forced(len(THOUGHT)) == ord("S")
    assert one.cut_at is None
    # The draft was accepted, and the forced token came with it.
    one.hear(ids("\nS"))
    assert one.cut_at == len(THOUGHT)
    assert one.report()["notes"] == []


def test_a_rejected_draft_leaves_no_trace() -> None:
    one = track()
    one.hear(ids(THOUGHT[:-1]))
    one.with_draft(one.ahead(), ord("\n"))
    one.hear(ids("b"))
    assert one.cut_at is None
    assert one.report()["steps"] == []


@pytest.mark.parametrize("measured", [True, False])
def test_a_step_without_measures_never_stops(measured: bool) -> None:
    one = track(measured=measured)
    one.hear(ids(THOUGHT))
    assert (one.cut_at is not None) is measured


def test_a_token_in_place_of_a_forced_one_is_noted() -> None:
    one = heard()
    one.hear(ids("No"))
    assert one.report()["notes"] == ["forced_token_replaced"]
