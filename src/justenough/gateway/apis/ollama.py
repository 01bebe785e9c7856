"""Ollama's own API (`/api/chat`, `/api/generate`). It gives log-probabilities, so the gateway also uses it upstream.

`OllamaUpstream` takes chats and sends them as Ollama's requests with all members of the client. It turns each line of
the answer into a chunk that contains the line, so that the client gets the line as it came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, cast

import aiohttp
import msgspec

from justenough.errors import BackendRejected
from justenough.gateway.apis.api import Answer, Api, Members, Untranslatable, require_known, words_of
from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.fields import MEMBERS, Fields, value_of, whole_of
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.stream.events import Unusable, decoded
from justenough.gateway.upstream.client import Body, Upstream
from justenough.gateway.upstream.compression import is_compressed
from justenough.trace import Json
from justenough.wire.events import LINES, LineReader, event_of
from justenough.wire.values import read_json

_PASSED: Final = ("model", "options", "keep_alive", "think", "truncate", "shift")
_KNOWN: Final = frozenset((*_PASSED, "stream", "messages", "prompt", "system"))
_REASONS: Final[Mapping[str, str]] = {
    "tools": "tools",
    "images": "media",
    "format": "json_mode",
    "logprobs": "logprobs",
    "top_logprobs": "logprobs",
    **dict.fromkeys(("raw", "template", "suffix", "context"), "prompt"),
}
_CHAT: Final = "/v1/chat/completions"
_OWN: Final = frozenset(("message", "response", "done"))
"""Members of Ollama's lines."""
_TEXTS: Final = frozenset(("role", "content", "thinking", "tool_calls"))
"""Members of Ollama's messages that have other names in a chunk, or none."""
_LINE: Final = "ollama"
"""The member of a chunk's choice that has Ollama's own line."""


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    content: str
    thinking: str | None = None


class OllamaAnswer(Answer):
    """An answer, whole or as lines."""

    has_comments = False

    def __init__(self, fields: Fields, *, generates: bool) -> None:
        """`generates`: whether the request came to `/api/generate`."""
        super().__init__(fields)
        self._generates = generates
        self._last: Members = {}
        """Ollama's own last line."""

    def take(self, payload: bytes) -> bytes:
        """Take a chunk and return Ollama's own line, or one that is made of the chunk."""
        chunk = decoded(payload)
        rows = chunk.get("choices") if isinstance(chunk, dict) else None
        line = rows[0].get(_LINE) if isinstance(rows, list) and rows and isinstance(rows[0], dict) else None
        made = super().take(payload)
        if not isinstance(line, dict):
            return made
        if line.get("done") is True:
            self._last = line
            return b""
        return _line(line)

    def piece(self, text: str) -> bytes:
        """A line with a piece."""
        thought = self.blocks[-1][0] == "thought"
        return _line(self._with("" if thought else text, text if thought else "") | {"done": False})

    def end(self) -> bytes:
        """The last line: Ollama's own, which may bring more than the end, with the report."""
        return _line(self._last | self.report if self._last else self._ended("", ""))

    def require_form(self) -> None:
        """Do nothing: Ollama has a form for everything that it sends."""

    def whole(self) -> Members:
        """The answer in one piece."""
        texts = self.texts()
        content = "".join([text for kind, text in texts if kind != "thought"])
        return self._ended(content, "".join([text for kind, text in texts if kind == "thought"]))

    def _ended(self, content: str, thought: str) -> Members:
        counts = {"prompt_eval_count": self.count("prompt_tokens"), "eval_count": self.count("completion_tokens")}
        ends: Members = {"done": True, "done_reason": self.finish, **(counts if self.usage else {})}
        texts = self._with(content, thought, self._others.whole())
        out = self._last | texts | (ends if not self._last else {}) | self.report
        own, message = self._last.get("message"), out.get("message")
        if isinstance(own, dict) and isinstance(message, dict):
            out["message"] = own | message
        return out

    def _with(self, content: str, thought: str, others: Members | None = None) -> Members:
        """The members with the text, the thought, and what the message has beside them, such as images."""
        known = ("model", "created_at")
        head: Members = {key: self._last.get(key, self.head.get(key)) for key in known}
        thinking: Members = {"thinking": thought} if thought else {}
        further = thinking | (others or {})
        if self._generates:
            return head | {"response": content} | further
        message: Members = {"role": "assistant", "content": content}
        return head | {"message": message | further}


class Ollama(Api):
    """`/api/chat` or `/api/generate`."""

    asks_itself = True

    def __init__(self, *, generates: bool) -> None:
        """`generates`: whether it is `/api/generate`."""
        self._generates = generates

    def chat(self, fields: Fields) -> dict[str, object]:
        """The same request as a chat, with Ollama's own messages; raises `Untranslatable`, or one of `UNREADABLE`."""
        require_known(fields, _KNOWN, _REASONS)
        options = _options(fields)
        chat: dict[str, object] = {key: fields[key] for key in ("model", "think") if key in fields}
        chat |= {key: options[key] for key in ("temperature", "stop") if key in options}
        chat["messages"] = self._messages(fields)
        if (limit := self.max_tokens(fields)) is not None:
            chat["max_tokens"] = limit
        if value_of(fields, "stream", bool) is not False:
            chat |= {"stream": True, "stream_options": {"include_usage": True}}
        return chat

    def _messages(self, fields: Fields) -> object:
        if self._generates:
            prompt, system = (value_of(fields, key, str) for key in ("prompt", "system"))
            if not prompt:
                # Ollama only loads the model.
                raise Untranslatable("prompt")
            own = [{"role": "system", "content": system}] if system else []
            return [*own, {"role": "user", "content": prompt}]
        try:
            value_of(fields, "messages", list[_Message])
        except msgspec.ValidationError as error:
            # A call of a tool, or an image.
            raise Untranslatable("content") from error
        return fields.get("messages")

    def answer(self, fields: Fields) -> Answer:
        """The answer to a request, still empty."""
        return OllamaAnswer(fields, generates=self._generates)

    def max_tokens(self, fields: Fields) -> int | None:
        """The limit on the answer's tokens."""
        other, limit = super().max_tokens(fields), whole_of(_options(fields), "num_predict")
        return limit if limit is not None and limit > 0 else other

    def limits(self, fields: Fields, tokens: int) -> dict[str, object]:
        """The options, which limit the answer to so many tokens; older llama.cpp takes a chat at `/api/chat`."""
        limit = self.max_tokens(fields)
        options = {**_options(fields), "num_predict": tokens if limit is None else min(limit, tokens)}
        return super().limits(fields, tokens) | {"options": options}

    def error(self, refused: Refused) -> bytes:
        """An error as a whole answer."""
        return msgspec.json.encode({"error": words_of(refused)})

    def error_event(self, refused: Refused) -> bytes:
        """An error in a stream."""
        return self.error(refused) + b"\n"


class OllamaUpstream(Upstream):
    """Sends the chats of one request to Ollama in its own API."""

    def __init__(self, settings: GatewaySettings, upstream: Upstream, *, target: str, fields: Fields) -> None:
        """`target` and `fields`: path and members of the client's request."""
        super().__init__(settings)
        self._upstream = upstream
        self._target = target
        self._fields = fields
        self._messages: bytes | None = None
        """The messages of the first chat, which is the client's own request."""

    @asynccontextmanager
    async def open(
        self,
        method: str,
        target: str,
        *,
        headers: RawHeaders,
        body: Body = None,
        length: str | None = None,
        decode: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Like `Upstream.open`; the answer to a chat is a stream of chunks."""
        if target.split("?")[0] == _CHAT and isinstance(body, bytes):
            target, body = self._own(MEMBERS.decode(body))
            async with self._upstream.open(method, target, headers=headers, body=body) as answer:
                if answer.status == 200:
                    yield cast("aiohttp.ClientResponse", await _chunks_of(answer))
                else:
                    yield answer
            return
        async with self._upstream.open(
            method, target, headers=headers, body=body, length=length, decode=decode
        ) as answer:
            yield answer

    def _own(self, chat: Fields) -> tuple[str, bytes]:
        """Path and body of Ollama's own request for a chat."""
        messages = bytes(chat["messages"])
        self._messages = self._messages or messages
        fields = {**self._fields, "stream": msgspec.Raw(b"true")}
        fields |= {key: chat[key] for key in ("logprobs", "top_logprobs") if key in chat}
        target = self._target
        if messages != self._messages:
            target = target.replace("/api/generate", "/api/chat")
            fields = {key: raw for key, raw in fields.items() if key not in ("prompt", "system")}
            fields["messages"] = chat["messages"]
        limits = [chat[key] for key in ("max_completion_tokens", "max_tokens") if key in chat]
        if limits:
            options = {**_options(fields), "num_predict": limits[0]}
            fields["options"] = msgspec.Raw(msgspec.json.encode(options))
        return target, msgspec.json.encode(fields)


class _Chunks:
    """An answer of Ollama as a stream of chunks, in the form of aiohttp's answers."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.status = answer.status
        self.headers = {"content-type": "text/event-stream"}
        self.raw_headers = answer.raw_headers
        self.content = self
        self._answer = answer
        self._reader = LineReader()
        self.begin: list[Json] = []
        """Lines that were read already."""

    async def readany(self) -> bytes:
        """The events of the next lines; empty at the end."""
        values, self.begin = self.begin or await self.values(), []
        return b"".join([event_of(msgspec.json.encode(_chunk(value))) for value in values])

    async def values(self) -> list[Json]:
        """The next lines, at least one; empty at the end. Raises `Unusable`."""
        while True:
            data = await self._answer.content.readany()
            try:
                # The last line may have no end.
                values = [read_json(line) for line in self._reader.feed_bytes(data or b"\n")]
            except BackendRejected as error:
                raise Unusable("one of its lines cannot be read") from error
            if values or not data:
                return values


async def _chunks_of(answer: aiohttp.ClientResponse) -> _Chunks:
    """The answer as chunks; raises `Unusable` if neither its content type nor its first line is Ollama's."""
    chunks, is_ollamas = _Chunks(answer), not is_compressed(answer)
    if is_ollamas and not answer.headers.get("content-type", "").lower().startswith(LINES):
        chunks.begin = await chunks.values()
        first = chunks.begin[0] if chunks.begin else None
        is_ollamas = isinstance(first, dict) and bool(_OWN & first.keys()) and "choices" not in first
    if not is_ollamas:
        raise Unusable("it is not one of Ollama's")
    return chunks


def _chunk(line: Json) -> Json:
    """The chunk of a line. One with `done` is the end, with the counts of tokens; what is no object stays as it is."""
    if not isinstance(line, dict):
        return line
    if line.get("error"):
        return {"error": line["error"]}
    message = line.get("message")
    further = message if isinstance(message, dict) else {}
    message = message if isinstance(message, dict) else line
    delta: Members = {key: value for key, value in further.items() if key not in _TEXTS}
    delta["content"] = message.get("content", line.get("response"))
    if message.get("thinking"):
        delta["reasoning_content"] = message["thinking"]
    if message.get("tool_calls"):
        delta["tool_calls"] = message["tool_calls"]
    own = {key: value for key, value in line.items() if key != "logprobs"}
    row: Members = {"index": 0, "delta": delta, "finish_reason": None, _LINE: own}
    chunk: Members = {"model": line.get("model"), "created_at": line.get("created_at"), "choices": [row]}
    if line.get("logprobs"):
        row["logprobs"] = {"content": line["logprobs"]}
    if line.get("done") is True:
        reason = line.get("done_reason")
        row["finish_reason"] = reason if reason and isinstance(reason, str) else "stop"
        counts = {"prompt_tokens": line.get("prompt_eval_count"), "completion_tokens": line.get("eval_count")}
        chunk["usage"] = {key: count for key, count in counts.items() if count is not None}
    return chunk


def _options(fields: Fields) -> Fields:
    return value_of(fields, "options", dict[str, msgspec.Raw]) or {}


def _line(value: Members) -> bytes:
    return msgspec.json.encode(value) + b"\n"
