"""A step under a budget: counted token by token as it comes, and cut where its reservation ends."""

from __future__ import annotations

from justenough.backends.protocol import Finish
from justenough.budget import Reservation
from justenough.trace import Token


class Meter:
    """Counts a step into its reservation as it comes: what was generated stays counted where it is cancelled or breaks
    off."""

    def __init__(self, reservation: Reservation, *, max_tokens: int) -> None:
        self._reservation = reservation
        self._room = max_tokens
        self._discarded = 0
        self._counted = 0
        if reservation.unit == "calls":
            # A call that has begun is a call, whatever becomes of it.
            reservation.use()

    def takes(self, item: Token | Finish) -> bool:
        """Count an item of the stream; False for a token beyond the limit, which no server should send."""
        if isinstance(item, Finish):
            # The server's own count is the last word: some of its tokens may have come without text.
            self._count(min(item.tokens + self._discarded, self._room) - self._counted)
            return True
        generated = 1 + item.discarded
        fits = self._counted + generated <= self._room
        if fits:
            self._discarded += item.discarded
        self._count(min(generated, self._room - self._counted))
        return fits

    def cut(self) -> Finish:
        """The end of a step whose next token would be beyond the limit."""
        return Finish(reason="length", tokens=self._counted - self._discarded)

    def _count(self, tokens: int) -> None:
        if tokens > 0:
            self._counted += tokens
            if self._reservation.unit != "calls":
                self._reservation.use(tokens)
