"""Reads the log-probabilities that wait, of all streams together, in a quiet moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

TOGETHER: Final = 24
"""Waiting tokens of a stream from which reading them together pays."""
QUIET_S: Final = 0.005
"""Pause after which the tokens that were sent together with the last one have passed."""
AT_ONCE: Final = 512
"""Tokens that are read, in about two milliseconds, before other work gets its turn."""


class Waiting(Protocol):
    """Follows a stream and lets its log-probabilities wait."""

    @property
    def waiting(self) -> int:
        """Tokens whose log-probabilities wait."""

    def catch_up(self) -> None:
        """Read all of them."""


class Reading:
    """Reads what waits as soon as one stream has enough.

    A token's log-probabilities are not needed before its step ends. Read one by one between other work they cost three
    times as much as together, because neither code nor data are in the cache. In a quiet moment no token is delayed.
    """

    def __init__(self) -> None:
        self.followed: dict[Waiting, None] = {}
        self._left: list[Waiting] = []
        """Streams that the current reading has not reached."""
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def of(self, stream: Waiting) -> Iterator[None]:
        """Keep a stream among those that are read while the context lasts."""
        self.followed[stream] = None
        try:
            yield
        finally:
            del self.followed[stream]

    def soon(self) -> None:
        """Read after a pause, because a stream has enough waiting."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._begin)

    def _begin(self) -> None:
        self._left = [stream for stream in self.followed if stream.waiting]
        self._read()

    def _read(self) -> None:
        self._timer = None
        tokens = 0
        while self._left:
            stream = self._left.pop()
            if stream not in self.followed:
                continue
            tokens += stream.waiting
            stream.catch_up()
            if tokens >= AT_ONCE and self._left:
                self._timer = asyncio.get_running_loop().call_later(0, self._read)
                return
