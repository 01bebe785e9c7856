"""A scripted backend: says what it is told, token by token, and notes what was asked and cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

from justenough.backends.protocol import Finish, Request
from justenough.errors import BackendUnavailable, ContextExceeded, ProblemRefused
from justenough.prompts import Prompts
from justenough.signal.signal import Signal
from justenough.toy.notation import PROMPTS
from justenough.trace import Token

Script = Callable[[Request], list[tuple[str, float]]]
"""From a request to (text, entropy in bits) of each token."""


class ScriptedBackend:
    """Implements the backend protocol without a model.

    It is unreachable after `fail_after` requests, has no bits if `blind`, no room for `overlong` requests, and cannot
    read `unread` problems.
    """

    def __init__(
        self,
        script: Script,
        *,
        fail_after: int | None = None,
        blind: bool = False,
        overlong: Callable[[Request], bool] = lambda _: False,
        unread: Collection[str] = (),
    ) -> None:
        self.model = "scripted"
        self._blind = blind
        self.prompts: Prompts = PROMPTS
        self.concurrency = 4
        self.requests: list[Request] = []
        self.cancelled: list[tuple[str, int]] = []
        self.generated = 0
        self._script = script
        self._fail_after = fail_after
        self._overlong = overlong
        self._unread = unread

    def signal(self, *, temperature: float, top_k: int) -> Signal:
        return Signal(top_k=top_k, logits="raw", temperature=temperature)

    def read(self, problem: str) -> str:
        if problem in self._unread:
            raise ProblemRefused(f"scripted cannot read {problem!r}")
        return problem

    async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        if self._fail_after is not None and len(self.requests) >= self._fail_after:
            raise BackendUnavailable("the server is gone")
        self.requests.append(request)
        if self._overlong(request):
            raise ContextExceeded("the conversation has 700 tokens, but scripted holds only 640")
        whole = self._script(request)
        script = whole[: request.max_tokens]
        ended = False
        try:
            for text, bits in script:
                await asyncio.sleep(0)
                self.generated += 1
                yield Token(text=text, entropy=None if self._blind else bits)
            ended = True
            read = sum(len(message.content) for message in request.messages)
            yield Finish(reason="stop" if script == whole else "length", tokens=len(script), prompt_tokens=read)
        finally:
            if not ended:
                self.cancelled.append(request.key)

    async def close(self) -> None:
        pass
