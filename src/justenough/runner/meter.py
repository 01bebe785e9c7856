"""A step under a budget: its tokens are counted as they come, and it is cut at the end of its reservation."""

from __future__ import annotations

from justenough.backends.protocol import Finish
from justenough.budget import Reservation
from justenough.trace import Token


class Meter:
    """Counts the tokens of a step into its reservation; they stay counted if the step is cancelled or breaks off."""

    def __init__(self, reservation: Reservation, *, max_tokens: int) -> None:
        self._reservation = reservation
        self._room = max_tokens
        self._discarded = 0
        self._counted = 0
        if reservation.unit == "calls":
            # A call counts as soon as it begins.
            reservation.use()

    def takes(self, item: Token | Finish) -> bool:
        """Count an item of the stream; False for a token above the limit, which no server should send."""
        if isinstance(item, Finish):
            # The server's own count decides: some of its tokens may have come without text.
            self._count(min(item.tokens + self._discarded, self._room) - self._counted)
            return True
        generated = 1 + item.discarded
        fits = self._counted + generated <= self._room
        if fits:
            self._discarded += item.discarded
        self._count(min(generated, self._room - self._counted))
        return fits

    def cut(self) -> Finish:
        """The end of a step whose next token would exceed the limit."""
        return Finish(reason="length", tokens=self._counted - self._discarded)

    def _count(self, tokens: int) -> None:
        if tokens > 0:
            self._counted += tokens
            if self._reservation.unit != "calls":
                self._reservation.use(tokens)
