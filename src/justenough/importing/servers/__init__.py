"""Replies of model servers: one module for each form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from justenough.importing.recording import Recording
from justenough.importing.servers import gemini, llamacpp, ollama, openai, responses, sglang, vllm
from justenough.trace import Json


class Form(NamedTuple):
    """How one kind of record is recognised and read."""

    looks_like: Callable[[dict[str, Json]], bool]
    read: Callable[[dict[str, Json]], list[Recording]]
    """The replies of the record; raises `TraceFormatError` for a record without a usable reply."""


SERVERS: Final[Mapping[str, Form]] = MappingProxyType(
    {
        "openai": Form(openai.looks_like, openai.read),
        "responses": Form(responses.looks_like, responses.read),
        "vllm": Form(vllm.looks_like, vllm.read),
        "sglang": Form(sglang.looks_like, sglang.read),
        "llamacpp": Form(llamacpp.looks_like, llamacpp.read),
        "ollama": Form(ollama.looks_like, ollama.read),
        "gemini": Form(gemini.looks_like, gemini.read),
    }
)
"""Name → form of a reply."""


def server_of(value: Json) -> str | None:
    """The name of the form of a reply; None if it has none of them."""
    if not isinstance(value, dict):
        return None
    return next((name for name, form in SERVERS.items() if form.looks_like(value)), None)
