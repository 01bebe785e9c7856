"""OpenAI's Responses (`/v1/responses`), as vLLM and llama.cpp turn them into chats themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal
from weakref import WeakKeyDictionary

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
from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.fields import Fields, is_set, value_of
from justenough.gateway.stream.events import decoded
from justenough.gateway.upstream.capability import call_aside
from justenough.gateway.upstream.client import Upstream
from justenough.trace import Json

_PASSED: Final = ("model", *SAMPLING, "seed")
_KNOWN: Final = frozenset(
    (
        *(*_PASSED, "input", "instructions", "max_output_tokens", "reasoning", "stream", "text"),
        *("metadata", "user", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"),
    )
)
_STORED: Final = ("previous_response_id", "conversation", "store", "background", "prompt")
_REASONS: Final[Mapping[str, str]] = dict.fromkeys(_STORED, "stored") | {"tools": "tools", "include": "include"}
_NOBODY: Final = "resp_justenough"
"""An id that no answer has."""
_HARMLESS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "truncation": (b'"disabled"',),
    "tool_choice": (b'"auto"', b'"none"'),
    "service_tier": (b'"auto"', b'"default"'),
    "top_logprobs": (b"0",),
}
"""Members that change nothing with these values."""
_INCOMPLETE: Final[Mapping[str, str]] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Finish reasons of a chat that leave a response incomplete."""
_PARTS: Final[Mapping[Block, str]] = {"thought": "reasoning_text", "text": "output_text", "refusal": "refusal"}
"""The type of a block's part, which also begins the names of its events."""
_ECHOED: Final[Mapping[str, Json]] = {
    **dict.fromkeys(("instructions", "max_output_tokens", "reasoning", "temperature", "top_p", "user")),
    "metadata": {},
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "truncation": "disabled",
    "text": {"format": {"type": "text"}},
}
"""Members that the answer repeats, and their defaults."""


class _Item(msgspec.Struct, forbid_unknown_fields=True):
    """A message in the input."""

    role: str
    content: msgspec.Raw
    type: str = "message"
    id: str | None = None
    status: str | None = None


class _Reasoning(msgspec.Struct, forbid_unknown_fields=True):
    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    """vLLM and llama.cpp write none, whatever the client wants."""


class _Format(msgspec.Struct, frozen=True):
    type: str = "text"


class _TextOptions(msgspec.Struct, forbid_unknown_fields=True):
    format: _Format = _Format()


class ResponsesAnswer(Answer):
    """A response, whole or as its events."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self._number = -1

    def begin(self) -> bytes:
        """The events before all items."""
        response = self._response("in_progress")
        return b"".join(
            [self._event(f"response.{name}", {"response": response}) for name in ("created", "in_progress")]
        )

    def open(self) -> bytes:
        """The events that open an item."""
        at, item = len(self.blocks) - 1, self._item(len(self.blocks) - 1, "", "in_progress") | {"content": []}
        part = _part(self.blocks[-1][0], "")
        added = self._event("response.output_item.added", {"output_index": at, "item": item})
        return added + self._of_part("content_part.added", {"part": part})

    def piece(self, text: str) -> bytes:
        """The event of a piece."""
        return self._of_text("delta", {"delta": text})

    def close(self) -> bytes:
        """The events that close an item."""
        kind, text = self.blocks[-1][0], "".join(self.blocks[-1][1])
        at = len(self.blocks) - 1
        done: Members = {"output_index": at, "item": self._item(at, text, "completed")}
        ended = self._of_text("done", {"refusal" if kind == "refusal" else "text": text}) + self._of_part(
            "content_part.done", {"part": _part(kind, text)}
        )
        return ended + self._event("response.output_item.done", done)

    def end(self) -> bytes:
        """The events after all items."""
        out, response = self.close() if self.blocks else b"", self.whole()
        for at, item in enumerate(self._items_of_calls(), len(self.blocks)):
            place: Members = {"output_index": at}
            arguments = place | {"item_id": item["id"]}
            begun = item | {"arguments": "", "status": "in_progress"}
            out += self._event("response.output_item.added", place | {"item": begun})
            out += self._event("response.function_call_arguments.delta", arguments | {"delta": item["arguments"]})
            done = arguments | {key: item[key] for key in ("name", "arguments")}
            out += self._event("response.function_call_arguments.done", done)
            out += self._event("response.output_item.done", place | {"item": item})
        return out + self._event(f"response.{response['status']}", {"response": response})

    def whole(self) -> Members:
        """The response in one piece."""
        why = _INCOMPLETE.get(self.finish or "")
        out = self._response("completed" if why is None else "incomplete")
        items = [self._item(at, text, "completed") for at, (_, text) in enumerate(self.texts())]
        out["output"] = [*items, *self._items_of_calls()]
        out["incomplete_details"] = None if why is None else {"reason": why}
        if self.usage:
            prompt, completion = self.count("prompt_tokens"), self.count("completion_tokens")
            known = self.count("prompt_tokens_details", "cached_tokens")
            out["usage"] = {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": known, "cache_write_tokens": 0},
                "output_tokens": completion,
                "output_tokens_details": {"reasoning_tokens": self._thought_tokens},
                "total_tokens": prompt + completion,
            }
        return out | self.report

    @property
    def _thought_tokens(self) -> int:
        """Tokens of the thought: by the upstream's count, or the gateway's own for a chat that has none."""
        counted, report = self.count("completion_tokens_details", "reasoning_tokens"), self.report.get("justenough")
        own = report.get("thought_tokens") if isinstance(report, dict) else None
        is_apart = any(kind == "thought" for kind, _ in self.blocks)
        return counted or (own if is_apart and isinstance(own, int) else 0)

    def _response(self, status: str) -> Members:
        echoed = {key: decoded(self.fields[key]) if is_set(self.fields, key) else own for key, own in _ECHOED.items()}
        head: Members = {
            "id": _id_of(str(self.head.get("id"))),
            "object": "response",
            "created_at": self.head.get("created"),
            "status": status,
            "model": self.head.get("model"),
            "output": [],
            "tools": [],
            "error": None,
            "incomplete_details": None,
            "usage": None,
        }
        return head | echoed

    def _item(self, at: int, text: str, status: str) -> Members:
        kind = self.blocks[at][0]
        thought = kind == "thought"
        item: Members = {"id": f"{'rs' if thought else 'msg'}_{self.head.get('id')}_{at}", "status": status}
        item |= {"type": "reasoning", "summary": []} if thought else {"type": "message", "role": "assistant"}
        return item | {"content": [_part(kind, text)]}

    def _items_of_calls(self) -> list[Members]:
        return [
            {
                "id": f"fc_{self.head.get('id')}_{at}",
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "status": "completed",
            }
            for at, call in enumerate(self.calls())
        ]

    def _of_text(self, name: str, members: Members) -> bytes:
        kind = self.blocks[-1][0]
        return self._of_part(f"{_PARTS[kind]}.{name}", members | _logprobs(kind))

    def _of_part(self, name: str, members: Members) -> bytes:
        at = len(self.blocks) - 1
        place: Members = {"item_id": self._item(at, "", "")["id"], "output_index": at, "content_index": 0}
        return self._event(f"response.{name}", place | members)

    def _event(self, name: str, members: Members) -> bytes:
        self._number += 1
        return named_event({"type": name, "sequence_number": self._number, **members})


class Responses(Api):
    """`/v1/responses`."""

    length = "max_output_tokens"

    def __init__(self) -> None:
        self._stores: WeakKeyDictionary[Upstream, bool] = WeakKeyDictionary()
        """Whether a server stores answers unless the client declines."""

    def chat(self, fields: Fields) -> dict[str, object]:
        """The same request as a chat; raises `Untranslatable`, or one of `UNREADABLE`."""
        harmless = {key for key, values in _HARMLESS.items() if bytes(fields.get(key, b"")) in values}
        require_known(fields, _KNOWN | harmless, _REASONS)
        chat: dict[str, object] = {key: fields[key] for key in _PASSED if key in fields}
        chat["messages"] = [*_instructions(fields), *_messages(fields)]
        if "max_output_tokens" in fields:
            chat["max_tokens"] = fields["max_output_tokens"]
        if value_of(fields, "stream", bool):
            chat |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            effort = (value_of(fields, "reasoning", _Reasoning) or _Reasoning()).effort
            options = value_of(fields, "text", _TextOptions) or _TextOptions()
        except msgspec.ValidationError as error:
            raise Untranslatable("members") from error
        if options.format.type != "text":
            raise Untranslatable("structured")
        return chat if effort is None else chat | {"reasoning_effort": effort}

    def has_defaults_of_a_chat(self, fields: Fields, engine: str) -> bool:
        """Whether the server would treat the chat like this request; an unknown one may store or summarise."""
        has_summary = (value_of(fields, "reasoning", _Reasoning) or _Reasoning()).summary is not None
        is_plain = engine != "unknown" or (_says_no_store(fields) and not has_summary)
        return super().has_defaults_of_a_chat(fields, engine) and is_plain

    async def keeps(self, fields: Fields, engine: str, upstream: Upstream, *, headers: RawHeaders) -> bool:
        """Whether the server would store the answer, so that a later request could name it, or does not tell."""
        if engine != "vllm" or _says_no_store(fields):
            return False
        if (known := self._stores.get(upstream)) is not None:
            return known
        model = {"model": fields["model"]} if "model" in fields else {}
        # It generates nothing: vLLM refuses it for its store, or because it does not know the earlier answer.
        body = {**model, "input": ".", "max_output_tokens": 1, "background": True, "previous_response_id": _NOBODY}
        try:
            status, answer = await call_aside(upstream, "POST", "/v1/responses", headers=headers, body=body)
        except Refused:
            return True
        if status == 400 or (status == 404 and _NOBODY.encode() in answer):
            self._stores[upstream] = status == 404
        return status != 400

    def answer(self, fields: Fields) -> Answer:
        """The answer to a request, still empty."""
        return ResponsesAnswer(fields)

    def id_of(self, chat_id: str) -> str:
        """The id that the client sees for a chat's id."""
        return _id_of(chat_id)

    def error_event(self, refused: Refused) -> bytes:
        """An error in a stream, in the form of this API, and also in the form of a chat, which clients raise."""
        own: Members = {"message": words_of(refused), "type": refused.kind, "code": refused.code, "param": None}
        return b"\n\n" + named_event(own | {"type": "error", "error": own})


def _says_no_store(fields: Fields) -> bool:
    return bytes(fields.get("store", b"")) == b"false"


def _instructions(fields: Fields) -> list[object]:
    if "instructions" not in fields:
        return []
    if not is_set(fields, "instructions"):
        # llama.cpp makes an empty message of it, vLLM none.
        raise Untranslatable("content")
    return [{"role": "system", "content": value_of(fields, "instructions", str)}]


def _messages(fields: Fields) -> list[object]:
    given = fields.get("input", msgspec.Raw(b"null"))
    if bytes(given).startswith(b'"'):
        return [{"role": "user", "content": given}]
    messages: list[object] = []
    try:
        items = value_of(fields, "input", list[_Item]) or []
    except msgspec.ValidationError as error:
        # A call of a tool, a thought, a reference.
        raise Untranslatable("content") from error
    for item in items:
        if item.type != "message" or item.role not in ("user", "assistant", "system", "developer"):
            raise Untranslatable("content")
        content = content_of(
            item.content, ("output_text", "input_text") if item.role == "assistant" else ("input_text",)
        )
        if item.role == "assistant" and isinstance(content, list):
            if len(content) != 1:
                raise Untranslatable("content")
            content = content[0]["text"]
        messages.append({"role": item.role, "content": content})
    return messages


def _part(kind: Block, text: str) -> Members:
    part: Members = {"type": _PARTS[kind], "refusal" if kind == "refusal" else "text": text}
    return part | ({"annotations": []} if kind == "text" else {}) | _logprobs(kind)


def _logprobs(kind: Block) -> Members:
    """An answer's text has a list of log-probabilities; the gateway relays requests for them."""
    return {"logprobs": []} if kind == "text" else {}


def _id_of(chat_id: str) -> str:
    return f"resp_{chat_id}"
