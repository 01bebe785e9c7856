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
from justenough.gateway.upstream.apart import is_apart
from justenough.gateway.upstream.capability import END, QUESTION, Capabilities, rendered
from justenough.gateway.upstream.client import Upstream
from justenough.signal.thought import ANY, THINK, ThoughtFormat, opened_by

SHAPING: Final = ("chat_template", "chat_template_kwargs")
"""Members with which a client decides whether the chat template opens the thought."""
_SWITCHES: Final = (
    *("reasoning_effort", "enable_thinking", "think", "thinking", "reasoning"),
    *("thinking_budget", "thinking_budget_tokens", "thinking_token_budget", "reasoning_budget"),
    "reasoning_budget_tokens",
)
"""Members with which a client turns the thought off, at one server or another; without tokens, there is none."""
_OFF: Final = re.compile(rb'false|"none"|disabled|(?<![\w.+-])0(?:\.0*)?(?![\w.])')
_SPOKEN: Final = (b"/no_think", b"/nothink", b"thinking off")
"""Words in a message with which a client turns the thought off, in the templates of Nemotron, Qwen and GLM."""
_IN_TEXT: Final = b'"none"'
"""With this `reasoning_format`, llama.cpp leaves the thought in the text."""
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
    elif _is_off(request):
        end, thought = None, replace(thought, opened=False)
    elif any(key in request.fields for key in SHAPING):
        end = await _end_of_prompt(request, capabilities, upstream, headers=headers)
        thought = replace(thought, opened=False)
    elif capabilities.apart and not (
        capabilities.engine == "llama.cpp" and bytes(request.fields.get("reasoning_format", b"")) == _IN_TEXT
    ):
        end, thought = None, replace(thought, opened=False)
    else:
        end = capabilities.prompt_end
    known = chosen is not None or capabilities.thought is not None
    return _after((end or "").rstrip()[-END:], thought, alone=settings.thought is not None, known=known)


def _is_off(request: CompletionRequest) -> bool:
    """Whether the client turns the thought off, by a member or in words that a chat template knows."""
    messages = bytes(request.fields.get("messages", b""))
    switched = any(_OFF.search(request.fields.get(key, b"")) for key in _SWITCHES)
    return switched or any(word in messages for word in _SPOKEN)


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
    names: tuple[str, ...] = ("model", *SHAPING)
    members = {key: request.fields[key] for key in names if key in request.fields}
    key, ends = hashlib.sha256(msgspec.json.encode(members)).digest(), capabilities.ends
    if key not in ends:
        chat = members | {"messages": msgspec.Raw(msgspec.json.encode(QUESTION))}
        try:
            prompt = await rendered(upstream, capabilities.engine, chat, headers=headers, aside=True)
            if prompt and opened_by(prompt) and await is_apart(upstream, members, headers=headers, aside=True):
                prompt = ""
        except Refused:
            return None
        if len(ends) >= _MOST_ENDS:
            ends.clear()
        ends[key] = prompt and prompt[-END:]
    return ends[key]
