"""What the message of a chat has beside its texts, its thought and its calls of tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from justenough.trace import Json
from justenough.wire.chunks import Message, is_empty
from justenough.wire.values import read_json, read_or_none

_KNOWN: Final = frozenset(("role", *Message.__struct_fields__))
_ANSWERS: Final = ("content", "refusal", "images", "audio")
"""Other members that are an answer, or a part of one; further ones only tell something about it."""
_TEXTS: Final = ("text", "thinking", "reasoning")
"""Types of parts, and their members, that are read as texts."""


class _Choice(msgspec.Struct):
    delta: dict[str, msgspec.Raw] | None = None
    message: dict[str, msgspec.Raw] | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None


def is_answer(others: Mapping[str, Json]) -> bool:
    """Whether other members have a part of the answer."""
    return any(name in others for name in _ANSWERS)


def others_of(data: bytes) -> dict[str, Json]:
    """The other members of the first message in a chunk or an answer that say something; none if it cannot be read.

    Such members are a refusal, images and audio. `content` is among them if it is a list that also has other parts than
    texts; then it has only these parts. U+FFFD replaces bytes that are not UTF-8.
    """
    if not data.isascii():
        data = data.decode(errors="replace").encode()
    chunk = read_or_none(data, _Chunk)
    if chunk is None or not chunk.choices:
        return {}
    choice = chunk.choices[0]
    members = (choice.message if choice.delta is None else choice.delta) or {}
    out = {key: read_json(raw) for key, raw in members.items() if key not in _KNOWN and not is_empty(raw)}
    if bytes(members.get("content", b"")).startswith(b"["):
        content = read_json(members["content"])
        parts = [part for part in content if _is_other(part)] if isinstance(content, list) else []
        out |= {"content": parts} if parts else {}
    return out


def _is_other(part: Json) -> bool:
    return isinstance(part, dict) and part.get("type") not in _TEXTS and not any(key in part for key in _TEXTS)
