"""Labels from clients: which answers were right, and what the gate had done with their requests."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from justenough.gateway.exchange import Refused
from justenough.gateway.learn.audit import estimate_json
from justenough.stats import wilson
from justenough.trace import Json
from justenough.wire.values import UNREADABLE

_MOST: Final = 10_000
"""Answers and labels that are kept."""


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/justenough/feedback`."""

    id: str
    correct: bool


class Feedback:
    """Labels of recent answers."""

    def __init__(self) -> None:
        self._outcomes: OrderedDict[str, str] = OrderedDict()
        self._labels: OrderedDict[str, tuple[str, bool]] = OrderedDict()

    def remember(self, answer: str | None, outcome: str) -> None:
        """Remember an answer and the outcome of its request."""
        if answer is None:
            return
        self._outcomes[answer] = outcome
        while len(self._outcomes) > _MOST:
            self._outcomes.popitem(last=False)

    def label(self, body: bytes) -> Label:
        """Take a label; raises `Refused` if it is invalid or its answer is unknown."""
        try:
            label = msgspec.json.decode(body, type=Label)
        except UNREADABLE as error:
            raise Refused(400, f"expected {{id, correct}}: {error}", code="invalid_feedback") from error
        outcome = self._outcomes.get(label.id)
        if outcome is None:
            raise Refused(404, f"no measured answer {label.id!r} is remembered", code="unknown_answer")
        self._labels[label.id] = (outcome, label.correct)
        while len(self._labels) > _MOST:
            self._labels.popitem(last=False)
        return label

    def summary(self) -> dict[str, Json]:
        """The number of labels, and the share of right answers by outcome with 95 % intervals."""
        labels = list(self._labels.values())
        shares: dict[str, Json] = {}
        for outcome in sorted({outcome for outcome, _ in labels}):
            right = [correct for of, correct in labels if of == outcome]
            shares[outcome] = estimate_json(wilson(sum(right), len(right)))
        return {"labels": len(labels), "right": sum(right for _, right in labels), "right_by_outcome": shares}
