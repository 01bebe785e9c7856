"""Which models give no log-probabilities: learned from several plain answers, and forgotten after a while.

A request whose members may change the answer's log-probabilities teaches nothing, so that no client can turn the gate
off for the others. A model that is relayed is tried again after a pause, which doubles with every new failure.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from justenough.gateway.request import Asked

log: Final = logging.getLogger("justenough.gateway")

How = Literal["absent", "refused"]

NEEDED: Final = 3
"""Answers in a row without log-probabilities before a model is relayed."""
FIRST_PAUSE_S: Final = 60.0
LONGEST_PAUSE_S: Final = 3600.0
MOST_MODELS: Final = 256
"""Models that are remembered; the one not seen for longest is forgotten first."""
_SHOWN: Final = 80
"""Characters of a model's name in the log and the status: names come from clients."""


@dataclass(slots=True)
class _Model:
    name: str
    how: How = "absent"
    failures: int = 0
    pause_s: float = FIRST_PAUSE_S
    until: float | None = None
    """When the model is tried again; None: it is not relayed."""


class LogprobsMemory:
    """What the gateway has learned of each model's log-probabilities."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._models: OrderedDict[bytes, _Model] = OrderedDict()

    def lacks(self, model: str | None) -> bool:
        """Whether requests for this model are relayed at present."""
        known = self._models.get(_key(model))
        return known is not None and known.until is not None and self._clock() < known.until

    def given(self, model: str | None) -> None:
        """An answer came with log-probabilities."""
        self._models.pop(_key(model), None)

    def missing(self, asked: Asked, how: How) -> None:
        """An answer came without them, or the upstream refused the request because of them."""
        if not asked.is_plain:
            return
        key = _key(asked.model)
        known = self._models.setdefault(key, _Model(short(asked.model)))
        self._models.move_to_end(key)
        while len(self._models) > MOST_MODELS:
            self._models.popitem(last=False)
        known.failures += 1
        known.how = how
        if known.failures < NEEDED:
            return
        if known.until is not None:
            known.pause_s = min(2 * known.pause_s, LONGEST_PAUSE_S)
        known.until = self._clock() + known.pause_s
        log.warning(
            "the upstream gives no log-probabilities for %r (%s): relayed for %.0f s, then tried again",
            known.name,
            how,
            known.pause_s,
        )

    def summary(self) -> dict[str, How]:
        """The models that are relayed at present, and how their lack showed."""
        now = self._clock()
        return {
            known.name: known.how for known in self._models.values() if known.until is not None and now < known.until
        }


def short(name: str | None) -> str:
    """A client's name for a model, cut to a length that can be logged and shown."""
    name = name or ""
    if len(name) <= _SHOWN:
        return name
    return f"{name[:_SHOWN]}… ({hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]})"


def _key(model: str | None) -> bytes:
    return hashlib.sha256((model or "").encode("utf-8", "replace")).digest()[:16]
