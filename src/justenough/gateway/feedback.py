"""What clients say of answers: right or wrong, beside the first step's entropy. It recommends, it applies nothing."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec
import numpy as np

from justenough.gateway.exchange import Refused
from justenough.thresholds import METHODS, Examples
from justenough.trace import Json

_MOST: Final = 10_000
"""Answers remembered, and labels kept."""


class Given(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/justenough/feedback`."""

    id: str
    correct: bool


class Feedback:
    """Labels of recent answers."""

    def __init__(self) -> None:
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._labels: OrderedDict[str, tuple[float, bool]] = OrderedDict()

    def remember(self, answer: str | None, bits: float | None) -> None:
        """An answer was given, with this first-step entropy in bits."""
        if answer is None or bits is None:
            return
        self._asked[answer] = bits
        while len(self._asked) > _MOST:
            self._asked.popitem(last=False)

    def label(self, body: bytes) -> None:
        """Take a label; raises `Refused` for what is none, or is of an unknown answer."""
        try:
            given = msgspec.json.decode(body, type=Given)
        except msgspec.MsgspecError as error:
            raise Refused(400, f"expected {{id, correct}}: {error}", code="invalid_feedback") from error
        bits = self._asked.get(given.id)
        if bits is None:
            raise Refused(404, f"no measured answer {given.id!r} is remembered", code="unknown_answer")
        self._labels[given.id] = (bits, given.correct)
        while len(self._labels) > _MOST:
            self._labels.popitem(last=False)

    def summary(self) -> dict[str, Json]:
        """Counts, and each method's threshold on these labels; null where it has none, with the reason beside it."""
        labels = list(self._labels.values())
        out: dict[str, Json] = {"labels": len(labels), "right": sum(right for _, right in labels)}
        if not labels:
            return out | {"thresholds": {}, "outcomes": {}}
        examples = Examples(
            entropy=np.array([bits for bits, _ in labels]), correct=np.array([right for _, right in labels])
        )
        fitted = {name: make().fit(examples) for name, make in METHODS.items()}
        return out | {
            "thresholds": {name: outcome.threshold for name, outcome in fitted.items()},
            "outcomes": {name: outcome.reason for name, outcome in fitted.items()},
        }
