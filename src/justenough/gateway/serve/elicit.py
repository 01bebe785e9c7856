"""The answer after a thought that was cut: the same model goes on from its closed thought."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.request import LENGTHS, Asked
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.stream.events import KeepAlive, batches, decoded, is_events, read
from justenough.gateway.upstream.capability import Capabilities, rendered
from justenough.gateway.upstream.client import Upstream
from justenough.thought import ThoughtFormat
from justenough.trace import Json
from justenough.wire import OddChunk, Usage


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
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Asking:
    """A request to be made."""

    target: str
    body: bytes
    echo: str = ""
    """What the server repeats of it before it goes on."""


async def elicit(
    upstream: Upstream,
    settings: GatewaySettings,
    capabilities: Capabilities,
    asked: Asked,
    cut: Cut,
    *,
    headers: RawHeaders,
    logprobs: bool,
    keep_alive: KeepAlive | None = None,
) -> AsyncIterator[Piece]:
    """Close the thought and stream what the model then says; raises `Refused` where it does not finish."""
    prompts = settings.prompts
    # Some servers leave the tag in the field of its own.
    thought = prompts.thought.with_tag(cut.text) if cut.separate else cut.text
    closed = f"{thought}{prompts.close}{prompts.answer}"
    left = None if asked.max_tokens is None else max(1, asked.max_tokens - cut.tokens)
    top = asked.top_logprobs if logprobs else None
    asking = await continuation(
        upstream, capabilities, asked, closed, thought=prompts.thought, headers=headers, left=left, top=top
    )
    target, body, echo = asking.target, asking.body, asking.echo
    if prompts.answer:
        # The cue stands in the prompt; to the client it is the beginning of the answer.
        yield Piece(prompts.answer, None, None, None)
    held, finished = "", False
    async with upstream.open("POST", target, headers=headers, body=body) as response:
        if response.status != 200 or not is_events(response):
            raise _failed(f"with status {response.status}")
        async for batch in batches(response, limit=settings.limits.max_event_bytes, keep_alive=keep_alive):
            for payload in batch:
                piece = piece_of(payload)
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


async def continuation(
    upstream: Upstream,
    capabilities: Capabilities,
    asked: Asked,
    said: str,
    *,
    thought: ThoughtFormat,
    headers: RawHeaders,
    left: int | None,
    top: int | None,
) -> Asking:
    """The request by which the model goes on from what it has said, in the way that the probe has found to work.

    `left`: completion tokens, where they are bounded; `top`: log-probabilities wanted, None for none.
    """
    changed: dict[str, object] = {"stream": True, "stream_options": {"include_usage": True}}
    if left is not None:
        changed |= {key: left for key in LENGTHS if key in asked.fields}
    if top is None:
        changed |= {"logprobs": None, "top_logprobs": None}
    if asked.kind == "completion":
        prompt = msgspec.json.decode(asked.fields["prompt"], type=str)
        if top is not None:
            changed["logprobs"] = top
        return Asking("/v1/completions", asked.with_fields(**changed, prompt=prompt + said))
    if capabilities.chat == "template":
        told = await rendered(upstream, capabilities.engine, asked.fields, headers=headers)
        if told is None:
            # Without the question the model would go on from nothing but a thought.
            raise _failed("by not saying what prompt it makes of the chat")
        # Some templates open the thought in the prompt: then it is not opened again.
        opening = thought.open
        text = said.removeprefix(opening).lstrip("\n") if opening and told.rstrip().endswith(opening) else said
        if "max_completion_tokens" in changed:
            changed["max_tokens"] = changed["max_completion_tokens"]
        changed |= {"messages": None, "max_completion_tokens": None, "top_logprobs": None}
        if capabilities.engine == "vllm":
            # The template has begun the text already.
            changed["add_special_tokens"] = False
        if top is not None:
            changed["logprobs"] = top
        return Asking("/v1/completions", asked.with_fields(**changed, prompt=told + text))
    if top is not None:
        changed |= {"logprobs": True, "top_logprobs": top}
    messages = msgspec.json.decode(asked.fields["messages"], type=list[msgspec.Raw])
    message = msgspec.Raw(msgspec.json.encode({"role": "assistant", "content": said}))
    if capabilities.chat == "continue_final_message":
        changed |= {"continue_final_message": True, "add_generation_prompt": False}
    body = asked.with_fields(**changed, messages=[*messages, message])
    return Asking("/v1/chat/completions", body, said if capabilities.chat == "prefill" else "")


def piece_of(payload: bytes) -> Piece:
    """The piece of the answer that an event holds; raises `Refused` where it cannot be read."""
    try:
        chunk = read(payload)
    except Refused as refused:
        raise _failed(
            "with an error" if refused.code == "upstream_error" else "with something that is not JSON"
        ) from refused
    if isinstance(chunk, OddChunk) and chunk.complaint:
        raise _failed("with something that is no chunk")
    choice = chunk.choice
    if choice is None:
        return Piece("", None, None, chunk.usage)
    # A server that still takes it for reasoning is wrong: the thought was closed.
    text = choice.reasoning + choice.content
    return Piece(text, decoded(choice.logprobs) if choice.logprobs else None, choice.finish_reason, chunk.usage)


def _failed(how: str) -> Refused:
    return Refused(
        502,
        f"the thought was stopped, and the upstream ended the answer to it {how}",
        code="continuation_failed",
        kind="upstream_error",
    )
