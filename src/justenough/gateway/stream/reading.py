"""Log-probabilities that wait to be read, of all streams together, in a quiet moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

TOGETHER: Final = 24
"""Tokens of a stream that are worth a reading."""
QUIET_S: Final = 0.005
"""After so long those tokens that were sent together with the last one have passed."""
AT_ONCE: Final = 512
"""Tokens after whose reading, in about two milliseconds, others get their turn."""


class Waiting(Protocol):
    """What follows a stream and lets its log-probabilities wait."""

    @property
    def waiting(self) -> int:
        """How many tokens do."""

    def catch_up(self) -> None:
        """Read those of all."""


class Reading:
    """Reads what waits, once a stream has much.

    A token's log-probabilities are not needed before its step ends. Read between other work they cost thrice as much as
    together, for neither code nor data are at hand then; and no token is held up where none is on its way.
    """

    def __init__(self) -> None:
        self.followed: dict[Waiting, None] = {}
        self._left: list[Waiting] = []
        """Those whose turn is to come in the reading that is under way."""
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def of(self, stream: Waiting) -> Iterator[None]:
        """While it is followed."""
        self.followed[stream] = None
        try:
            yield
        finally:
            del self.followed[stream]

    def soon(self) -> None:
        """A stream has much waiting."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._begin)

    def _begin(self) -> None:
        self._left = [stream for stream in self.followed if stream.waiting]
        self._read()

    def _read(self) -> None:
        self._timer = None
        read = 0
        while self._left:
            stream = self._left.pop()
            if stream not in self.followed:
                continue
            read += stream.waiting
            stream.catch_up()
            if read >= AT_ONCE and self._left:
                self._timer = asyncio.get_running_loop().call_later(0, self._read)
                return
