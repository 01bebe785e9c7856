"""Remembers which models give no log-probabilities, after several answers without them and for a limited time.

Only requests whose members cannot change the log-probabilities count. So no client can turn the gate off for others.
After a pause the model is tried again; each further failure doubles the pause.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from justenough.gateway.request import CompletionRequest

log: Final = logging.getLogger("justenough.gateway")

How = Literal["absent", "refused"]

NEEDED: Final = 3
"""Consecutive answers without log-probabilities before a model's requests are relayed."""
FIRST_PAUSE_S: Final = 60.0
LONGEST_PAUSE_S: Final = 3600.0
MOST_MODELS: Final = 256
"""Models that are remembered; the one that was not seen for the longest time is forgotten first."""
_SHOWN: Final = 80
"""Characters of a model's name in the log and the status, because names come from clients."""


@dataclass(slots=True)
class _Model:
    name: str
    how: How = "absent"
    failures: int = 0
    pause_s: float = FIRST_PAUSE_S
    until: float | None = None
    """Time at which the model is tried again; None: its requests are not relayed."""


class LogprobsMemory:
    """The models without log-probabilities."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._models: OrderedDict[bytes, _Model] = OrderedDict()

    def lacks(self, model: str | None) -> bool:
        """Whether requests for this model are relayed now."""
        entry = self._models.get(_key(model))
        return entry is not None and entry.until is not None and self._clock() < entry.until

    def given(self, model: str | None) -> None:
        """Note an answer with log-probabilities."""
        self._models.pop(_key(model), None)

    def missing(self, request: CompletionRequest, how: How) -> None:
        """Note an answer without log-probabilities, or a refusal of the request because of them."""
        if not request.keeps_logprobs:
            return
        key = _key(request.model)
        entry = self._models.setdefault(key, _Model(short(request.model)))
        self._models.move_to_end(key)
        while len(self._models) > MOST_MODELS:
            self._models.popitem(last=False)
        entry.failures += 1
        entry.how = how
        if entry.failures < NEEDED:
            return
        if entry.until is not None:
            entry.pause_s = min(2 * entry.pause_s, LONGEST_PAUSE_S)
        entry.until = self._clock() + entry.pause_s
        log.warning(
            "the upstream gives no log-probabilities for %r (%s): relayed for %.0f s, then tried again",
            entry.name,
            how,
            entry.pause_s,
        )

    def summary(self) -> dict[str, How]:
        """The models whose requests are relayed now, and why."""
        now = self._clock()
        return {
            entry.name: entry.how for entry in self._models.values() if entry.until is not None and now < entry.until
        }


def short(name: str | None) -> str:
    """A model's name, shortened for the log and the status."""
    name = name or ""
    if len(name) <= _SHOWN:
        return name
    return f"{name[:_SHOWN]}… ({hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]})"


def _key(model: str | None) -> bytes:
    return hashlib.sha256((model or "").encode("utf-8", "replace")).digest()[:16]
