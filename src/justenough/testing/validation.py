"""Validation of requests, as a server does it that follows the protocols."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from justenough.wire.values import UNREADABLE

_Whole = Annotated[float, msgspec.Meta(multiple_of=1)] | None
"""In JSON, `5.0` is a whole number too."""
_Count = Annotated[float, msgspec.Meta(ge=1, multiple_of=1)] | None
_Token = Annotated[float, msgspec.Meta(multiple_of=1)]
_Top = Annotated[float, msgspec.Meta(ge=0, le=20, multiple_of=1)]


class _Part(msgspec.Struct):
    type: str


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _Format(msgspec.Struct):
    type: str | None = None


class _Options(msgspec.Struct):
    include_usage: bool | None = None


class _Common(msgspec.Struct, kw_only=True):
    model: str | None = None
    stream: bool | None = None
    stream_options: _Options | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    max_tokens: _Whole = None
    max_completion_tokens: _Whole = None
    n_predict: _Whole = None
    n: _Count = None
    best_of: _Count = None
    n_cmpl: _Count = None


class _Chat(_Common, kw_only=True):
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: _Top | None = None
    response_format: _Format | None = None
    modalities: list[str] | None = None


class _Completion(_Common, kw_only=True):
    prompt: str | Annotated[list[str | _Token | list[_Token]], msgspec.Meta(min_length=1)]
    logprobs: bool | _Top | None = None


class _Responses(_Common, kw_only=True):
    input: str | list[_Message]
    instructions: str | None = None
    max_output_tokens: _Whole = None


class _Messages(_Common, kw_only=True):
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    max_tokens: Annotated[float, msgspec.Meta(ge=1, multiple_of=1)]


class _OllamaOptions(msgspec.Struct):
    num_predict: _Whole = None


class _Ollama(msgspec.Struct):
    model: str
    stream: bool | None = None
    options: _OllamaOptions | None = None
    logprobs: bool | None = None
    top_logprobs: _Top | None = None


class _OllamaChat(_Ollama):
    messages: list[_Message] | None = None


class _OllamaGenerate(_Ollama):
    prompt: str | None = None


PATHS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "/v1/chat/completions": _Chat,
    "/v1/completions": _Completion,
    "/v1/responses": _Responses,
    "/v1/messages": _Messages,
    "/api/chat": _OllamaChat,
    "/api/generate": _OllamaGenerate,
}


def complaint(path: str, body: bytes) -> str | None:
    """The reason why a request is not valid; None if it is valid."""
    try:
        msgspec.json.decode(body, type=PATHS[path])
    except UNREADABLE as error:
        return str(error)
    return None
