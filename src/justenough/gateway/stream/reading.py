"""Reads the waiting log-probabilities of all streams together, when no token arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

TOGETHER: Final = 48
"""Waiting tokens of a stream that are read together: each reading costs as much as a dozen more tokens."""
QUIET_S: Final = 0.005
"""Seconds after which all tokens of the same batch have passed."""
AT_ONCE: Final = 512
"""Tokens that are read before other work continues; this takes about two milliseconds."""


class Waiting(Protocol):
    """A stream whose log-probabilities may wait."""

    @property
    def waiting(self) -> int:
        """Number of tokens whose log-probabilities wait."""

    def catch_up(self) -> None:
        """Read all of them."""


class Reading:
    """Reads the waiting log-probabilities as soon as one stream has enough of them.

    Log-probabilities are not needed before their step ends. To read them one by one between other work costs three
    times as much, because neither code nor data are in the cache. After a pause, reading delays no token.
    """

    def __init__(self) -> None:
        self.followed: dict[Waiting, None] = {}
        self._left: list[Waiting] = []
        """Streams that the current reading has not reached."""
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def of(self, stream: Waiting) -> Iterator[None]:
        """Read this stream too while the context lasts."""
        self.followed[stream] = None
        try:
            yield
        finally:
            del self.followed[stream]

    def soon(self) -> None:
        """Read after a pause; a stream calls this if enough tokens wait."""
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
