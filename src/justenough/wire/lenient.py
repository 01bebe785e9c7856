"""Reads chunks, also those of servers that keep to no type.

Members that do not fit are read one by one: counts given as texts or as whole floats, a text given as a list of parts,
members that are null. Only a text that cannot be read at all is a complaint; its reader then decides what to do.
"""

from __future__ import annotations

from typing import Final

import msgspec

from justenough.errors import BackendRejected
from justenough.trace import Json
from justenough.wire.chunks import Choice, Chunk, Message, OddChunk, OtherProtocol, Progress, Timings, Usage
from justenough.wire.values import ABSENT, UNREADABLE, T, read_json, read_or_none, unreadable

_chunk: Final = msgspec.json.Decoder(Chunk)
_other: Final = msgspec.json.Decoder(OtherProtocol)


def read_chunk(data: str | bytes) -> Chunk:
    """One event or response, an `OddChunk` where it does not fit; raises `BackendRejected` for what is not JSON."""
    try:
        return _chunk.decode(data)
    except UNREADABLE as error:
        return _odd_chunk(data, str(error))


def read_strictly(data: str | bytes) -> Chunk:
    """Like `read_chunk`, but raises `BackendRejected` where a text cannot be read."""
    chunk = read_chunk(data)
    if isinstance(chunk, OddChunk) and chunk.complaint:
        raise unreadable(chunk.complaint)
    return chunk


def read_other_protocol(data: str | bytes) -> OtherProtocol | None:
    """An event or a whole answer of any protocol; None for what is not JSON."""
    try:
        return _other.decode(data)
    except UNREADABLE:
        pass
    try:
        chunk = read_chunk(data)
    except BackendRejected:
        return None
    return OtherProtocol(choices=chunk.choices, usage=chunk.usage)


class _Complaints:
    """What a chunk holds that is not as it should be."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.in_parts = False

    def text(self, raw: msgspec.Raw | None, where: str) -> str | None:
        """A text, or those of a list of parts."""
        value = None if not raw else read_json(raw)
        if value is None or isinstance(value, str):
            return value
        if not isinstance(value, list):
            self.texts.append(f"{where} is {_short(value)}, expected a text")
            return None
        self.in_parts = True
        return _joined(value, thinking=False)

    def members(self, raw: msgspec.Raw | None, where: str) -> dict[str, msgspec.Raw] | None:
        """The members of an object; None where it is null or absent."""
        if not raw or bytes(raw) == b"null":
            return None
        found = read_or_none(raw, dict[str, msgspec.Raw])
        if found is None:
            self.texts.append(f"{where} is {_short(read_json(raw))}, expected an object")
        return found


def _odd_chunk(data: str | bytes, reason: str) -> OddChunk:
    read_json(data)
    members = read_or_none(data, dict[str, msgspec.Raw])
    if members is None:
        return OddChunk(complaint=reason)
    complaints = _Complaints()
    choices: list[Choice] | None = None
    raw = members.get("choices")
    if raw and bytes(raw) != b"null":
        rows = read_or_none(raw, list[msgspec.Raw])
        if rows is None:
            complaints.texts.append(f"choices is {_short(read_json(raw))}, expected a list")
        choices = [_choice(row, f"choices[{at}]", complaints) for at, row in enumerate(rows or ())]
    return OddChunk(
        choices=choices,
        usage=_usage(members.get("usage")),
        prompt_progress=_member(members.get("prompt_progress"), Progress),
        timings=_member(members.get("timings"), Timings),
        error=members.get("error", ABSENT),
        complaint="; ".join(complaints.texts),
        in_parts=complaints.in_parts,
    )


def _choice(raw: msgspec.Raw, where: str, complaints: _Complaints) -> Choice:
    members = complaints.members(raw, where) or {}
    return Choice(
        index=_count(members.get("index")),
        delta=_message(members.get("delta"), f"{where}.delta", complaints),
        message=_message(members.get("message"), f"{where}.message", complaints),
        text=complaints.text(members.get("text"), f"{where}.text"),
        finish_reason=_member(members.get("finish_reason"), str),
        logprobs=members.get("logprobs", ABSENT),
    )


def _message(raw: msgspec.Raw | None, where: str, complaints: _Complaints) -> Message | None:
    members = complaints.members(raw, where)
    if members is None:
        return None
    content = members.get("content")
    thought = [complaints.text(members.get(key), f"{where}.{key}") for key in ("reasoning_content", "reasoning")]
    return Message(
        content=complaints.text(content, f"{where}.content"),
        reasoning_content=thought[0] or (_thinking(content) if complaints.in_parts else None),
        reasoning=thought[1],
        tool_calls=members.get("tool_calls", ABSENT),
    )


def _thinking(content: msgspec.Raw | None) -> str | None:
    """The thought among the parts of a content, as Mistral sends it."""
    parts = read_json(content) if content else None
    return _joined(parts, thinking=True) or None if isinstance(parts, list) else None


def _joined(parts: list[Json], *, thinking: bool) -> str:
    """The texts of parts, either those of the thought or the others."""
    texts: list[str] = []
    for part in parts:
        if isinstance(part, str) and not thinking:
            texts.append(part)
        if not isinstance(part, dict):
            continue
        thought = part.get("thinking")
        if (thought is not None) is not thinking:
            continue
        value = thought if thinking else part.get("text")
        if isinstance(value, list):
            texts.append(_joined(value, thinking=False))
        elif isinstance(value, str):
            texts.append(value)
    return "".join(texts)


def _usage(raw: msgspec.Raw | None) -> Usage | None:
    members = read_or_none(raw, dict[str, msgspec.Raw]) if raw else None
    if members is None:
        return None
    return Usage(*(_count(members.get(key)) for key in Usage.__struct_fields__))


def _count(raw: msgspec.Raw | None) -> int | None:
    """A whole number, also as a float or as a text; None for anything else."""
    value = read_json(raw) if raw else None
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value != int(value):
        return None
    return int(value)


def _member(raw: msgspec.Raw | None, kind: type[T]) -> T | None:
    return read_or_none(raw, kind) if raw else None


def _short(value: Json) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
