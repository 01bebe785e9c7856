"""Anthropic's Messages (`/v1/messages`), as vLLM and llama.cpp turn them into chats themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from justenough.gateway.apis.api import (
    SAMPLING,
    Answer,
    Api,
    Block,
    Members,
    Untranslatable,
    content_of,
    named_event,
    require_known,
    words_of,
)
from justenough.gateway.exchange import Refused
from justenough.gateway.fields import Fields, is_set, value_of
from justenough.trace import Json
from justenough.wire.values import read_or_none

_KNOWN: Final = frozenset(
    (
        *SAMPLING,
        *(
            "model",
            "messages",
            "max_tokens",
            "system",
            "stream",
            "metadata",
            "thinking",
            "cache_control",
            "service_tier",
        ),
    )
)
_REASONS: Final[Mapping[str, str]] = {"tools": "tools", "stop_sequences": "stop", "output_config": "structured"}
_STOPS: Final[Mapping[str, str]] = {"length": "max_tokens", "content_filter": "refusal"}
_ERRORS: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
}
_BILLING: Final = "x-anthropic-billing-header"
"""The beginning of a text that servers remove from the prompt."""


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    content: msgspec.Raw


class _Block(msgspec.Struct):
    """A block that may be a thought."""

    type: str = ""
    thinking: str = ""


class _Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None


class MessagesAnswer(Answer):
    """A message, whole or as its events."""

    def begin(self) -> bytes:
        """The event before all texts; the usage follows at the end."""
        return named_event({"type": "message_start", "message": self._message({"input_tokens": 0, "output_tokens": 0})})

    def open(self) -> bytes:
        """The event that opens a block."""
        return self._event("content_block_start", {"content_block": _block(self.blocks[-1][0], "")})

    def piece(self, text: str) -> bytes:
        """The event of a piece."""
        name = "thinking" if self.blocks[-1][0] == "thought" else "text"
        return self._event("content_block_delta", {"delta": {"type": f"{name}_delta", name: text}})

    def close(self) -> bytes:
        """The events that close a block; a thought is signed with nothing."""
        signed = self._event("content_block_delta", {"delta": {"type": "signature_delta", "signature": ""}})
        return (signed if self.blocks[-1][0] == "thought" else b"") + self._event("content_block_stop", {})

    def end(self) -> bytes:
        """The events after all texts."""
        delta: Json = {"stop_reason": self._stop, "stop_sequence": None}
        last = named_event({"type": "message_delta", "delta": delta, "usage": self._usage(), **self.report})
        out = self.close() if self.blocks else b""
        for at, call in enumerate(self.calls(), len(self.blocks)):
            block: Json = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            arguments: Json = {"type": "input_json_delta", "partial_json": call.arguments}
            out += named_event({"type": "content_block_start", "index": at, "content_block": block})
            out += named_event({"type": "content_block_delta", "index": at, "delta": arguments})
            out += named_event({"type": "content_block_stop", "index": at})
        return out + last + named_event({"type": "message_stop"})

    def whole(self) -> Members:
        """The message in one piece."""
        content: list[Json] = [_block(*block) for block in self.texts()]
        return self._message(self._usage()) | {"content": content, "stop_reason": self._stop} | self.report

    @property
    def _stop(self) -> str:
        if self.finish != "length" and self.calls():
            return "tool_use"
        return _STOPS.get(self.finish or "", "refusal" if self.refused else "end_turn")

    def _usage(self) -> Members:
        """The usage; prompt tokens from the server's cache have a count of their own."""
        known = self.count("prompt_tokens_details", "cached_tokens")
        cached: Members = {"cache_read_input_tokens": known} if known else {}
        return cached | {
            "input_tokens": max(0, self.count("prompt_tokens") - known),
            "output_tokens": self.count("completion_tokens"),
        }

    def _message(self, usage: Members) -> Members:
        head: Members = {"id": self.head.get("id"), "type": "message", "role": "assistant", "content": []}
        return head | {
            "model": self.head.get("model"),
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }

    def _event(self, name: str, members: Members) -> bytes:
        return named_event({"type": name, "index": len(self.blocks) - 1, **members})


class Messages(Api):
    """`/v1/messages`."""

    def chat(self, fields: Fields) -> dict[str, object]:
        """The same request as a chat; raises `Untranslatable`, or one of `UNREADABLE`."""
        require_known(fields, _KNOWN, _REASONS)
        if value_of(fields, "max_tokens", int) is None:
            # Anthropic and vLLM require it, and the server reports its absence.
            raise Untranslatable("members")
        messages: list[object] = [*_system(fields)]
        for message in value_of(fields, "messages", list[_Message]) or []:
            if message.role not in ("user", "assistant"):
                raise Untranslatable("content")
            messages.append({"role": message.role, **_thought(message), **_content(message)})
        chat: dict[str, object] = {key: fields[key] for key in ("model", *SAMPLING, "max_tokens") if key in fields}
        chat["messages"] = messages
        if value_of(fields, "stream", bool):
            chat |= {"stream": True, "stream_options": {"include_usage": True}}
        thinking = value_of(fields, "thinking", _Thinking)
        if thinking is not None and thinking.type == "enabled" and thinking.budget_tokens is not None:
            # llama.cpp keeps this limit. vLLM reads no member of this name, and neither reads other types of thinking.
            chat["thinking_budget_tokens"] = thinking.budget_tokens
        return chat

    def answer(self, fields: Fields) -> Answer:
        """The answer to a request, still empty."""
        return MessagesAnswer(fields)

    def error(self, refused: Refused) -> bytes:
        """An error as a whole answer."""
        return msgspec.json.encode(_error(refused))

    def error_event(self, refused: Refused) -> bytes:
        """An error in a stream."""
        return b"\n\n" + named_event(_error(refused))


def _thought(message: _Message) -> dict[str, object]:
    """The earlier thought in a message of the assistant, under the names that vLLM and llama.cpp give it."""
    blocks = read_or_none(message.content, list[_Block]) if message.role == "assistant" else None
    thought = "".join([block.thinking for block in blocks or () if block.type == "thinking"])
    return {"reasoning": thought, "reasoning_content": thought} if thought else {}


def _content(message: _Message) -> dict[str, object]:
    """The other texts in a message; raises `Untranslatable` for anything but texts and thoughts."""
    blocks = read_or_none(message.content, list[msgspec.Raw])
    if blocks is None or message.role != "assistant":
        return {"content": content_of(message.content, ("text",))}
    others = [block for block in blocks if (read_or_none(block, _Block) or _Block()).type != "thinking"]
    return {"content": content_of(msgspec.Raw(msgspec.json.encode(others)), ("text",))}


def _system(fields: Fields) -> list[object]:
    """The system's message; servers join its parts."""
    raw = fields.get("system", msgspec.Raw(b"null"))
    if bytes(raw) == b"null":
        return []
    if not is_set(fields, "system"):
        # llama.cpp makes an empty message of it, vLLM none.
        raise Untranslatable("content")
    content = content_of(raw, ("text",))
    texts = [part["text"] for part in content] if isinstance(content, list) else [msgspec.json.decode(raw, type=str)]
    if any(text.startswith(_BILLING) for text in texts):
        raise Untranslatable("content")
    return [{"role": "system", "content": "".join(texts)}]


def _block(kind: Block, text: str) -> Json:
    """A block; the text of a refusal is one like any other."""
    if kind == "thought":
        return {"type": "thinking", "thinking": text, "signature": ""}
    return {"type": "text", "text": text}


def _error(refused: Refused) -> Members:
    kind = _ERRORS.get(refused.status, "api_error" if refused.status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": words_of(refused)}}
