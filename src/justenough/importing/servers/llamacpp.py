"""Replies of llama.cpp's `/completion`, whole or as pieces of a stream.

Source: llama.cpp, `tools/server/server.cpp` (`completion_token_output::probs_vector_to_json`). Each entry of
`completion_probabilities` has `logprob` and `top_logprobs`; with `post_sampling_probs` it has `prob` and `top_probs`;
before December 2024 it had `content` and `probs`, a list of `tok_str` and `prob`.
"""

from __future__ import annotations

import math
from typing import Final

from justenough.importing.members import count, first, inside, named, number, objects, text
from justenough.importing.recording import Recording, choice, entry, logarithm, usage
from justenough.trace import Json

_WHOLE: Final = 0.999
"""Sum of probabilities from which on no token is left out."""
_MOST: Final = 1000
"""Largest number of alternatives of a token."""


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is one reply or a piece of one."""
    own = ("completion_probabilities", "tokens_predicted", "generation_settings", "id_slot", "stop")
    return isinstance(value.get("content"), str) and any(name in value for name in own)


def read(value: dict[str, Json]) -> list[Recording]:
    """The reply, which has one choice."""
    stopped = value.get("stop") is not False
    cut = value.get("stop_type") == "limit" or value.get("stopped_limit") is True
    content = text(value.get("content"))
    return [
        Recording(
            choices=[
                choice(
                    content,
                    _entries(value),
                    finish=None if not stopped else "length" if cut else "stop",
                )
            ],
            usage=usage(value.get("tokens_evaluated"), value.get("tokens_predicted")),
            model=named(first(value, "model")) or named(inside(value, "generation_settings", "model")),
            problem=text(value.get("prompt")) or None,
            temperature=number(inside(value, "generation_settings", "temperature")),
            # The last piece of a stream is empty. Only that piece names its slot.
            stream=f"llama.cpp {value.get('index')}" if not stopped or not content else None,
            ends=stopped,
            ask="n_probs: 20",
        )
    ]


def _entries(value: dict[str, Json]) -> list[Json]:
    rows = objects(value.get("completion_probabilities"))
    width = count(inside(value, "generation_settings", "n_probs")) or 0
    width = min(_MOST, max([width, *(len(_alternatives(row)) for row in rows)]))
    return [_entry(row, width) for row in rows]


def _alternatives(row: dict[str, Json]) -> list[dict[str, Json]]:
    return objects(first(row, "top_logprobs", "top_probs", "probs"))


def _entry(row: dict[str, Json], width: int) -> Json:
    tops = _alternatives(row)
    logprobs: list[Json] = [_logprob(top) for top in tops]
    # After sampling, tokens that cannot be sampled are left out: their probability is 0.
    if math.fsum(number(top.get("prob")) or 0.0 for top in tops) >= _WHOLE:
        logprobs += [None] * (width - len(tops))
    token = first(row, "token", "content")
    plain = entry(token, _logprob(row), logprobs)
    if "probs" in row:
        own = next((top for top in tops if top.get("tok_str") == token), None)
        plain["logprob"] = _logprob(own) if own is not None else None
    return plain | {"bytes": row.get("bytes")}


def _logprob(item: dict[str, Json]) -> Json:
    return item["logprob"] if "logprob" in item else logarithm(item.get("prob"))
