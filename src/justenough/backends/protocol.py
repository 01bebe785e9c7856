"""The interface of a backend: it streams tokens with log-probabilities for a conversation and can be cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from justenough.errors import ContextExceeded
from justenough.prompts import Prompts
from justenough.signal.signal import Signal
from justenough.trace import Token

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    """The text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One generation."""

    messages: tuple[Message, ...]
    """The conversation."""
    max_tokens: int
    """Limit of completion tokens."""
    temperature: float
    top_k: int
    """Number of log-probabilities for each token."""
    seed: int
    key: tuple[str, int]
    """(problem, step): together with the seed, the key of the sampling noise if the backend supports it."""
    continue_final: bool = False
    """Continue the last message, which is an assistant's, instead of answering it."""
    effort: str | None = None
    """Reasoning effort, for servers that support it."""
    needs_logprobs: bool = True
    """Whether a server that gives no log-probabilities is an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The last item of a stream that ended by itself."""

    reason: str
    """`stop`, `length` or another reason from the server."""
    tokens: int
    """Completion tokens, without `Token.discarded` and, if known, without the end-of-sequence token."""
    prompt_tokens: int | None = None
    """Tokens of the prompt; None if the server does not report them."""


CONTEXT: Final = "context"
"""The finish of a step that could not begin, because its conversation is longer than the model's context."""
REFUSED: Final = "refused"
"""The finish of a step that could not begin, because the problem is outside the language of the model."""
NOT_BEGUN: Final = frozenset((CONTEXT, REFUSED))
"""The finishes of steps that could not begin. No step follows them."""


def limit_of(request: Request, *, prompt: int, positions: int, model: str) -> int:
    """The completion tokens that fit behind a prompt of this many tokens; raises `ContextExceeded` if none does."""
    if prompt >= positions:
        raise ContextExceeded(
            f"the conversation has {prompt} tokens, but {model} holds only {positions}", hint="use fewer steps"
        )
    return min(request.max_tokens, positions - prompt)


class Backend(Protocol):
    """A source of tokens. All implementations pass the same contract tests."""

    @property
    def model(self) -> str:
        """The model's name, as traces and calibrations carry it."""

    @property
    def prompts(self) -> Prompts:
        """The texts that the model is asked with."""

    @property
    def concurrency(self) -> int:
        """The number of streams that it is useful to open at the same time."""

    def signal(self, *, temperature: float, top_k: int) -> Signal:
        """What the log-probabilities measure; the runner sets `splitter`."""

    def read(self, problem: str) -> str:
        """The problem as the model reads it; raises `ProblemRefused` for a problem outside its language."""

    def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        """Yield each token when it is generated, then one `Finish`; raises `BackendError`.

        A conversation that is longer than the model's context raises `ContextExceeded`.
        Closing the iterator early stops the generation at its source.
        """

    async def close(self) -> None:
        """Free all resources; no stream may be open."""
