"""Replies of SGLang's `/generate` and of its offline engine.

Source: sglang, `srt/managers/tokenizer_manager.py` (`convert_logprob_style`): `meta_info.output_token_logprobs` has
`[logprob, token id, text or null]` for each token, `meta_info.output_top_logprobs` a list of these, or null.
"""

from __future__ import annotations

from justenough.importing.members import first, inside, items, named, text
from justenough.importing.recording import Recording, choice, entry, usage
from justenough.trace import Json


def looks_like(value: dict[str, Json]) -> bool:
    """Whether this is one reply."""
    return isinstance(value.get("meta_info"), dict)


def read(value: dict[str, Json]) -> list[Recording]:
    """The reply, which has one choice."""
    meta = value.get("meta_info")
    reason = inside(meta, "finish_reason")
    return [
        Recording(
            choices=[
                choice(
                    text(value.get("text")),
                    _entries(meta),
                    finish=inside(reason, "type") if isinstance(reason, dict) else reason,
                    index=0,
                )
            ],
            usage=usage(inside(meta, "prompt_tokens"), inside(meta, "completion_tokens")),
            id=named(first(meta, "id")),
            model=named(first(value, "model")),
            ask="return_logprob: true, top_logprobs_num: 20, return_text_in_logprobs: true",
        )
    ]


def _entries(meta: Json) -> list[Json]:
    own = items(inside(meta, "output_token_logprobs"))
    tops = items(inside(meta, "output_top_logprobs")) or [None] * len(own)
    return [
        entry(_at(token, 2), _at(token, 0), [_at(alternative, 0) for alternative in items(row)])
        for token, row in zip(own, tops, strict=False)
    ]


def _at(value: Json, place: int) -> Json:
    return value[place] if isinstance(value, list) and place < len(value) else None
