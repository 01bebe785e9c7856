"""Elicits the answer after a cut: the same model continues from its closed thought."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import aiohttp
import msgspec

from justenough.gateway.exchange import Refused
from justenough.gateway.fields import LENGTHS
from justenough.gateway.serve.cutting import after_cut, least_tokens
from justenough.gateway.serve.work import Job
from justenough.gateway.stream.events import KeepAlive, Payloads, batches, decoded, read, stream_of
from justenough.gateway.upstream.capability import rendered
from justenough.signal.thought import ANY, THINK, ThoughtFormat, opened_by
from justenough.trace import Json
from justenough.wire.chunks import OddChunk, Usage
from justenough.wire.logprobs import entries_of
from justenough.wire.others import is_answer, others_of

UNNAMED: Final[Mapping[str, object]] = {"request_id": None, "rid": None}
"""Without the names that clients give their requests: vLLM and SGLang refuse a second request of the same name while
the first one is under way, and some versions hang."""
ANY_NUMBER: Final = 1 << 40
"""More tokens than any limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Where a generation was cut."""

    text: str
    """The thought up to the cut, with its opening tag if that was part of the text."""
    separate: bool
    """Whether the thought came in a field of its own."""
    tokens: int
    format: ThoughtFormat = THINK


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the answer."""

    text: str
    logprobs: Json = None
    finish: str | None = None
    usage: Usage | None = None
    tokens: int | None = None
    """Number of its tokens; None without log-probabilities."""
    unreadable: str = ""
    """Why the event cannot be read; the answer ends with it."""
    size: int = 0
    """Bytes of that event and of those that arrived with it."""
    foreign: bool = False
    """Whether the event is no chunk."""
    others: Mapping[str, Json] = field(default_factory=dict)
    """Other members of the message, such as a refusal or images, and parts of its content that are no texts."""

    @property
    def delta(self) -> dict[str, Json]:
        """The members of a chat's delta."""
        parts = self.others.get("content")
        if not self.text:
            return {**self.others}
        text: Json = [{"type": "text", "text": self.text}, *parts] if isinstance(parts, list) else self.text
        return {**self.others, "content": text}

    @property
    def has_output(self) -> bool:
        """Whether it brings a text or another part of the answer."""
        return bool(self.text) or is_answer(self.others)

    @property
    def counted(self) -> int:
        """Tokens that it holds for certain."""
        return self.has_output if self.tokens is None else self.tokens

    @property
    def unseen(self) -> int:
        """Tokens that it may hold beyond the first one: a token has at least one byte."""
        if self.tokens is not None:
            return 0
        return self.size or max(0, len(self.text.encode(errors="replace")) - 1)


class Tally:
    """Counts the tokens of one elicited answer."""

    def __init__(self) -> None:
        self.usage = Usage()
        """The last counts of the upstream."""
        self.pieces = 0
        """Tokens of the pieces so far."""
        self.unseen = 0
        """Tokens that may exist beyond those counted."""

    def take(self, piece: Piece) -> None:
        """Take the next piece."""
        self.pieces += piece.counted
        self.unseen += piece.unseen
        self.usage = later(self.usage, piece.usage)
        if piece.usage is not None and piece.usage.completion_tokens is not None:
            self.unseen = 0

    @property
    def tokens(self) -> int:
        """Tokens so far, the larger of both counts."""
        return max(self.pieces, self.usage.completion_tokens or 0)

    @property
    def total(self) -> int:
        """Tokens of the whole answer, by the upstream's own count if there is one."""
        return self.usage.completion_tokens or self.pieces


def later(before: Usage, usage: Usage | None) -> Usage:
    """The counts after another usage; what it does not tell stays."""
    if usage is None:
        return before
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return Usage(
        prompt_tokens=before.prompt_tokens if prompt is None else prompt,
        completion_tokens=before.completion_tokens if completion is None else completion,
    )


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request for the upstream."""

    target: str
    body: bytes
    echo: str = ""
    """Text that the server repeats before it continues."""


class Echo:
    """Removes the text that a server repeats before it continues."""

    def __init__(self, text: str = "") -> None:
        self._text, self._received = text, ""

    def without(self, piece: str, *, last: bool) -> str | None:
        """The new part of a piece; None as long as everything may be the repetition."""
        if not self._text:
            return piece
        self._received += piece
        if self._received != self._text and self._text.startswith(self._received) and not last:
            return None
        new, self._text = self._received.removeprefix(self._text), ""
        return new


async def elicit(job: Job, cut: Cut, *, logprobs: bool, keep_alive: KeepAlive | None = None) -> AsyncIterator[Piece]:
    """Close the thought and stream the answer; raises `Refused` if the upstream does not finish it."""
    request, prompts = after_cut(job.request, cut.tokens), job.settings.prompts.with_thought(cut.format)
    job = replace(job, request=request)
    # The tag that the server took away, or that only the prompt has, is a part of the message of the assistant.
    lacks_tag = cut.separate or (cut.format.opened and request.kind == "chat")
    thought = cut.format.with_tag(cut.text) if lacks_tag else cut.text
    closed = f"{thought}{prompts.close}{prompts.answer}"
    left = None if request.max_tokens is None else max(1, request.max_tokens - cut.tokens)
    sent = await continuation(job, closed, left=left, top=request.top_logprobs if logprobs else None)
    # The cue is part of the prompt. For the client it is the beginning of the answer, once there is an answer.
    cue, echo, begun, finished, foreign = prompts.answer, Echo(sent.echo), False, False, False
    headers = job.exchange.headers_for_further_request
    async with job.upstream.open("POST", sent.target, headers=headers, body=sent.body) as response:
        stream, _ = await stream_of(response)
        if stream is None:
            yield Piece("", size=unread_whole(response))
            raise _failed(f"with status {response.status}")
        received = Payloads(limit=job.settings.limits.max_event_bytes)
        async for batch in batches(stream, received, keep_alive=keep_alive):
            for number, payload in enumerate(batch):
                piece = piece_of(payload)
                foreign = piece.foreign
                if piece.unreadable and finished:
                    # Nothing of the text follows.
                    continue
                if piece.unreadable:
                    yield replace(piece, size=sum(map(len, batch[number:])))
                    raise _failed(f"with {piece.unreadable}")
                text = echo.without(piece.text, last=piece.finish is not None)
                if text is None and not piece.others:
                    continue
                text = text or ""
                if cue and (text or piece.finish is not None):
                    yield Piece(cue, tokens=0)
                    cue = ""
                piece = replace(piece, text=text)
                begun, finished = begun or piece.has_output, finished or piece.finish is not None
                yield piece
    if not finished:
        if foreign or not (begun and received.done):
            raise _failed("without an end")
        yield Piece("", finish="stop")


async def continuation(job: Job, text: str, *, left: int | None, top: int | None) -> UpstreamRequest:
    """The request with which the model continues from `text`, in the way that works with this upstream.

    `left`: completion tokens, if they are limited; `top`: log-probabilities per token, None for none.
    """
    request, capabilities = job.request, job.capabilities
    target = request.place.target(
        "chat" if request.kind == "chat" and capabilities.chat != "template" else "completion"
    )
    changed = {**common_members(job, left), **UNNAMED}
    if top is None:
        changed |= {"logprobs": None, "top_logprobs": None}
    if request.kind == "completion":
        prompt = msgspec.json.decode(request.fields["prompt"], type=str)
        if top is not None:
            changed["logprobs"] = top
        return UpstreamRequest(target, request.with_fields(**changed, prompt=prompt + text))
    if capabilities.chat == "template":
        prompt_of_chat = await rendered(
            job.upstream, capabilities.engine, request.fields, headers=job.exchange.headers_for_further_request
        )
        if prompt_of_chat is None:
            # Without the question the model would continue from a thought alone.
            raise _failed("by not giving the prompt of the chat")
        # Some templates open the thought in the prompt. Then the text must not open it again.
        if opened := opened_by(prompt_of_chat, (job.formats.thought, *job.formats.others, *ANY)):
            text = text.removeprefix(opened.open).lstrip("\n")
        if "max_completion_tokens" in changed:
            changed["max_tokens"] = changed["max_completion_tokens"]
        changed |= {"messages": None, "max_completion_tokens": None, "top_logprobs": None}
        if capabilities.engine == "vllm":
            # The template already begins with the special token.
            changed["add_special_tokens"] = False
        if top is not None:
            changed["logprobs"] = top
        return UpstreamRequest(target, request.with_fields(**changed, prompt=prompt_of_chat + text))
    if top is not None:
        changed |= {"logprobs": True, "top_logprobs": top}
    messages = msgspec.json.decode(request.fields["messages"], type=list[msgspec.Raw])
    message = msgspec.Raw(msgspec.json.encode({"role": "assistant", "content": text}))
    if capabilities.chat == "continue_final_message":
        changed |= {"continue_final_message": True, "add_generation_prompt": False}
    body = request.with_fields(**changed, messages=[*messages, message])
    return UpstreamRequest(target, body, text if capabilities.chat == "prefill" else "")


def common_members(job: Job, left: int | None) -> dict[str, object]:
    """The members of every further request; `left`: completion tokens, if they are limited."""
    members: dict[str, object] = {"stream": True, "stream_options": {"include_usage": True}}
    if left is not None:
        members |= {key: left for key in LENGTHS if key in job.request.fields}
        # vLLM refuses a request whose least number of tokens is above its limit.
        if (least_tokens(job.request.fields) or 0) > left:
            members["min_tokens"] = left
    return members


def unread_whole(response: aiohttp.ClientResponse) -> int:
    """Tokens that may have been generated for an answer that should be a stream: any number if it is JSON."""
    return ANY_NUMBER if response.status == 200 and response.content_type == "application/json" else 0


def piece_of(payload: bytes) -> Piece:
    """The piece of the answer in an event; raises `Refused` if it cannot be read."""
    try:
        chunk = read(payload)
    except Refused as refused:
        if refused.code == "upstream_error":
            raise _failed("with an error") from refused
        return Piece("", unreadable="something that is not JSON")
    if isinstance(chunk, OddChunk) and chunk.complaint:
        return Piece("", unreadable="something that is not a chunk")
    choice = chunk.choice
    if choice is None:
        return Piece("", usage=chunk.usage, foreign=chunk.is_foreign)
    if choice.has_call:
        return Piece("", unreadable="a call of a tool")
    # The thought is closed. A server that still reports reasoning is wrong, so this is the answer too.
    text = "".join(choice.texts(apart=False))
    logprobs = decoded(choice.logprobs) if choice.logprobs else None
    tokens = len(entries_of(choice.logprobs) or ()) or None
    return Piece(text, logprobs, choice.finish_reason, chunk.usage, tokens=tokens, others=others_of(payload))


def _failed(how: str) -> Refused:
    return Refused(502, f"the thought was stopped, but the upstream ended its answer {how}", code="continuation_failed")
