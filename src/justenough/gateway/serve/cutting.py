"""What a cut means for members of the request that speak of the whole answer."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from justenough.gateway.fields import Fields, whole_of
from justenough.gateway.request import CompletionRequest
from justenough.wire.values import UNREADABLE, read_or_none


def after_cut(request: CompletionRequest, tokens: int) -> CompletionRequest:
    """The request for the rest of an answer with so many tokens before the cut.

    The least number of tokens is for the whole answer. With `echo`, vLLM would repeat the thought before the rest.
    """
    changed: dict[str, object] = {"echo": None} if "echo" in request.fields else {}
    least = least_tokens(request.fields)
    if least is not None:
        changed["min_tokens"] = max(0, least - tokens)
    if not changed:
        return request
    return replace(request, fields=msgspec.json.decode(request.with_fields(**changed), type=dict[str, msgspec.Raw]))


def least_tokens(fields: Fields) -> int | None:
    """The least number of tokens that a request wants; None if it wants none, or it cannot be read."""
    try:
        return whole_of(fields, "min_tokens")
    except UNREADABLE:
        return None


def stops_within(request: CompletionRequest, closing: str) -> bool:
    """Whether a stop sequence may begin or end in the closing text.

    The server looks for stop sequences only in what it generates, and the gateway writes the closing text.
    """
    value = request.fields.get("stop")
    if value is None:
        return False
    one = read_or_none(value, str)
    stops = read_or_none(value, list[str]) or [] if one is None else [one]
    return any(
        stop in closing or closing in stop or _overlap(stop, closing) or _overlap(closing, stop)
        for stop in stops
        if stop
    )


def _overlap(before: str, after: str) -> bool:
    """Whether an end of one text is a beginning of the other."""
    return any(after.startswith(before[-size:]) for size in range(1, min(len(before), len(after)) + 1))
