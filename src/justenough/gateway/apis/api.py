"""What the gateway needs of an API: the request as a chat, its limits and errors, and the answer's own form."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Mapping
from secrets import token_hex
from time import time
from typing import ClassVar, Final, Literal, NamedTuple, cast

import msgspec

from justenough.gateway.exchange import ErrorShape, RawHeaders, Refused
from justenough.gateway.fields import LENGTHS, Fields, is_set, limit_of, limits_within, value_of
from justenough.gateway.stream.events import Unusable, decoded, head_of, read
from justenough.gateway.stream.merge import Merged
from justenough.gateway.upstream.client import Upstream
from justenough.signal.thought import answer_begin
from justenough.trace import Json
from justenough.wire.chunks import error_message
from justenough.wire.others import others_of
from justenough.wire.values import read_or_none

Members = dict[str, Json]
Block = Literal["thought", "text", "refusal"]
"""What a block of an answer is."""
SAMPLING: Final = ("temperature", "top_p", "top_k")
"""Members that every API has."""
_DEFAULTS: Final = frozenset(("temperature", "top_p"))


_FORMLESS: Final[Mapping[str, str]] = {"content": "parts that are no text", "images": "images", "audio": "audio"}
"""Other members of a chat's message, which most APIs have no form for, and what they are."""
_GIVEN_UP: Final = frozenset(("abort", "error"))
"""Finish reasons of an answer that its server gave up."""


class Untranslatable(Exception):
    """The request has something that the gateway does not translate, so it is relayed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message that is only text; its other members change nothing."""

    type: str
    text: str
    cache_control: msgspec.Raw = msgspec.Raw()
    citations: msgspec.Raw = msgspec.Raw()
    annotations: msgspec.Raw = msgspec.Raw()
    logprobs: msgspec.Raw = msgspec.Raw()


def content_of(raw: msgspec.Raw, types: Container[str]) -> object:
    """The content of a message as a chat has it; raises `Untranslatable` for anything but texts of these types."""
    if bytes(raw).startswith(b'"'):
        return raw
    parts = read_or_none(raw, list[Text])
    if not parts or not all(part.type in types and part.text for part in parts):
        raise Untranslatable("content")
    return [{"type": "text", "text": part.text} for part in parts]


def require_known(fields: Fields, known: Container[str], reasons: Mapping[str, str]) -> None:
    """Raise `Untranslatable` if a member that has a value is not among the known ones."""
    for key in fields:
        if key not in known and is_set(fields, key):
            raise Untranslatable(reasons.get(key, "members"))


class Call(NamedTuple):
    """A call of a tool."""

    id: str
    name: str
    arguments: str
    """A JSON object as a text."""


class Answer(ABC):
    """The answer to one request, which grows with the chunks of the chat."""

    has_comments: ClassVar[bool] = True
    """Whether a stream may contain comments, which keep a connection alive."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.head: Members = {}
        """The members that all chunks share."""
        self.blocks: list[tuple[Block, list[str]]] = []
        """The texts so far, in pieces, each with what it is."""
        self.finish: str | None = None
        self.usage: Members = {}
        self.report: Members = {}
        """The gateway's own member of the answer."""
        self._calls = Merged()
        """The calls of tools, as a chat has them. Nobody offered a tool, so they are rare, and come after all texts."""
        self._others = Merged()
        """What the message has beside texts and calls."""

    def take(self, payload: bytes) -> bytes:
        """Take a chunk, or a whole chat, and return its events; raises `Refused` for one that cannot be read."""
        chunk, out = read(payload), b""
        if not self.head and chunk.choice is not None:
            self.head = self._head(payload)
            out = self.begin()
        if chunk.usage is not None:
            own = cast("Members", cast("Members", decoded(payload))["usage"])
            # Some servers write whole numbers as other numbers.
            counts = {key: getattr(chunk.usage, key) for key in ("prompt_tokens", "completion_tokens")}
            self.usage = {**own, **{key: count for key, count in counts.items() if count is not None}}
        if (choice := chunk.choice) is None:
            return out
        others = others_of(payload)
        refusal = others.pop("refusal", None)
        self._others.add(others)
        reasoning, content = choice.texts(apart=any(kind == "thought" for kind, _ in self.blocks))
        pieces: tuple[tuple[Block, Json], ...] = (("thought", reasoning), ("text", content), ("refusal", refusal))
        for kind, text in pieces:
            if isinstance(text, str) and text:
                out += self._piece(kind, text)
        if choice.has_call:
            self._calls.add({key: decoded(raw) for key, raw in choice.calls.items()})
        if choice.finish_reason is not None:
            self.finish = choice.finish_reason
            whole = cast("Members", decoded(payload))
            self.report = {key: whole[key] for key in ("justenough",) if key in whole}
        return out

    def _head(self, payload: bytes) -> Members:
        """The members that all chunks share. Clients expect these three, which some servers leave out."""
        head = head_of(payload)
        if not (isinstance(head.get("id"), str) and head["id"]):
            head["id"] = f"justenough-{token_hex(12)}"
        if not isinstance(head.get("created"), int | float):
            head["created"] = int(time())
        if not isinstance(head.get("model"), str):
            head["model"] = value_of(self.fields, "model", str)
        return head

    def _piece(self, kind: Block, text: str) -> bytes:
        out = b""
        if not self.blocks or self.blocks[-1][0] != kind:
            out = self.close() if self.blocks else b""
            self.blocks.append((kind, []))
            out += self.open()
        self.blocks[-1][1].append(text)
        return out + self.piece(text)

    def calls(self) -> list[Call]:
        """The calls of tools so far."""
        whole = self._calls.whole()
        rows = whole.get("tool_calls")
        older: Json = {"function": whole.get("function_call")}
        out: list[Call] = []
        for row in [*(rows if isinstance(rows, list) else ()), *([older] if "function_call" in whole else ())]:
            function = row.get("function") if isinstance(row, dict) else None
            if isinstance(row, dict) and isinstance(function, dict):
                own, given = row.get("id"), function.get("arguments") or {}
                arguments = given if isinstance(given, str) else msgspec.json.encode(given).decode()
                call_id = own if isinstance(own, str) and own else f"call_{self.head.get('id')}_{len(out)}"
                out.append(Call(call_id, str(function.get("name")), arguments))
        return out

    def texts(self) -> list[tuple[Block, str]]:
        """The texts so far, each with what it is."""
        return [(kind, "".join(pieces)) for kind, pieces in self.blocks]

    def require_form(self) -> None:
        """Raise `Unusable` for an answer that would look complete, or empty, in this API only."""
        if self.finish in _GIVEN_UP:
            raise Unusable("the server gave up its answer")
        others = self._others.whole()
        lost = [name for member, name in _FORMLESS.items() if member in others]
        text = "".join([text for kind, text in self.texts() if kind == "text"])
        begin = answer_begin(text)
        has_text = begin is not None and text[begin:].strip() != ""
        if lost and not (has_text or self.refused or self.calls()):
            raise Unusable(f"its answer is only {', '.join(lost)}, for which this API has no form; ask for a chat")

    @property
    def refused(self) -> bool:
        """Whether the model refused to answer."""
        return any(kind == "refusal" for kind, _ in self.blocks)

    def count(self, name: str, detail: str | None = None) -> int:
        """A number of the usage, or of its details; 0 if the upstream does not tell."""
        value = self.usage.get(name)
        if detail is not None:
            value = value.get(detail) if isinstance(value, dict) else None
        return value if isinstance(value, int) else 0

    def begin(self) -> bytes:
        """The events before all texts."""
        return b""

    def open(self) -> bytes:
        """The events that open the last block."""
        return b""

    @abstractmethod
    def piece(self, text: str) -> bytes:
        """The event of a piece of the last block."""

    def close(self) -> bytes:
        """The events that close the last block."""
        return b""

    @abstractmethod
    def end(self) -> bytes:
        """The events after all texts."""

    @abstractmethod
    def whole(self) -> Members:
        """The answer in one piece."""


class Api(ErrorShape, ABC):
    """One API."""

    length: ClassVar[str] = "max_tokens"
    """The member that limits the answer's tokens."""
    asks_itself: ClassVar[bool] = False
    """Whether the upstream is asked in this API, with log-probabilities; otherwise it is asked for a chat."""

    @abstractmethod
    def chat(self, fields: Fields) -> dict[str, object]:
        """The members of the same request as a chat; raises `Untranslatable`, or one of `UNREADABLE`."""

    @abstractmethod
    def answer(self, fields: Fields) -> Answer:
        """The answer to a request, still empty."""

    def has_defaults_of_a_chat(self, fields: Fields, engine: str) -> bool:
        """Whether the server would treat the chat like this request, also where members are missing.

        vLLM and llama.cpp make the chat themselves. Others may have other defaults in each API.
        """
        return engine != "unknown" or (fields.keys() >= _DEFAULTS and not is_set(fields, "thinking"))

    async def keeps(self, fields: Fields, engine: str, upstream: Upstream, *, headers: RawHeaders) -> bool:
        """Whether the server would store the answer, so that a later request could name it."""
        return False

    def max_tokens(self, fields: Fields) -> int | None:
        """The limit on the answer's tokens."""
        return limit_of(fields, (self.length, *LENGTHS))

    def limits(self, fields: Fields, tokens: int) -> dict[str, object]:
        """The members that limit the answer to so many tokens.

        llama.cpp makes a chat of the request with all its members, and prefers those of a chat.
        """
        return {self.length: tokens, **limits_within(fields, (self.length, *LENGTHS), tokens)}

    def id_of(self, chat_id: str) -> str:
        """The id that the client sees for a chat's id."""
        return chat_id


def words_of(refused: Refused) -> str:
    """The words of an error; if the upstream wrote it, its own words."""
    return error_message(cast("Json", read_or_none(refused.body, dict[str, object]))) or refused.message


def named_event(value: Members) -> bytes:
    """One server-sent event, with its type as its name."""
    return b"event: %b\ndata: %b\n\n" % (str(value["type"]).encode(), msgspec.json.encode(value))
