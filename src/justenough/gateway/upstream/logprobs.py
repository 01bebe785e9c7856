"""Remembers which models give no log-probabilities, after several answers without them and for a limited time.

Only requests whose members cannot change the log-probabilities count, and each client decides only about itself: the
requests of all are relayed when several clients got none. So no client can turn the gate off for others. After a pause
the model is tried again; each further pause is twice as long.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

from justenough.gateway.exchange import Refused
from justenough.gateway.request import CompletionRequest

log: Final = logging.getLogger("justenough.gateway")

T = TypeVar("T")
V = TypeVar("V")
How = Literal["absent", "refused", "silent"]

NEEDED: Final = 3
"""Consecutive answers without log-probabilities before a client's requests for the model are relayed."""
PATIENCE_S: Final = 10.0
"""Seconds that a client waits at least for a first token, if its leaving says something about the upstream."""
CLIENTS: Final = 3
"""Clients without log-probabilities before the requests of all are relayed."""
FIRST_PAUSE_S: Final = 60.0
LONGEST_PAUSE_S: Final = 3600.0
MOST_MODELS: Final = 256
"""Models that are remembered; the one that was not seen for the longest time is forgotten first."""
MOST_CLIENTS: Final = 64
"""Clients that are remembered for each model."""
_SHOWN: Final = 80
"""Characters of a model's name in the log and the status, because names come from clients."""


@dataclass(slots=True)
class _Client:
    failures: int = 0
    pause_s: float = FIRST_PAUSE_S
    until: float = 0.0
    """Time at which the model is tried again; 0: it was not given up yet."""


@dataclass(slots=True)
class _Model:
    name: str
    how: How = "absent"
    clients: OrderedDict[str, _Client] = field(default_factory=OrderedDict)


class LogprobsMemory:
    """The models without log-probabilities."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self._models: OrderedDict[bytes, _Model] = OrderedDict()

    def lacks(self, model: str | None, client: str = "") -> bool:
        """Whether this client's requests for this model are relayed now."""
        entry = self._models.get(_key(model))
        if entry is None:
            return False
        own, now = entry.clients.get(client), self.now()
        return (own is not None and now < own.until) or _pausing(entry, now) >= CLIENTS

    def given(self, model: str | None) -> None:
        """Note an answer with log-probabilities."""
        self._models.pop(_key(model), None)

    def missing(self, request: CompletionRequest, how: How, client: str = "") -> None:
        """Note an answer without log-probabilities, or a refusal of the request, perhaps because of them."""
        self._failed(request, how, client, needed=NEEDED)

    def silent(self, request: CompletionRequest, end: BaseException, *, since: float, client: str = "") -> None:
        """Note that the upstream sent nothing since a time, until the request ended with this exception.

        A time-out is enough once, because each further one costs the client as much. A client that leaves earlier may
        have a time-out of its own, or no patience.
        """
        if isinstance(end, Refused) and end.code == "upstream_timeout":
            self._failed(request, "silent", client, needed=1)
        elif isinstance(end, asyncio.CancelledError) and self.now() - since > PATIENCE_S:
            self._failed(request, "silent", client, needed=NEEDED)

    def _failed(self, request: CompletionRequest, how: How, client: str, *, needed: int) -> None:
        if not request.keeps_logprobs:
            return
        key = _key(request.model)
        entry = self._models.setdefault(key, _Model(short(request.model)))
        _keep_newest(self._models, key, MOST_MODELS)
        own = entry.clients.setdefault(client, _Client())
        _keep_newest(entry.clients, client, MOST_CLIENTS)
        own.failures += 1
        entry.how = how
        if own.failures < needed:
            return
        if own.until:
            own.pause_s = min(2 * own.pause_s, LONGEST_PAUSE_S)
        own.failures, own.until = 0, self.now() + own.pause_s
        log.warning(
            "the upstream gives no log-probabilities for %r (%s): requests of %s are relayed for %.0f s",
            entry.name,
            how,
            "all clients" if _pausing(entry, self.now()) >= CLIENTS else "one client",
            own.pause_s,
        )

    def summary(self) -> dict[str, How]:
        """The models of which requests are relayed now, and why."""
        now = self.now()
        return {entry.name: entry.how for entry in self._models.values() if _pausing(entry, now)}


def _pausing(entry: _Model, now: float) -> int:
    """Number of clients whose requests are relayed now."""
    return sum(now < client.until for client in entry.clients.values())


def _keep_newest(entries: OrderedDict[T, V], key: T, most: int) -> None:
    entries.move_to_end(key)
    while len(entries) > most:
        entries.popitem(last=False)


def short(name: str | None) -> str:
    """A model's name, shortened for the log and the status."""
    name = name or ""
    if len(name) <= _SHOWN:
        return name
    return f"{name[:_SHOWN]}… ({hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]})"


def _key(model: str | None) -> bytes:
    return hashlib.sha256((model or "").encode("utf-8", "replace")).digest()[:16]
