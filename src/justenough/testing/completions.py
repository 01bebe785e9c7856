"""The mock upstream's answers to completion requests, with the faults that a test selects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast

from justenough.testing.apis import APIS, Messages, OllamaChat
from justenough.testing.chunks import Chunks, Fault
from justenough.testing.connection import Broken, Received, Wire, framed
from justenough.trace import Json

if TYPE_CHECKING:
    from justenough.testing.server import MockUpstream

_HUGE: Final = 10 * 1024 * 1024
_IN_STREAM: Final = (Fault.RESET_IN_STREAM, Fault.HALF_CHUNK, Fault.END_IN_STREAM, Fault.STALL_IN_STREAM)
"""Faults that end an answer early, also an answer without a stream."""


class Completions(Wire):
    """The connection of one client: its completion requests."""

    def __init__(self, mock: MockUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.mock = mock
        self._probing = False
        self.path = ""
        """The path of the last request, as if the protocol were at `/v1`."""

    async def complete(self, request: Received) -> None:
        """Answer a request, in a stream or in one piece."""
        api, chat, own = APIS.get(self.path), self.path != "/v1/completions", request.json()
        body = own if api is None else api.chat_of(own)
        earlier = own.get("previous_response_id")
        if self.path == "/v1/responses" and earlier is not None and self.mock.engine == "vllm":
            # As vLLM: without a store there is no background mode, and no earlier answer is known.
            if own.get("background") is True and not self.mock.stores:
                await self.error(400, "the engine does not support `store=True`", kind="invalid_request_error")
            else:
                await self.error(404, f"Response with id {earlier!r} not found.", kind="invalid_request_error")
            return
        self._probing = b"Say OK." in request.body
        fault = Fault.NONE if self._probing or len(self.mock.completions) < self.mock.fault_from else self.mock.fault
        if await self._fails_early(fault):
            return
        last = cast("list[dict[str, Json]]", body.get("messages") or [{}])[-1]
        prefill = str(last.get("content")) if last.get("role") == "assistant" else None
        echoes = self.mock.engine == "llama.cpp"
        if chat:
            always = self.mock.engine in ("llama.cpp", "ollama")
            continued = prefill is not None and (always or body.get("continue_final_message") is True)
        else:
            continued = self.mock.format.open in cast("str", body.get("prompt") or "")
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        reason, context = "", self.mock.context
        if prefill is not None and not self.mock.prefill:
            reason = "the message of an assistant cannot be continued"
        elif fault is Fault.REFUSE_LOGPROBS and body.get("logprobs") not in (None, False):
            reason = "logprobs are not supported with this model"
        elif context is not None and isinstance(limit, int) and limit > context:
            reason = f"max_tokens={limit} cannot be greater than max_model_len={context}"
        if reason:
            await self.error(400, reason, kind="invalid_request_error")
            return
        if fault is Fault.CONTINUATION_FAILS and continued:
            await self.error(500, "cannot continue", kind="server_error")
            return
        tokens, finish = (
            self._tokens(str(body.get("prompt") or last.get("content")) if continued else None, chat=chat),
            "stop",
        )
        if isinstance(limit, int | float) and 0 < limit < len(tokens) and self.mock.limits_kept:
            tokens, finish = tokens[: int(limit)], "length"
        if self._probing and prefill is not None and self.mock.engine == "ollama":
            # It continues the word that the message begins.
            tokens = [("K", False)]
        maker = Chunks(self.mock, body, chat=chat, fault=fault) if api is None else api(self.mock, own, fault=fault)
        if body.get("stream") is True:
            await self._stream(tokens, maker, fault, finish=finish, continued=continued)
        else:
            # llama.cpp repeats the message of the assistant that it continues.
            whole = maker.whole(tokens, finish, echo=prefill or "" if echoes else "")
            await self._in_one_piece(tokens, whole, fault, maker=maker)

    def _tokens(self, prefill: str | None, *, chat: bool) -> list[tuple[str, bool]]:
        """The text of each token, and whether it belongs to the thought; `prefill` is the text that is continued."""
        answer = [(text, False) for text in self.mock.answer]
        thought = [(text, True) for text in self.mock.thought]
        format = self.mock.format
        if prefill is not None:
            if format.close in prefill or format.open not in prefill:
                return answer
        elif self.mock.reasoning_field is not None or not thought:
            return [*thought, *answer]
        # Between tags; a prefill whose thought is still open has the first tag already.
        has_open = prefill is not None or (chat and format.opened)
        texts = [*([] if has_open else [format.open]), *self.mock.thought, format.close]
        return [*((text, False) for text in texts), *answer]

    async def error(self, status: int, message: str, *, kind: str, headers: Mapping[str, str] | None = None) -> None:
        """Send an error in the form of the API that is asked."""
        api, value = APIS.get(self.path), dict[str, Json](error={"message": message, "type": kind, "code": status})
        if api is not None and issubclass(api, OllamaChat):
            value = {"error": message}
        elif api is Messages:
            value["type"] = "error"
        await self.whole(status, value, headers)

    async def _fails_early(self, fault: Fault) -> bool:
        if fault is Fault.RESET_IN_HEADERS:
            await self.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/ev")
        if fault in (Fault.RESET_BEFORE_HEADERS, Fault.RESET_IN_HEADERS):
            self.reset()
        if fault is Fault.STALL_BEFORE_HEADERS:
            await self.stall()
        if fault is Fault.TOO_MANY_REQUESTS:
            await self.error(429, "slow down", kind="rate_limit", headers={"retry-after": "7"})
        elif fault is Fault.SERVER_ERROR:
            await self.error(500, "out of memory", kind="server_error")
        elif fault is Fault.REDIRECT:
            await self.whole(307, dict[str, Json](), {"location": "http://127.0.0.1:1/v1/chat/completions"})
        return fault in (Fault.TOO_MANY_REQUESTS, Fault.SERVER_ERROR, Fault.REDIRECT)

    @contextmanager
    def _counting_cancels(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.mock.cancelled += 1
            raise

    async def _pause(self) -> None:
        """Wait between two tokens; raises `Broken` if the client has disconnected."""
        if self.mock.before_token is not None and not self._probing:
            await self.mock.before_token()
        if self.mock.interval_s:
            await asyncio.sleep(self.mock.interval_s)
        elif self.mock.generated % 16 == 15:
            await asyncio.sleep(0)
        if self.reader.at_eof():
            raise Broken

    async def _in_one_piece(
        self, tokens: list[tuple[str, bool]], value: dict[str, Json], fault: Fault, *, maker: Chunks
    ) -> None:
        kind = "text/html" if fault is Fault.WRONG_CONTENT_TYPE else "application/json"
        if fault is Fault.HUGE_CHUNK:
            value["huge"] = "x" * _HUGE
        faulty = {Fault.INVALID_UTF8: b'{"choices":[],"text":"\xff\xfe"}', Fault.INVALID_JSON: b"{nothing}"}
        body = faulty.get(fault) or json.dumps(value).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nX-Mock: 1\r\n"
        with self._counting_cancels():
            for _ in tokens:
                await self._pause()
                self.mock.generated += 1
            if fault is Fault.ENDLESS:
                await self.write(f"{head}\r\n".encode())
                while True:
                    await self.write(b" " * 1024)
                    await self._pause()
                    await asyncio.sleep(0)
            await self.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
            if fault is Fault.RESET_AFTER_HEADERS:
                self.reset()
            if fault in _IN_STREAM:
                await self.write(body[: len(body) // 2])
                await self._fail_in_stream(fault, continued=False, maker=maker)
            await self.write(body)

    async def _stream(
        self, tokens: list[tuple[str, bool]], maker: Chunks, fault: Fault, *, finish: str, continued: bool
    ) -> None:
        kind = "text/html" if fault is Fault.WRONG_CONTENT_TYPE else maker.content_type
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\nX-Mock: 1\r\n\r\n"
        await self.write(head.encode())
        if fault is Fault.RESET_AFTER_HEADERS:
            self.reset()
        with self._counting_cancels():
            await self._send(maker, maker.begin())
            number, waiting = 0, list[tuple[str, int, bool]]()
            while number < len(tokens) or fault is Fault.ENDLESS:
                if number == self.mock.fault_at or (fault is Fault.CONTINUATION_BREAKS and continued):
                    await self._fail_in_stream(fault, continued=continued, maker=maker)
                text, thought = tokens[number % len(tokens)]
                await self._pause()
                self.mock.generated += 1
                waiting.append((text, number, thought))
                number += 1
                if len(waiting) >= self.mock.tokens_per_event or number == len(tokens):
                    await self._send(maker, maker.events_of(waiting))
                    waiting = []
            await self._send(maker, maker.end(finish, number))
            await self.write((framed(maker.done) if maker.done else b"") + b"0\r\n\r\n")

    async def _send(self, maker: Chunks, events: list[Json]) -> None:
        """Send events, each in its own HTTP chunk."""
        for value in events:
            await self.write(framed(maker.event(value)))

    async def _fail_in_stream(self, fault: Fault, *, continued: bool, maker: Chunks) -> None:
        if fault is Fault.HALF_CHUNK:
            await self.write(framed(b'data: {"id":"mock-1","choices":[{"index":0,"del'))
        if fault in (Fault.HALF_CHUNK, Fault.RESET_IN_STREAM) or (fault is Fault.CONTINUATION_BREAKS and continued):
            self.reset()
        if fault is Fault.END_IN_STREAM:
            await self.write(b"0\r\n\r\n")
            raise Broken
        if fault is Fault.STALL_IN_STREAM:
            await self.stall()
        faulty = {
            Fault.INVALID_UTF8: b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n',
            Fault.INVALID_JSON: b"data: {nothing}\n\n",
            Fault.NOT_A_CHUNK: b'data: {"choices":[{"index":0,"delta":{"content":17}}]}\n\n',
        }
        if fault in faulty:
            await self.write(framed(faulty[fault]))
        if fault is Fault.ERROR_EVENT:
            await self._send(maker, [maker.error("out of memory")])
        if fault is Fault.HUGE_CHUNK:
            row: Json = {"index": 0, "delta": {"content": "x" * _HUGE}, "finish_reason": None}
            await self._send(maker, [{"type": "huge", "choices": [row]}])
