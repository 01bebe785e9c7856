"""One generation: its tokens so far, and a stream that really ends when the block is left."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from justenough.backends.protocol import Backend, Finish, Request
from justenough.errors import BackendUnavailable
from justenough.signal.signal import Signal
from justenough.trace import Json, Token


@dataclass(slots=True)
class Generation:
    """The tokens of one step so far."""

    tokens: list[Token] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    finish: Finish | None = None
    own: int = 0
    """Tokens up to the last one with words of the thought; later tokens close the thought or answer."""

    def take(self, token: Token, signal: Signal) -> Token:
        """Record a token and return it with its entropy in bits in place of its log-probabilities."""
        measured = token._replace(
            entropy=token.bits(signal),
            top_logprobs=None,
            confidence=token.surety(signal.top_k) if signal.kind == "entropy" else None,
        )
        self.tokens.append(measured)
        return measured

    def parted(self) -> tuple[Generation, Generation]:
        """The tokens of the thought, and the tokens that close it and answer."""
        thought, rest = self.tokens[: self.own], self.tokens[self.own :]
        return Generation(thought, self.begun, self.finish), Generation(rest, self.begun, self.finish)

    @property
    def discarded(self) -> int:
        """Look-ahead tokens that were generated and thrown away."""
        return sum(token.discarded for token in self.tokens)

    @property
    def extra(self) -> dict[str, Json]:
        """How the tokens were chosen: look-ahead tokens; the layers that ran, in sum and the most of one token."""
        extra: dict[str, Json] = {"discarded": self.discarded} if self.discarded else {}
        layers = [token.layers for token in self.tokens if token.layers is not None]
        return extra | {"layers": sum(layers), "depth": max(layers)} if layers else extra

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(token.text for token in self.tokens)

    def finished(self) -> Finish:
        """How the generation ended; raises `BackendUnavailable` if it broke off."""
        if self.finish is None:
            raise BackendUnavailable("the model's stream ended without an end", hint="the server broke off: try again")
        return self.finish


class Stream:
    """An async iterator with an `aclose` that may be called twice, and works on iterators that are not generators."""

    def __init__(self, items: AsyncIterator[Token | Finish]) -> None:
        self._items = items
        self._closed = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Token | Finish:
        if self._closed:
            raise StopAsyncIteration
        return await anext(self._items)

    async def aclose(self) -> None:
        """End the generation."""
        closing = None if self._closed else getattr(self._items, "aclose", None)
        self._closed = True
        if closing is not None:
            await closing()


@asynccontextmanager
async def opened(backend: Backend, request: Request) -> AsyncIterator[Stream]:
    """A stream that is closed, and so cancelled at the server, when the block ends in any way."""
    stream = Stream(backend.stream(request))
    try:
        yield stream
    finally:
        await stream.aclose()
