"""A server's own limit on a thought: a safety net for requests under a budget that the gateway does not cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.upstream.capability import Capabilities, call, is_passing
from justenough.gateway.upstream.client import Upstream

_MEMBERS: Final[Mapping[str, str]] = {"llama.cpp": "thinking_budget_tokens", "vllm": "thinking_token_budget"}
"""SGLang has none: it needs a processor that the operator allows and the client sends."""


async def with_thinking(upstream: Upstream, known: Capabilities, *, headers: RawHeaders) -> Capabilities:
    """The capabilities with the member of a chat that limits its thought; vLLM generates one token.

    llama.cpp accepts it always. vLLM refuses it unless it was started with a reasoning parser.
    """
    member = _MEMBERS.get(known.engine)
    if member is None or known.engine == "llama.cpp":
        return replace(known, thinking=member)
    body: dict[str, object] = {"messages": [{"role": "user", "content": "Say OK."}], "max_tokens": 1, member: 1}
    if known.probed_model is not None:
        body["model"] = known.probed_model
    try:
        status, answer = await call(upstream, "POST", "/v1/chat/completions", headers=headers, body=body)
    except Refused:
        return replace(known, doubtful=True)
    if is_passing(status, answer):
        return replace(known, doubtful=True)
    if status != 200:
        return known
    return replace(known, thinking=member, probe_tokens=known.probe_tokens + 1)
