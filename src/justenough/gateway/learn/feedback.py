"""What clients say of answers: right or wrong, and what the gate had done with them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from justenough.gateway.exchange import Refused
from justenough.stats import wilson
from justenough.trace import Json
from justenough.wire import UNREADABLE

_MOST: Final = 10_000
"""Answers remembered, and labels kept."""


class Given(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/justenough/feedback`."""

    id: str
    correct: bool


class Feedback:
    """Labels of recent answers."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, str] = OrderedDict()
        self._labels: OrderedDict[str, tuple[str, bool]] = OrderedDict()

    def remember(self, answer: str | None, outcome: str) -> None:
        """An answer was given, with this outcome."""
        if answer is None:
            return
        self._asked[answer] = outcome
        while len(self._asked) > _MOST:
            self._asked.popitem(last=False)

    def label(self, body: bytes) -> Given:
        """Take a label; raises `Refused` for what is none, or is of an unknown answer."""
        try:
            given = msgspec.json.decode(body, type=Given)
        except UNREADABLE as error:
            raise Refused(400, f"expected {{id, correct}}: {error}", code="invalid_feedback") from error
        outcome = self._asked.get(given.id)
        if outcome is None:
            raise Refused(404, f"no measured answer {given.id!r} is remembered", code="unknown_answer")
        self._labels[given.id] = (outcome, given.correct)
        while len(self._labels) > _MOST:
            self._labels.popitem(last=False)
        return given

    def summary(self) -> dict[str, Json]:
        """Counts, and the share of right answers by outcome with 95 % intervals: stopped ones beside those that ran."""
        labels = list(self._labels.values())
        shares: dict[str, Json] = {}
        for outcome in sorted({outcome for outcome, _ in labels}):
            right = [correct for of, correct in labels if of == outcome]
            share = wilson(sum(right), len(right))
            shares[outcome] = None if share is None else dict(share._asdict())
        return {"labels": len(labels), "right": sum(right for _, right in labels), "right_by_outcome": shares}
