"""The tokens that begin and end a thought, from the server's reasoning configuration, and the texts of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from justenough.errors import InputError
from justenough.signal.thought import ThoughtFormat

_SPLIT: Final = "\ufffd"
_MOST_BYTES: Final = 8
"""Tokens that may wait for the rest of a character; a character has at most four bytes."""


class Decoder(Protocol):
    """The part of a tokenizer that is needed."""

    def decode(self, ids: list[int], /) -> str:
        """The text of these tokens, special tokens included."""


class ReasoningConfig(Protocol):
    """The part of vLLM's reasoning configuration that is needed."""

    reasoning_start_token_ids: list[int] | None
    reasoning_end_token_ids: list[int] | None
    natural_reasoning_end_token_ids: list[int] | None


@dataclass(frozen=True, slots=True)
class Closing:
    """The tokens around a thought."""

    start: tuple[int, ...]
    end: tuple[int, ...]
    """Forced when the gate stops; may be a sentence and the closing tag."""
    natural: tuple[int, ...]
    """The closing tag of the model itself."""
    format: ThoughtFormat

    @classmethod
    def of(cls, config: ReasoningConfig | None, decoder: Decoder) -> Closing:
        """Read a server's configuration; raises `InputError` if it does not say how a thought ends."""
        start = tuple((config and config.reasoning_start_token_ids) or ())
        end = tuple((config and config.reasoning_end_token_ids) or ())
        natural = tuple((config and config.natural_reasoning_end_token_ids) or ()) or end
        if not start or not end:
            raise InputError(
                "the server does not know how the model marks its thought",
                hint="vllm serve --reasoning-parser NAME, or LLM(reasoning_parser=NAME)",
            )
        format = ThoughtFormat(open=decoder.decode(list(start)).strip(), close=decoder.decode(list(natural)).strip())
        return cls(start, end, natural, format)

    def format_after(self, prompt: Sequence[int]) -> ThoughtFormat:
        """The format of a thought that the prompt may have opened."""
        opened = _last(prompt, self.start) > _last(prompt, self.natural)
        return replace(self.format, opened=True) if opened else self.format


def _last(ids: Sequence[int], part: tuple[int, ...]) -> int:
    """The place of the last occurrence of `part`; -1 if there is none."""
    size = len(part)
    return next((at for at in range(len(ids) - size, -1, -1) if tuple(ids[at : at + size]) == part), -1)


class Texts:
    """The text of each token in its order. A character that is split over tokens comes whole with its last one."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._before: list[int] = []
        self._waiting: list[int] = []

    def feed(self, token: int) -> str:
        """The text that the next token completes."""
        self._waiting.append(token)
        # With the tokens before it: whether a word begins with a space may depend on them.
        before = self._decoder.decode(self._before) if self._before else ""
        text = self._decoder.decode(self._before + self._waiting)
        if text.endswith(_SPLIT) and len(self._waiting) < _MOST_BYTES:
            return ""
        self._before, self._waiting = self._waiting, []
        return text[len(before) :]
