"""Edits of a chunk's bytes. All members that the gateway does not know stay as they are."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import cast

import msgspec

from justenough.gateway.stream.events import decoded
from justenough.trace import Json
from justenough.wire.chunks import THOUGHT_FIELDS, is_empty
from justenough.wire.logprobs import is_one_entry, with_fewer
from justenough.wire.values import ABSENT, read_or_none, repaired


def fewer(logprobs: msgspec.Raw, most: int) -> bytes:
    """`trimmed` for bytes; those of one token keep all other bytes."""
    raw = bytes(logprobs)
    shorter = with_fewer(raw, most) if is_one_entry(raw) else None
    return msgspec.json.encode(trimmed(decoded(raw), most)) if shorter is None else shorter


class _Row(msgspec.Struct, gc=False):
    logprobs: msgspec.Raw = ABSENT


class _Whole(msgspec.Struct, gc=False):
    choices: list[_Row]


def limited_logprobs(answer: bytes, most: int | None) -> bytes:
    """An answer in one piece with at most `most` alternatives for each token; None: without log-probabilities."""
    whole = read_or_none(answer, _Whole)
    for row in whole.choices if whole is not None else ():
        if not is_empty(row.logprobs):
            logprobs = row.logprobs
            answer = (
                without(answer, b"logprobs", logprobs)
                if most is None
                else with_value(answer, logprobs, fewer(logprobs, most))
            )
    return answer


def trimmed(logprobs: Json, most: int) -> Json:
    """Log-probabilities with at most `most` alternatives for each token."""
    if not isinstance(logprobs, dict):
        return logprobs
    out = dict(logprobs)
    for key in ("content", "reasoning_content"):
        entries = out.get(key)
        if isinstance(entries, list):
            out[key] = [
                entry | {"top_logprobs": top[:most]}
                if isinstance(entry, dict) and isinstance(top := entry.get("top_logprobs"), list)
                else entry
                for entry in entries
            ]
    tops, own = out.get("top_logprobs"), out.get("tokens")
    if isinstance(tops, list):
        texts = own if isinstance(own, list) and len(own) == len(tops) else [None] * len(tops)
        out["top_logprobs"] = [
            _likeliest(top, most, text) if isinstance(top, dict) else top for top, text in zip(tops, texts, strict=True)
        ]
    return out


def _likeliest(top: dict[str, Json], most: int, own: Json) -> dict[str, Json]:
    """The alternatives with the highest values, and the token itself, which servers add to them."""

    def size(text: str) -> float:
        value = top[text]
        return value if isinstance(value, int | float) else -math.inf

    kept = {*sorted(top, key=size, reverse=True)[:most], own}
    return {text: value for text, value in top.items() if text in kept}


def first_offset(logprobs: Json) -> int:
    """Where the text begins in the offsets of a text completion's log-probabilities; 0 if there are none."""
    offsets = logprobs.get("text_offset") if isinstance(logprobs, dict) else None
    return offsets[0] if isinstance(offsets, list) and offsets and isinstance(offsets[0], int) else 0


def end_offset(logprobs: dict[str, Json]) -> int:
    """Where the text ends in them; 0 if there are none."""
    texts, offsets = logprobs.get("tokens"), logprobs.get("text_offset")
    if not (isinstance(texts, list) and isinstance(offsets, list) and texts and offsets):
        return 0
    text, offset = texts[-1], offsets[-1]
    return offset + len(text) if isinstance(offset, int) and isinstance(text, str) else 0


def with_offsets(logprobs: dict[str, Json], begin: int) -> dict[str, Json]:
    """Log-probabilities of a text completion with offsets that run on from `begin`; other forms have no offsets."""
    texts = logprobs.get("tokens")
    if not (isinstance(texts, list) and logprobs.get("text_offset")):
        return logprobs
    sizes = [len(text) if isinstance(text, str) else 0 for text in texts[:-1]]
    return logprobs | {"text_offset": [*accumulate(sizes, initial=begin)]}


def without(data: bytes, key: bytes, value: msgspec.Raw | bytes) -> bytes:
    """An object's bytes without a member, at any depth; `value` is its exact value.

    A quoted key with a colon cannot be part of a text, where its quotation marks would be escaped. If the value was
    read from repaired bytes, it is removed from the repaired bytes.
    """
    raw = bytes(value)
    if (place := _place(data, key, raw)) is not None:
        return data[: place[0]] + data[place[1] :]
    fixed = repaired(data)
    place = _place(fixed, key, raw)
    return data if place is None else _spliced(data, fixed, place, b"")


def _spliced(data: bytes, fixed: bytes, place: tuple[int, int], new: bytes) -> bytes:
    """The repaired bytes with `new` at this place; the bytes around it as they came, if the repair did not move them.

    Half a surrogate pair is as long as its repair, and some clients join it with the other half.
    """
    start, end = place
    if repaired(data[:start]) == fixed[:start] and repaired(data[end:]) == fixed[end:]:
        fixed = data
    return fixed[:start] + new + fixed[end:]


def _place(data: bytes, key: bytes, raw: bytes) -> tuple[int, int] | None:
    """Where a member with its comma begins and ends; None if it is not there."""
    for between in (b'":', b'": '):
        name = b'"%b%b' % (key, between)
        # Search for the short name first: the search for a long value takes longer.
        at = data.find(name)
        while at >= 0 and not data.startswith(raw, at + len(name)):
            at = data.find(name, at + 1)
        if at < 0:
            continue
        end = at + len(name) + len(raw)
        if (after := data[end:].lstrip()).startswith(b","):
            return at, len(data) - len(after[1:].lstrip())
        return len(data[:at].rstrip().removesuffix(b",")), end
    return None


def without_member(data: bytes, key: str) -> bytes:
    """An object's bytes without one of its own members."""
    value = (read_or_none(data, dict[str, msgspec.Raw]) or {}).get(key)
    return data if value is None else without(data, key.encode(), value)


def with_value(data: bytes, old: msgspec.Raw, new: bytes) -> bytes:
    """An object's bytes with the value `new` instead of `old`; `old` is exact."""
    raw = bytes(old)
    if raw in data:
        return data.replace(raw, new, 1)
    fixed = repaired(data)
    at = fixed.find(raw)
    return data if at < 0 else _spliced(data, fixed, (at, at + len(raw)), new)


def with_member(data: bytes, key: bytes, value: bytes) -> bytes:
    """An object's bytes with one more member at its end."""
    head = data.rstrip()
    if not head.endswith(b"}"):
        return data
    head = head[:-1].rstrip()
    comma = b"" if head.endswith(b"{") else b","
    return b'%b%b"%b":%b}' % (head, comma, key, value)


def _shorter(value: Json, characters: int) -> Json:
    """A text without its last characters, or the parts of a text without theirs."""
    if isinstance(value, str):
        return value[: max(0, len(value) - characters)]
    if isinstance(value, list) and value:
        # A token is a part, so the characters are those of the last part.
        return [*value[:-1], _shorter(value[-1], characters)]
    if isinstance(value, dict):
        return {key: each if key == "type" else _shorter(each, characters) for key, each in value.items()}
    return value


def shortened(data: bytes, characters: int, tokens: int) -> bytes:
    """An event's bytes without its last characters and tokens, which are behind a cut."""
    chunk = cast("dict[str, list[dict[str, Json]]]", decoded(data))
    row = chunk["choices"][0]
    delta = row.get("delta")
    holder = delta if isinstance(delta, dict) else row
    for key in (*THOUGHT_FIELDS, "content", "text"):
        if (value := holder.get(key)) is not None:
            holder[key] = _shorter(value, characters)
    logprobs = row.get("logprobs")
    for lists in (row, logprobs if isinstance(logprobs, dict) else {}):
        for key, items in lists.items():
            if isinstance(items, list) and (lists is logprobs or key == "token_ids"):
                lists[key] = items[: max(0, len(items) - tokens)]
    return msgspec.json.encode(chunk)
