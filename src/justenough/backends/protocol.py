"""What a backend is: it streams tokens with log-probabilities for a conversation, and can be cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, Protocol

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
    """Log-probabilities wanted for each token."""
    seed: int
    key: tuple[str, int]
    """(problem, step): with the seed, names the sampling noise where the backend can key it."""
    continue_final: bool = False
    """Continue the last message, an assistant's, instead of answering it."""
    effort: str | None = None
    """Reasoning effort, for servers that know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The last item of a stream that ended by itself."""

    reason: str
    """`stop` or `length`, or what else the server says."""
    tokens: int
    """Completion tokens, without the end-of-sequence token where that is known, and without `Token.discarded`."""
    prompt_tokens: int | None = None
    """Tokens of the prompt; None if the server does not report them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """What a model is told at each turn; `{problem}` stands for the problem."""

    name: str
    ask: str
    """Asks for one sequential step."""
    think: str
    """Asks for one long thought, of which segments are steps."""
    refine: str
    """Asks to re-examine the attempt before."""
    wait: str
    """Continues a thought that was about to end."""
    close: str
    """Ends the thought."""
    answer: str
    """Cues the answer after the thought was ended for the model."""


_ANSWER: Final = "Reason step by step, then give the final answer on a last line that begins with `Answer:`."

PROMPTS: Final[Mapping[str, Prompts]] = MappingProxyType(
    {
        "general": Prompts(
            name="general",
            ask="{problem}\n\n" + _ANSWER,
            think="{problem}\n\n" + _ANSWER,
            refine="Re-examine the problem and your attempt with fresh eyes, and correct what is wrong. " + _ANSWER,
            wait="\n\nWait,",
            close="\n</think>\n\n",
            answer="Answer:",
        ),
        "embedded": Prompts(
            name="embedded",
            ask="{problem}\nOne step.",
            think="{problem}",
            refine="Check again.",
            wait="",
            close="</think>",
            answer="",
        ),
    }
)
"""Prompts by name: `general` for any chat model, `embedded` for the model shipped here, wherever it is served."""


class Backend(Protocol):
    """A model that can be asked. One contract test suite holds every implementation to this."""

    @property
    def model(self) -> str:
        """The model's name, as traces and calibrations carry it."""

    @property
    def prompts(self) -> Prompts:
        """How this model is asked."""

    @property
    def concurrency(self) -> int:
        """Streams that may usefully be open at a time."""

    def signal(self, *, temperature: float, top_k: int) -> Signal:
        """What its log-probabilities measure; `splitter` is the runner's to set."""

    def read(self, problem: str) -> str:
        """The problem as the model reads it; raises `ProblemRefused` where it is outside its language."""

    def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        """Tokens as they are generated, then one `Finish`.

        Closing the iterator early really stops the generation. Raises `BackendError`.
        """

    async def close(self) -> None:
        """Free what is held; no stream may be open."""
