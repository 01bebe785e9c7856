"""One generation: what it has said so far, and its end, which is real however the block is left."""

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
class Heard:
    """What one step has said so far."""

    tokens: list[Token] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    finish: Finish | None = None
    discarded: int = 0
    """Tokens of look-ahead, generated and thrown away."""
    own: int = 0
    """Tokens up to the last one that holds words of the thought; those behind it close the thought or answer."""
    layers: int | None = None
    """Layers run for all tokens together, where the model may leave early."""

    def take(self, token: Token, signal: Signal) -> Token:
        """Record a token and return it with its entropy in bits in place of its log-probabilities."""
        measured = token._replace(
            entropy=token.bits(signal),
            top_logprobs=None,
            confidence=token.surety(signal.top_k) if signal.kind == "entropy" else None,
        )
        self.tokens.append(measured)
        self.discarded += token.discarded
        if token.layers is not None:
            self.layers = (self.layers or 0) + token.layers
        return measured

    def parted(self) -> tuple[Heard, Heard]:
        """The tokens of the thought, and those that close it and answer."""
        return self._part(self.tokens[: self.own]), self._part(self.tokens[self.own :])

    def _part(self, tokens: list[Token]) -> Heard:
        layers = [token.layers for token in tokens if token.layers is not None]
        return Heard(
            tokens=tokens,
            begun=self.begun,
            finish=self.finish,
            discarded=sum(token.discarded for token in tokens),
            layers=sum(layers) if layers else None,
        )

    @property
    def extra(self) -> dict[str, Json]:
        """What the step keeps of how its tokens were chosen."""
        found: dict[str, Json] = {"discarded": self.discarded} if self.discarded else {}
        return found if self.layers is None else found | {"layers": self.layers}

    @property
    def text(self) -> str:
        """All that was said."""
        return "".join(token.text for token in self.tokens)

    def finished(self) -> Finish:
        """How the generation ended; raises `BackendUnavailable` where it just broke off."""
        if self.finish is None:
            raise BackendUnavailable("the model's stream ended without an end", hint="the server broke off: try again")
        return self.finish


@asynccontextmanager
async def opened(backend: Backend, request: Request) -> AsyncIterator[Closing]:
    """A stream that is closed, and so cancelled at the server, however the block ends."""
    stream = Closing(backend.stream(request))
    try:
        yield stream
    finally:
        await stream.aclose()


class Closing:
    """An async iterator whose `aclose` may be called twice, and on iterators that are no generators."""

    def __init__(self, stream: AsyncIterator[Token | Finish]) -> None:
        self._stream = stream
        self._closed = False

    def __aiter__(self) -> Closing:
        return self

    async def __anext__(self) -> Token | Finish:
        if self._closed:
            raise StopAsyncIteration
        return await anext(self._stream)

    async def aclose(self) -> None:
        """End the generation."""
        if not self._closed:
            self._closed = True
            closing = getattr(self._stream, "aclose", None)
            if closing is not None:
                await closing()
