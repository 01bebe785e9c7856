"""One generation: its tokens so far, and a stream that ends with its block."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from justenough.backends.protocol import Backend, Finish, Request
from justenough.errors import BackendUnavailable
from justenough.signal.signal import Signal
from justenough.trace import Json, Token


class Signals(NamedTuple):
    """The signals of some tokens; None where a token lacks its value."""

    entropies: tuple[float, ...]
    logprobs: tuple[float, ...] | None
    texts: tuple[str, ...] | None
    confidences: tuple[float, ...] | None


@dataclass(slots=True)
class Generation:
    """The tokens of one step so far."""

    tokens: list[Token] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    finish: Finish | None = None
    thinking: int = 0
    """Tokens up to the last one with words of the thought; later tokens close the thought or answer."""
    rows: list[Sequence[float]] | None = None
    """The top log-probabilities of each token; None if they are not kept."""

    def take(self, token: Token, signal: Signal) -> Token:
        """Record a token and return it with its entropy in bits in place of its log-probabilities."""
        measured = token._replace(
            entropy=token.bits(signal),
            top_logprobs=None,
            confidence=token.surety(signal.top_k) if signal.kind == "entropy" else None,
        )
        self.tokens.append(measured)
        if self.rows is not None and token.top_logprobs is not None:
            self.rows.append(token.top_logprobs)
        return measured

    def split(self) -> tuple[Generation, Generation]:
        """The tokens of the thought, and the tokens that close it and answer."""
        parts = self.tokens[: self.thinking], self.tokens[self.thinking :]
        thought, rest = (Generation(tokens, self.started, self.finish) for tokens in parts)
        thought.rows = None if self.rows is None else self.rows[: self.thinking]
        return thought, rest

    @property
    def discarded(self) -> int:
        """Look-ahead tokens that were generated and thrown away."""
        return sum(token.discarded for token in self.tokens)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(token.text for token in self.tokens)

    def signals(self) -> Signals:
        """The signals of the tokens that have one."""
        measured = [token for token in self.tokens if token.entropy is not None]
        logprobs = [token.logprob for token in measured if token.logprob is not None]
        # Four decimals are precise enough for a vote and need a third of the space.
        confidences = [round(token.confidence, 4) for token in measured if token.confidence is not None]
        return Signals(
            tuple(token.entropy for token in measured if token.entropy is not None),
            tuple(logprobs) if len(logprobs) == len(measured) else None,
            tuple(token.text for token in self.tokens) if len(measured) in (0, len(self.tokens)) else None,
            tuple(confidences) if len(confidences) == len(measured) else None,
        )

    def extra(self) -> dict[str, Json]:
        """How the tokens were chosen: look-ahead tokens, and the layers that ran if the model may exit early."""
        extra: dict[str, Json] = {"discarded": self.discarded} if self.discarded else {}
        layers = [token.layers for token in self.tokens if token.layers is not None]
        return extra | {"layers": sum(layers), "depth": max(layers)} if layers else extra

    def finished(self) -> Finish:
        """How the generation ended; raises `BackendUnavailable` if it broke off."""
        if self.finish is None:
            raise BackendUnavailable("the model's stream ended without an end", hint="the server broke off: try again")
        return self.finish


@asynccontextmanager
async def opened(backend: Backend, request: Request) -> AsyncIterator[AsyncIterator[Token | Finish]]:
    """A stream that is closed, and so cancelled at the server, when the block ends in any way."""
    stream = backend.stream(request)
    try:
        yield stream
    finally:
        # An iterator that is not a generator may have nothing to close.
        if close := getattr(stream, "aclose", None):
            await close()
