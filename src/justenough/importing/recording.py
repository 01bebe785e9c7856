"""One recorded reply in the form of a chat completion, whatever form its file has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from justenough.importing.members import number
from justenough.trace import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A reply, or a piece of a streamed one, and what the file says about it."""

    choices: list[Json]
    """As in a chat completion or a text completion."""
    usage: Json = None
    """As in a chat completion."""
    id: str | None = None
    model: str | None = None
    seed: int | None = None
    problem: str | None = None
    temperature: float | None = None
    stream: str | None = None
    """Name of the stream that this is a piece of; None for a whole reply."""
    ends: bool = False
    """Whether this piece is the last one of its stream."""
    ask: str = "logprobs: true, top_logprobs: 20"
    """How log-probabilities are requested from this server."""
    extra: Mapping[str, Json] = field(default_factory=dict)
    """Further members of the step."""


def entry(token: Json, logprob: Json, alternatives: Iterable[Json]) -> dict[str, Json]:
    """The log-probabilities of one token in the form of a chat completion."""
    return {
        "token": token if isinstance(token, str) else "",
        "logprob": logprob,
        "top_logprobs": [{"logprob": value} for value in alternatives],
    }


def choice(
    content: str,
    entries: list[Json] | None,
    *,
    finish: Json = None,
    reasoning: str = "",
    index: int = 0,
    tool_calls: Json = None,
) -> dict[str, Json]:
    """A choice of a chat completion."""
    return {
        "index": index,
        "message": {"content": content, "reasoning_content": reasoning, "tool_calls": tool_calls or []},
        "logprobs": {"content": entries} if entries else None,
        "finish_reason": finish if isinstance(finish, str) else None,
    }


def usage(prompt: Json, completion: Json) -> Json:
    """The usage of a chat completion."""
    return {"prompt_tokens": prompt, "completion_tokens": completion}


def logarithm(probability: Json) -> float | None:
    """The natural logarithm of a probability; None for 0, and for what is no probability."""
    value = number(probability)
    return math.log(value) if value is not None and value > 0 else None
