"""Replies of llama.cpp's `/completion`, whole or as pieces of a stream.

Source: llama.cpp, `tools/server/server.cpp` (`completion_token_output::probs_vector_to_json`). Each entry of
`completion_probabilities` has `logprob` and `top_logprobs`; with `post_sampling_probs` it has `prob` and `top_probs`;
before December 2024 it had `content` and `probs`, a list of `tok_str` and `prob`.
"""

from __future__ import annotations

from justenough.importing.members import first, inside, named, objects, text
from justenough.importing.recording import Recording, choice, entry, logarithm, usage
from justenough.trace import Json


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
                    [_entry(item) for item in objects(value.get("completion_probabilities"))],
                    finish=None if not stopped else "length" if cut else "stop",
                )
            ],
            usage=usage(value.get("tokens_evaluated"), value.get("tokens_predicted")),
            model=named(first(value, "model")) or named(inside(value, "generation_settings", "model")),
            problem=text(value.get("prompt")) or None,
            # The last piece of a stream is empty.
            stream=f"llama.cpp {first(value, 'id_slot', 'slot_id')}" if not stopped or not content else None,
            ends=stopped,
            ask="n_probs: 20",
        )
    ]


def _entry(item: dict[str, Json]) -> Json:
    tops = objects(first(item, "top_logprobs", "top_probs", "probs"))
    token = first(item, "token", "content")
    plain = entry(token, _logprob(item), [_logprob(top) for top in tops])
    if "probs" in item:
        own = next((top for top in tops if top.get("tok_str") == token), None)
        plain["logprob"] = _logprob(own) if own is not None else None
    return plain | {"bytes": item.get("bytes")}


def _logprob(item: dict[str, Json]) -> Json:
    return item["logprob"] if "logprob" in item else logarithm(item.get("prob"))
