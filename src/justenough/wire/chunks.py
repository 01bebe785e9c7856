"""Chat and text completions, whole or as the chunks of a stream: one set of Structs for every reader.

What a reader does not know stays unread in the bytes, and log-probabilities stay raw until someone needs them. A reply
that does not fit these types is read again by `justenough.wire.lenient`.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from justenough.signal.thought import closed_by, opened_by
from justenough.trace import Json
from justenough.wire.values import ABSENT, read_json, read_or_none

MAX_COUNT: Final = 10**9
"""A server that counts more tokens in one answer is wrong."""
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]

THOUGHT_FIELDS: Final = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "thought")
"""The names under which servers send a thought apart from the answer."""
NO_FINISH: Final = frozenset(("", "null"))
"""Reasons for the end of a generation that mean that it has not ended."""
_EMPTY: Final = frozenset((b"", b"null", b'""', b"[]", b"{}", b"false", b"0"))
"""Members that say nothing."""


def is_empty(member: msgspec.Raw) -> bool:
    """Whether a member is absent or says nothing."""
    return bytes(member) in _EMPTY


class Message(msgspec.Struct, gc=False):
    """A message (`message`), or what a chunk adds to it (`delta`)."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: msgspec.Raw = ABSENT
    thinking: msgspec.Raw = ABSENT
    reasoning_text: msgspec.Raw = ABSENT
    thought: msgspec.Raw = ABSENT
    function_call: msgspec.Raw = ABSENT

    def text_of(self, name: str) -> str | None:
        """The text of a field; None if there is none. Servers use the rarer names also for other things than texts."""
        value: str | msgspec.Raw | None = getattr(self, name)
        if isinstance(value, msgspec.Raw):
            return read_or_none(value, str) if value else None
        return value

    @property
    def thought_text(self) -> str:
        """The text of the thought, once where the server sends it under several names."""
        text = self.reasoning_content or self.reasoning
        if not text and (self.thinking or self.reasoning_text or self.thought):
            text = next((text for name in THOUGHT_FIELDS if (text := self.text_of(name))), None)
        return text or ""


class Choice(msgspec.Struct, gc=False):
    """One alternative, of a chat (`delta`, `message`) or of a text completion (`text`)."""

    index: int | None = 0
    delta: Message | None = None
    message: Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = ABSENT

    def __post_init__(self) -> None:
        if self.finish_reason in NO_FINISH:
            self.finish_reason = None

    @property
    def reasoning(self) -> str:
        """Text that the server keeps apart as reasoning."""
        part = self.delta or self.message
        return "" if part is None else part.thought_text

    @property
    def content(self) -> str:
        """Text that is not reasoning."""
        part = self.delta or self.message
        return (self.text if part is None else part.content) or ""

    def texts(self, *, apart: bool) -> tuple[str, str]:
        """Text of the thought and other text; `apart`: whether the thought has come in a field of its own so far.

        A thought that the server sends in the field and again in the content is only content: its tags are there.
        """
        reasoning, content = self.reasoning, self.content
        return ("" if reasoning and content and not apart and self._repeats(reasoning) else reasoning), content

    def _repeats(self, reasoning: str) -> bool:
        """Whether the content is this thought again. An answer may contain the words of a short thought."""
        before, found, after = self.content.partition(reasoning)
        if not found:
            return False
        # A piece of a thought between its tags has none itself.
        is_piece = self.delta is not None and not (before + after).strip()
        return is_piece or opened_by(before) is not None or closed_by(after)

    @property
    def has_call(self) -> bool:
        """Whether it brings a call of a tool."""
        part = self.delta or self.message
        return part is not None and not (is_empty(part.tool_calls) and is_empty(part.function_call))

    @property
    def calls(self) -> dict[str, msgspec.Raw]:
        """The members with calls of tools."""
        part = self.delta or self.message
        members = {} if part is None else {"tool_calls": part.tool_calls, "function_call": part.function_call}
        return {key: raw for key, raw in members.items() if not is_empty(raw)}

    @property
    def has_output(self) -> bool:
        """Whether it brings text or a call of a tool."""
        return bool(self.content or self.reasoning) or self.has_call


class Usage(msgspec.Struct, gc=False):
    """Token counts by the server; None where it does not tell."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    output_tokens: Count | None = None
    """`completion_tokens` in the protocols of `/v1/responses` and `/v1/messages`."""


class Progress(msgspec.Struct, gc=False):
    """How far llama.cpp has read the prompt."""

    total: Count = 0
    """Tokens of the prompt."""


class Timings(msgspec.Struct, gc=False):
    """What llama.cpp reports at the end of a stream."""

    predicted_n: Count = 0
    """Tokens that it has generated."""


class Chunk(msgspec.Struct, gc=False):
    """One event of a stream, or one whole response."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    prompt_progress: Progress | None = None
    timings: Timings | None = None
    error: msgspec.Raw = ABSENT

    @property
    def choice(self) -> Choice | None:
        """The first alternative; None in a chunk without one."""
        return self.choices[0] if self.choices else None

    @property
    def is_foreign(self) -> bool:
        """Whether it has no member of a chunk: it is a sign of life, or an error in words that nobody knows."""
        return self.choices is None and self.usage is None and self.timings is None and self.prompt_progress is None


class OddChunk(Chunk, gc=False):
    """A chunk that does not fit the types above, with all that could be read of it."""

    complaint: str = ""
    """Which text could not be read, and why; empty where all texts were read."""
    in_parts: bool = False
    """Whether a text came as a list of parts."""


class OtherProtocol(Chunk, gc=False):
    """Also an event of `/v1/responses` or `/v1/messages`, as far as its tokens are counted."""

    class Response(msgspec.Struct, gc=False):
        """The response so far."""

        usage: Usage | None = None

    type: str = ""
    delta: msgspec.Raw = ABSENT
    response: Response | None = None


def is_error_object(value: Json) -> bool:
    """Whether a value says that it is an error without the usual member, as older vLLM does."""
    return isinstance(value, dict) and "error" in (value.get("object"), value.get("type"))


def error_message(value: Json) -> str | None:
    """The server's words, where a value is an error in one of the forms that servers use."""
    if not isinstance(value, dict):
        return None
    words = value.get("error")
    if words is None and is_error_object(value):
        words = value
    if words is None and "choices" not in value:
        words = value.get("detail") or value.get("message")
    if isinstance(words, dict):
        words = words.get("message") or words
    if not words:
        return None
    return words if isinstance(words, str) else msgspec.json.encode(words).decode()


def error_of(chunk: Chunk, data: str | bytes) -> str | None:
    """The server's words, where an event is an error instead of a chunk."""
    return None if chunk.choices and is_empty(chunk.error) else error_message(read_json(data))
