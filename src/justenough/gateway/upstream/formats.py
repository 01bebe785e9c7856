"""Which formats the thought of a request may have: the configured one, the calibrated one, or one that a tag shows."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.request import CompletionRequest
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.capability import END, QUESTION, Capabilities, rendered
from justenough.gateway.upstream.client import Upstream
from justenough.signal.thought import ANY, THINK, ThoughtFormat, opened_by

SHAPING: Final = ("chat_template", "chat_template_kwargs")
"""Members with which a client decides whether the chat template opens the thought."""
_SWITCHES: Final = ("reasoning_effort", "enable_thinking", "think", "thinking", "reasoning")
"""Members with which a client turns the thought off, at one server or another."""
_OFF: Final = re.compile(rb'false|"none"|disabled')
_MOST_ENDS: Final = 64


class Formats(NamedTuple):
    """The formats that a thought may have."""

    thought: ThoughtFormat = THINK
    others: tuple[ThoughtFormat, ...] = ()
    """Further formats, which an opening tag shows."""
    known: bool = True
    """Whether `thought` is the model's own format. Only then a thought in a field of its own can be continued."""


UNCONFIGURED: Final = Formats()


async def formats_for(
    request: CompletionRequest,
    capabilities: Capabilities,
    settings: GatewaySettings,
    upstream: Upstream,
    *,
    headers: RawHeaders,
) -> Formats:
    """The formats for a request. If its prompt ends with an opening tag, the thought is open already."""
    stored = None if settings.calibration is None else settings.calibration.prompts
    chosen = settings.thought or (None if stored is None else stored.thought)
    thought = chosen or capabilities.thought or THINK
    if thought.cue:
        return Formats(thought)
    if request.kind == "completion":
        end, thought = request.problem, replace(thought, opened=False)
    elif any(_OFF.search(request.fields.get(key, b"")) for key in _SWITCHES):
        end, thought = None, replace(thought, opened=False)
    elif any(key in request.fields for key in SHAPING):
        end = await _end_of_prompt(request, capabilities, upstream, headers=headers)
        thought = replace(thought, opened=False)
    else:
        end = capabilities.prompt_end
    known = chosen is not None or capabilities.thought is not None
    return _after((end or "").rstrip()[-END:], thought, alone=settings.thought is not None, known=known)


@lru_cache(maxsize=64)
def _after(end: str, thought: ThoughtFormat, *, alone: bool, known: bool) -> Formats:
    """The formats after a prompt with this end; `alone`: whether no other is possible."""
    others = () if alone else tuple(format for format in ANY if format.tags != thought.tags)
    if opened := opened_by(end, (thought, *others)):
        return Formats(opened)
    return Formats(thought, () if thought.opened else others, known)


async def _end_of_prompt(
    request: CompletionRequest, capabilities: Capabilities, upstream: Upstream, *, headers: RawHeaders
) -> str | None:
    """How a prompt ends after a chat template that the client shapes; None if the server does not tell."""
    members = {key: request.fields[key] for key in ("model", *SHAPING) if key in request.fields}
    key, ends = hashlib.sha256(msgspec.json.encode(members)).digest(), capabilities.ends
    if key not in ends:
        chat = members | {"messages": msgspec.Raw(msgspec.json.encode(QUESTION))}
        try:
            prompt = await rendered(upstream, capabilities.engine, chat, headers=headers, aside=True)
        except Refused:
            return None
        if len(ends) >= _MOST_ENDS:
            ends.clear()
        ends[key] = prompt and prompt[-END:]
    return ends[key]
