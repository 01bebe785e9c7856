"""Where the thought of a chat comes whose prompt opens it: in the text, or in a field of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from justenough.errors import BackendRejected
from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.upstream.capability import QUESTION, Capabilities, NotProbed, call, call_aside, is_busy
from justenough.gateway.upstream.client import Upstream
from justenough.signal.thought import opened_by
from justenough.wire.events import EventReader, is_end
from justenough.wire.lenient import read_chunk


async def with_apart(
    upstream: Upstream, known: Capabilities, *, opened: bool = False, headers: RawHeaders
) -> Capabilities:
    """The capabilities, and in them whether an open thought has a field; the server generates one token.

    It is asked only if the prompt opens the thought, or the operator says so (`opened`). Where nothing is certain, the
    thought has a field: then a text is never taken for a thought.
    """
    if not opened and opened_by(known.prompt_end) is None:
        return known
    model = {} if known.probed_model is None else {"model": known.probed_model}
    try:
        apart = await is_apart(upstream, model, headers=headers)
    except Refused:
        return replace(known, apart=True, doubtful=True)
    return replace(known, apart=apart, probe_tokens=known.probe_tokens + 1)


async def is_apart(
    upstream: Upstream, members: Mapping[str, object], *, headers: RawHeaders, aside: bool = False
) -> bool:
    """Whether the first token of a chat with these members is not in its text; raises `Refused`.

    `aside`: whether it is asked by `call_aside`.

    A server that has a field for the thought also takes away its closing tag. So an answer after an empty thought, or
    one whose thought the client does not want to see, looks like a thought that the prompt has opened.
    """
    body = {**members, "messages": QUESTION, "max_tokens": 1, "temperature": 0, "stream": True}
    ask = call_aside if aside else call
    status, answer = await ask(upstream, "POST", "/v1/chat/completions", headers=headers, body=body)
    if is_busy(status):
        raise NotProbed(status)
    try:
        chunks = [read_chunk(payload) for payload in EventReader().feed_bytes(answer) if not is_end(payload)]
    except BackendRejected:
        return True
    choices = [chunk.choice for chunk in chunks if chunk.choice is not None]
    return any(choice.reasoning for choice in choices) or not any(choice.content for choice in choices)
