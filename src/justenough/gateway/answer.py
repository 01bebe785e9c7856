"""The answer after a thought that was cut: the same model goes on from its closed thought."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

import msgspec

from justenough.gateway.asked import LENGTHS, Asked
from justenough.gateway.capability import Capabilities, rendered
from justenough.gateway.events import batches, is_events
from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream import Upstream
from justenough.gateway.watch import OPEN
from justenough.trace import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Where a generation was cut."""

    text: str
    """All that was thought until then; with its opening tag where that was part of the text."""
    separate: bool
    """Whether the thought came in a field of its own."""
    tokens: int
    """Completion tokens received."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the answer."""

    text: str
    logprobs: Json
    finish: str | None
    usage: dict[str, Json] | None


async def elicit(
    upstream: Upstream,
    settings: GatewaySettings,
    capabilities: Capabilities,
    asked: Asked,
    cut: Cut,
    *,
    headers: RawHeaders,
    logprobs: bool,
) -> AsyncIterator[Piece]:
    """Close the thought and stream what the model then says; raises `Refused` where it does not finish."""
    closed = f"{cut.text}{settings.close}{settings.answer_cue}"
    if cut.separate:
        closed = f"{OPEN}\n{closed}"
    target, body = await _request(upstream, capabilities, asked, cut, closed, headers=headers, logprobs=logprobs)
    echo = closed if capabilities.chat == "prefill" and target == "/v1/chat/completions" else ""
    if settings.answer_cue:
        # The cue stands in the prompt; to the client it is the beginning of the answer.
        yield Piece(settings.answer_cue, None, None, None)
    held, finished = "", False
    async with upstream.open("POST", target, headers=headers, body=body) as response:
        if response.status != 200 or not is_events(response):
            raise _failed(f"with status {response.status}")
        async for batch in batches(response, limit=settings.limits.max_event_bytes):
            for payload in batch:
                piece = _piece(payload)
                if echo:
                    held += piece.text
                    if echo.startswith(held) and piece.finish is None and held != echo:
                        continue
                    piece = Piece(held.removeprefix(echo), piece.logprobs, piece.finish, piece.usage)
                    echo = ""
                finished = finished or piece.finish is not None
                yield piece
    if not finished:
        raise _failed("without an end")


async def _request(
    upstream: Upstream,
    capabilities: Capabilities,
    asked: Asked,
    cut: Cut,
    closed: str,
    *,
    headers: RawHeaders,
    logprobs: bool,
) -> tuple[str, bytes]:
    changed: dict[str, object] = {"stream": True, "stream_options": {"include_usage": True}}
    if asked.max_tokens is not None:
        left = max(1, asked.max_tokens - cut.tokens)
        changed |= {key: left for key in LENGTHS if key in asked.fields}
    if not logprobs:
        changed |= {"logprobs": None, "top_logprobs": None}
    if asked.kind == "completion":
        prompt = msgspec.json.decode(asked.fields["prompt"], type=str)
        return "/v1/completions", asked.with_fields(**changed, prompt=prompt + closed)
    if capabilities.chat == "template":
        prompt = await rendered(upstream, asked.fields["messages"], headers=headers) or ""
        # Some templates open the thought in the prompt: then it is not opened again.
        text = closed.removeprefix(OPEN).lstrip("\n") if prompt.rstrip().endswith(OPEN) else closed
        if "max_completion_tokens" in changed:
            changed["max_tokens"] = changed["max_completion_tokens"]
        changed |= {"messages": None, "max_completion_tokens": None, "top_logprobs": None}
        if logprobs:
            changed["logprobs"] = asked.top_logprobs
        return "/v1/completions", asked.with_fields(**changed, prompt=prompt + text)
    messages = msgspec.json.decode(asked.fields["messages"], type=list[msgspec.Raw])
    said = msgspec.Raw(msgspec.json.encode({"role": "assistant", "content": closed}))
    if capabilities.chat == "continue_final_message":
        changed |= {"continue_final_message": True, "add_generation_prompt": False}
    return "/v1/chat/completions", asked.with_fields(**changed, messages=[*messages, said])


def _piece(payload: bytes) -> Piece:
    try:
        chunk = msgspec.json.decode(payload)
    except msgspec.MsgspecError as error:
        raise _failed("with something that is not JSON") from error
    if not isinstance(chunk, dict) or chunk.get("error"):
        raise _failed("with an error")
    usage = cast("dict[str, Json] | None", chunk.get("usage"))
    choices = chunk.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return Piece("", None, None, usage)
    row = cast("dict[str, Json]", choices[0])
    delta = row.get("delta")
    # A server that still takes it for reasoning is wrong: the thought was closed.
    source = delta if isinstance(delta, dict) else row
    text = "".join(
        value
        for key in ("reasoning_content", "reasoning", "content", "text")
        if isinstance(value := source.get(key), str)
    )
    finish = row.get("finish_reason")
    return Piece(text, row.get("logprobs"), finish if isinstance(finish, str) else None, usage)


def _failed(how: str) -> Refused:
    return Refused(
        502,
        f"the thought was stopped, and the upstream ended the answer to it {how}",
        code="continuation_failed",
        kind="upstream_error",
    )
