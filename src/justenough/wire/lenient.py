"""Reads chunks, also those of servers that keep to no type.

Members that do not fit are read one by one: counts given as texts or as whole floats, a text given as a list of parts,
members that are null. Only a text that cannot be read at all is a complaint; its reader then decides what to do.
"""

from __future__ import annotations

from typing import Final

import msgspec

from justenough.errors import BackendRejected
from justenough.trace import Json
from justenough.wire.chunks import (
    MAX_COUNT,
    THOUGHT_FIELDS,
    Choice,
    Chunk,
    Message,
    OddChunk,
    OtherProtocol,
    Progress,
    Timings,
    Usage,
)
from justenough.wire.values import ABSENT, UNREADABLE, read_json, read_or_none, unreadable

_chunk: Final = msgspec.json.Decoder(Chunk)
_other: Final = msgspec.json.Decoder(OtherProtocol)
_NULL: Final = msgspec.Raw(b"null")


def read_chunk(data: str | bytes) -> Chunk:
    """One event or response, an `OddChunk` where it does not fit; raises `BackendRejected` for what is not JSON."""
    try:
        return _chunk.decode(data)
    except UNREADABLE as error:
        read_json(data)
        return _OddReader().chunk(data, str(error))


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


class _OddReader:
    """Reads one chunk member by member, and collects complaints."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.in_parts = False

    def chunk(self, data: str | bytes, reason: str) -> OddChunk:
        members = read_or_none(data, dict[str, msgspec.Raw])
        if members is None:
            return OddChunk(complaint=reason)
        raw = members.get("choices", _NULL)
        rows = read_or_none(raw, list[msgspec.Raw])
        if rows is None and raw != _NULL:
            self._complain("choices", raw, "a list")
        usage = read_or_none(members.get("usage", _NULL), dict[str, msgspec.Raw])
        return OddChunk(
            choices=None
            if raw == _NULL
            else [self._choice(row, f"choices[{at}]") for at, row in enumerate(rows or ())],
            usage=None if usage is None else Usage(*(_count(usage.get(key, _NULL)) for key in Usage.__struct_fields__)),
            prompt_progress=read_or_none(members.get("prompt_progress", _NULL), Progress),
            timings=read_or_none(members.get("timings", _NULL), Timings),
            error=members.get("error", ABSENT),
            complaint="; ".join(self.complaints),
            in_parts=self.in_parts,
        )

    def _choice(self, raw: msgspec.Raw, where: str) -> Choice:
        members = self._members(raw, where) or {}
        return Choice(
            index=_count(members.get("index", _NULL)),
            delta=self._message(members.get("delta", _NULL), f"{where}.delta"),
            message=self._message(members.get("message", _NULL), f"{where}.message"),
            text=self._text(members.get("text", _NULL), f"{where}.text"),
            finish_reason=read_or_none(members.get("finish_reason", _NULL), str),
            logprobs=members.get("logprobs", ABSENT),
        )

    def _message(self, raw: msgspec.Raw, where: str) -> Message | None:
        members = self._members(raw, where)
        if members is None:
            return None
        content, thought, reasoning = (
            self._text(members.get(key, _NULL), f"{where}.{key}")
            for key in ("content", "reasoning_content", "reasoning")
        )
        parts = read_json(members.get("content", _NULL))
        if isinstance(parts, list) and (among := _joined(parts, thinking=True)):
            # Mistral sends the thought among the parts of the content.
            thought = thought or among
        rarer = (members.get(key, ABSENT) for key in ("tool_calls", *THOUGHT_FIELDS[2:], "function_call"))
        return Message(content, thought, reasoning, *rarer)

    def _members(self, raw: msgspec.Raw, where: str) -> dict[str, msgspec.Raw] | None:
        """The members of an object; None where it is null."""
        members = read_or_none(raw, dict[str, msgspec.Raw])
        if members is None and raw != _NULL:
            self._complain(where, raw, "an object")
        return members

    def _text(self, raw: msgspec.Raw, where: str) -> str | None:
        """A text, or those of a list of parts."""
        value = read_json(raw)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, list):
            self.in_parts = True
            return _joined(value, thinking=False)
        self._complain(where, raw, "a text")
        return None

    def _complain(self, where: str, raw: msgspec.Raw, expected: str) -> None:
        shown = repr(read_json(raw))
        self.complaints.append(f"{where} is {shown if len(shown) <= 80 else f'{shown[:77]}...'}, expected {expected}")


def _joined(parts: list[Json], *, thinking: bool) -> str:
    """The texts of parts, either those of the thought or the others."""
    texts: list[str] = []
    for part in parts:
        if isinstance(part, dict):
            keys = ("thinking", "reasoning")
            own = next((part[key] for key in keys if part.get(key) is not None), None)
            if (own is not None or part.get("type") in keys) is not thinking:
                continue
            part = part.get("text") if own is None else own
        elif thinking:
            continue
        texts.append(_joined(part, thinking=False) if isinstance(part, list) else part if isinstance(part, str) else "")
    return "".join(texts)


def _count(raw: msgspec.Raw) -> int | None:
    """A whole number, also as a float or as a text; None for anything else, and for one that no server can mean."""
    value = read_json(raw)
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_COUNT:
        return None
    return int(value) if value == int(value) else None
