"""The faults of the mock upstream, and the JSON of its answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final, Literal, cast

from justenough.signal.thought import THINK, ThoughtFormat
from justenough.trace import Json

Engine = Literal["vllm", "llama.cpp", "ollama", "plain"]

CONFIDENT: Final = tuple([-0.001] + [-12.0] * 19)
"""Natural log-probabilities of a confident token: 0.0022 bits."""
UNSURE: Final = tuple([-3.0] * 20)
"""Natural log-probabilities of an uncertain token: log2 20 = 4.32 bits."""


class Fault(StrEnum):
    """A way in which an answer fails."""

    NONE = "none"
    RESET_BEFORE_HEADERS = "reset_before_headers"
    RESET_IN_HEADERS = "reset_in_headers"
    RESET_AFTER_HEADERS = "reset_after_headers"
    RESET_IN_STREAM = "reset_in_stream"
    END_IN_STREAM = "end_in_stream"
    """The stream is complete as HTTP, but has no finish reason."""
    STALL_BEFORE_HEADERS = "stall_before_headers"
    STALL_IN_STREAM = "stall_in_stream"
    HALF_CHUNK = "half_chunk"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    NOT_A_CHUNK = "not_a_chunk"
    ERROR_EVENT = "error_event"
    WRONG_CONTENT_TYPE = "wrong_content_type"
    TOO_MANY_REQUESTS = "too_many_requests"
    SERVER_ERROR = "server_error"
    REDIRECT = "redirect"
    ENDLESS = "endless"
    HUGE_CHUNK = "huge_chunk"
    NO_LOGPROBS = "no_logprobs"
    SHORT_LOGPROBS = "short_logprobs"
    REFUSE_LOGPROBS = "refuse_logprobs"
    CONTINUATION_FAILS = "continuation_fails"
    CONTINUATION_BREAKS = "continuation_breaks"


@dataclass(slots=True, kw_only=True)
class Voice:
    """The form of the mock's answers."""

    answer_id: str = "mock-1"
    model: str = "mock"
    engine: Engine = "vllm"
    reasoning_field: str | None = None
    """The field for the thought, for example `reasoning_content`; None: in the text, between tags."""
    delta: Callable[[str, bool], dict[str, Json]] | None = None
    """The members of a chat's delta for a token and whether it belongs to the thought; only with `reasoning_field`."""
    format: ThoughtFormat = THINK
    """The tags of the thought; `opened`: the chat template writes the opening tag."""
    logprobs: Sequence[Sequence[float]] = (CONFIDENT,)
    """Natural log-probabilities for each token; all later tokens have the last entry."""
    logprobs_apart: bool = False
    """Whether a chat has the thought's log-probabilities in `logprobs.reasoning_content`, as DeepSeek does."""

    def row(self, number: int) -> Sequence[float]:
        """Natural log-probabilities of a token by its number."""
        return self.logprobs[min(number, len(self.logprobs) - 1)]


class Chunks:
    """Creates the JSON of one answer."""

    content_type: ClassVar[str] = "text/event-stream; charset=utf-8"
    done: ClassVar[bytes] = b"data: [DONE]\n\n"
    """What ends a stream."""

    def __init__(self, voice: Voice, body: dict[str, Json], *, chat: bool, fault: Fault) -> None:
        self.voice = voice
        self.chat = chat
        self.wants = body.get("logprobs") not in (None, False) and fault is not Fault.NO_LOGPROBS
        top = body.get("top_logprobs") if chat else body.get("logprobs")
        self.top = top if isinstance(top, int) else 0
        if fault is Fault.SHORT_LOGPROBS:
            self.top = min(self.top, 5)
        options = body.get("stream_options")
        options = options if isinstance(options, dict) else {}
        self.include_usage = options.get("include_usage") is True
        self.continuous = options.get("continuous_usage_stats") is True and voice.engine == "vllm"
        self.prompt_tokens = self._count(body)

    def _count(self, body: dict[str, Json]) -> int:
        """Tokens of the prompt: one for each word, and two for the tags of the next turn unless a turn stays open."""
        messages = cast("list[dict[str, Json]]", body.get("messages") or [])
        text = " ".join([str(message.get("content")) for message in messages]) + str(body.get("prompt") or "")
        open_turn = body.get("continue_final_message") is True and self.voice.engine == "vllm"
        return len(text.split()) + (0 if open_turn else 2)

    def _chunk(self, choices: list[Json], number: int | None = None) -> dict[str, Json]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        out: dict[str, Json] = {"id": self.voice.answer_id, "object": kind, "created": 1, "model": self.voice.model}
        out["choices"] = choices
        if self.continuous and number is not None:
            out["usage"] = self._usage(number)
        return out

    def _usage(self, completion: int) -> dict[str, Json]:
        total = self.prompt_tokens + completion
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": completion, "total_tokens": total}

    def event(self, value: Json) -> bytes:
        """One event of a stream."""
        # Compact JSON, as real servers send it.
        return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"

    def error(self, message: str) -> Json:
        """An error in a stream."""
        return {"error": {"message": message, "type": "server_error", "code": 500}}

    def begin(self) -> list[Json]:
        """The events before the first token."""
        return [self.role()] if self.chat else []

    def events_of(self, tokens: list[tuple[str, int, bool]]) -> list[Json]:
        """The events with some tokens."""
        return [self.tokens(tokens)]

    def end(self, finish: str, completion: int) -> list[Json]:
        """The events after the last token."""
        return [self.last(finish), *([self.usage(completion)] if self.include_usage else [])]

    def role(self) -> dict[str, Json]:
        """The first event of a chat."""
        return self._chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}], 0)

    def _texts(self, tokens: list[tuple[str, int, bool]]) -> dict[str, Json]:
        """Field → its text; the thought may have a field of its own."""
        if self.voice.delta is not None and self.voice.reasoning_field is not None:
            text, _, thought = tokens[-1]
            return self.voice.delta(text, thought)
        texts: dict[str, str] = {}
        for text, _, thought in tokens:
            field = self.voice.reasoning_field if thought and self.voice.reasoning_field else "content"
            texts[field] = texts.get(field, "") + text
        return {**texts}

    def tokens(self, tokens: list[tuple[str, int, bool]]) -> dict[str, Json]:
        """The event with some tokens: text, number, and whether the token belongs to the thought."""
        row: dict[str, Json] = {"index": 0, "finish_reason": None, "vendor": {"kept": 1}}
        row |= {"delta": self._texts(tokens)} if self.chat else {"text": "".join([text for text, _, _ in tokens])}
        if self.wants:
            row["logprobs"] = self._logprobs(tokens)
        return self._chunk([row], tokens[-1][1] + 1)

    def last(self, finish: str) -> dict[str, Json]:
        """The event with the finish reason."""
        row: dict[str, Json] = {"index": 0, "finish_reason": finish}
        row |= {"delta": dict[str, Json]()} if self.chat else {"text": ""}
        return self._chunk([row])

    def usage(self, completion: int) -> dict[str, Json]:
        """The event with the token counts."""
        return self._chunk([]) | {"usage": self._usage(completion)}

    def whole(self, tokens: list[tuple[str, bool]], finish: str, *, echo: str) -> dict[str, Json]:
        """A complete answer; each token has a flag: whether it belongs to the thought."""
        numbered = [(text, number, thought) for number, (text, thought) in enumerate(tokens)]
        empty: dict[str, Json] = {"content": "", self.voice.reasoning_field or "content": ""}
        texts = empty | self._texts(numbered)
        texts["content"] = f"{echo}{texts['content']}"
        row: dict[str, Json] = {"index": 0, "finish_reason": finish}
        text = echo + "".join([text for text, _ in tokens])
        row |= {"message": {"role": "assistant", **texts}} if self.chat else {"text": text}
        if self.wants:
            row["logprobs"] = self._logprobs(numbered)
        kind = "chat.completion" if self.chat else "text_completion"
        return self._chunk([row]) | {"object": kind, "usage": self._usage(len(tokens))}

    def _logprobs(self, tokens: list[tuple[str, int, bool]]) -> Json:
        rows = [(text, sorted(self.voice.row(number), reverse=True)[: max(self.top, 1)]) for text, number, _ in tokens]
        if self.chat or self.voice.engine == "llama.cpp":
            apart = [self.chat and self.voice.logprobs_apart and thought for _, _, thought in tokens]
            lists: dict[str, Json] = {
                "content": [_entry(*row) for row, own in zip(rows, apart, strict=True) if not own],
            }
            if self.voice.logprobs_apart:
                lists["reasoning_content"] = [_entry(*row) for row, own in zip(rows, apart, strict=True) if own]
            return lists
        return {
            "tokens": [text for text, _ in rows],
            "token_logprobs": [row[0] for _, row in rows],
            "top_logprobs": [
                {f"{text}#{at}" if at else text: value for at, value in enumerate(row)} for text, row in rows
            ],
            "text_offset": [0 for _ in rows],
        }


def _entry(text: str, row: Sequence[float]) -> Json:
    tops: list[Json] = [
        {"token": f"{text}#{at}" if at else text, "bytes": None, "logprob": value if math.isfinite(value) else -9999.0}
        for at, value in enumerate(row)
    ]
    return {"token": text, "bytes": list(text.encode()), "logprob": row[0], "top_logprobs": tops}
