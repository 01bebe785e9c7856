"""Chunks of a completion stream: read as far as the gate needs, changed no further than it must.

An event is decoded by type, so that what the gate does not know stays in the bytes; log-probabilities that the client
did not ask for are cut out of those bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from justenough.gateway.exchange import UNREADABLE
from justenough.trace import Json, Token
from justenough.wire import aligned

_ABSENT: Final = msgspec.Raw(b"")
_ALTERNATIVES: Final = b'"top_logprobs":['


class Entry(msgspec.Struct, gc=False):
    """Log-probabilities of one token."""

    token: str = ""
    logprob: float | None = None
    top_logprobs: list[_Top] | None = None


class _Top(msgspec.Struct, gc=False):
    logprob: float | None = None


class _Logprobs(msgspec.Struct, gc=False):
    """Both shapes: `content` of chat (and of llama.cpp's completions), the rest of OpenAI's completions."""

    content: list[Entry] | None = None
    reasoning_content: list[Entry] | None = None
    """Those of the thought, where they stand apart as DeepSeek's do."""
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None


class Delta(msgspec.Struct, gc=False):
    """What a chunk adds to a message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: msgspec.Raw = _ABSENT


class Choice(msgspec.Struct, gc=False):
    """One alternative of a chunk, of a chat (`delta`) or a completion (`text`)."""

    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _ABSENT

    @property
    def says_nothing(self) -> bool:
        """Whether it brings neither text nor an end."""
        said = self.delta and (self.delta.content or self.delta.reasoning_content or self.delta.reasoning)
        return self.finish_reason is None and not (said or self.text)


class Usage(msgspec.Struct, gc=False):
    """Token counts."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Progress(msgspec.Struct, gc=False):
    """llama.cpp's report on reading the prompt."""

    total: int = 0


class Timings(msgspec.Struct, gc=False):
    """llama.cpp's account of a finished stream."""

    predicted_n: int = 0


class Chunk(msgspec.Struct, gc=False):
    """One event of a stream."""

    id: str | None = None
    choices: list[Choice] = []
    usage: Usage | None = None
    prompt_progress: Progress | None = None
    timings: Timings | None = None
    error: msgspec.Raw = _ABSENT

    @property
    def choice(self) -> Choice | None:
        """The only alternative; None in a chunk of usage alone."""
        return self.choices[0] if self.choices else None


_chunk: Final = msgspec.json.Decoder(Chunk)
_logprobs: Final = msgspec.json.Decoder(_Logprobs | None)
_several: Final = msgspec.json.Decoder(list[_Logprobs])


def read_chunk(data: str | bytes) -> Chunk:
    """Decode an event's data; raises one of `UNREADABLE` for what is no chunk."""
    return _chunk.decode(data)


def _falling(values: list[float | None]) -> tuple[float, ...] | None:
    """In falling order, as `wire` has them: sums then round alike, and the bits are the same everywhere."""
    row = [-math.inf if value is None else value for value in values] if None in values else cast("list[float]", values)
    row.sort(reverse=True)
    return tuple(row) or None


def entries_of(logprobs: msgspec.Raw | bytes) -> list[Token] | None:
    """The log-probabilities of a chunk's tokens; None where there are none that can be read."""
    if not logprobs:
        return None
    try:
        return _tokens(_logprobs.decode(logprobs))
    except UNREADABLE:
        return None


def _tokens(found: _Logprobs | None) -> list[Token] | None:
    if found is None:
        return None
    entries = found.content
    if found.reasoning_content:
        entries = found.reasoning_content + (entries or [])
    if entries is not None:
        return [
            Token(entry.token, _falling([top.logprob for top in entry.top_logprobs or ()]), logprob=entry.logprob)
            for entry in entries
        ]
    if found.tokens is None:
        return None
    tops = found.top_logprobs or [None] * len(found.tokens)
    own = found.token_logprobs or [None] * len(found.tokens)
    if len(tops) != len(found.tokens) or len(own) != len(found.tokens):
        return None
    return [
        Token(token, _falling(list((top or {}).values())), logprob=logprob)
        for token, logprob, top in zip(found.tokens, own, tops, strict=True)
    ]


def block_of(tokens: Sequence[tuple[str, bytes]]) -> NDArray[np.float64] | None:
    """The alternatives (T, k) of tokens of these texts, falling in each row, out of one entry for each token.

    None where that is not what the bytes hold, for all of them alike: then each has to be read by itself. Read
    together they cost half.
    """
    try:
        found = _several.decode(b"[%b]" % b",".join([logprobs for _, logprobs in tokens]))
    except UNREADABLE:
        return None
    if len(found) != len(tokens):
        return None
    values: list[float | None] = []
    width = 0
    for (text, _), one in zip(tokens, found, strict=True):
        entries = one.content
        if entries is None or len(entries) != 1 or one.reasoning_content:
            return None
        top = entries[0].top_logprobs
        width = width or len(top or ())
        if not top or len(top) != width or entries[0].token != text:
            return None
        values += [alternative.logprob for alternative in top]
    # An alternative without a value becomes a NaN, which no measure takes.
    block = np.array(values, dtype=np.float64).reshape(len(tokens), width)
    if (block[:, 1:] > block[:, :-1]).any():
        block = np.ascontiguousarray(np.sort(block, axis=1)[:, ::-1])
    return block


def is_one_entry(logprobs: msgspec.Raw | bytes) -> bool:
    """Whether they are surely those of one token, and some, judged without reading them."""
    raw = bytes(logprobs)
    first = raw.find(_ALTERNATIVES)
    if first < 0 or raw.startswith(b"]", first + len(_ALTERNATIVES)):
        return False
    return raw.startswith(b'{"content":[{') and raw.find(_ALTERNATIVES, first + 1) < 0


def fitted(text: str, entries: list[Token] | None, *, finish: str | None) -> tuple[Sequence[Token], bool]:
    """The tokens of a piece of text, and whether their log-probabilities belong to it.

    The end-of-sequence token, an entry without text in the last chunk, is none. Where most entries are not found in
    the text, they keep their number but lose their log-probabilities: nothing may be decided on them.
    """
    if not entries:
        return ([Token(text=text)] if text else []), True
    if len(entries) == 1:
        only = entries[0]
        if only.text == text and (text or finish is None):
            return entries, True
        return aligned(entries, text, finish=finish), True
    if "".join([entry.text for entry in entries]) == text:
        return entries, True
    tokens = aligned(entries, text, finish=finish)
    found = sum(token is entry for token, entry in zip(tokens, entries, strict=False))
    if 2 * found >= len(tokens):
        return tokens, True
    return [Token(text=text), *[Token(text="") for _ in entries[1:]]], False


def trimmed(logprobs: Json, most: int) -> Json:
    """Log-probabilities with no more alternatives a token than the client wants."""
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
    tops = out.get("top_logprobs")
    if isinstance(tops, list):
        out["top_logprobs"] = [dict(list(top.items())[:most]) if isinstance(top, dict) else top for top in tops]
    return out


def without(data: bytes, key: bytes, value: msgspec.Raw | bytes) -> bytes:
    """An object's bytes without a member whose exact value is known, at any depth.

    The quoted key followed by a colon cannot stand inside a text: its quotation marks would be escaped there.
    """
    raw = bytes(value)
    for between in (b'":', b'": '):
        name = b'"%b%b' % (key, between)
        # Looking for the short name first: to look for a long value takes longer than to find it.
        at = data.find(name)
        while at >= 0 and not data.startswith(raw, at + len(name)):
            at = data.find(name, at + 1)
        if at < 0:
            continue
        before, after = data[:at], data[at + len(name) + len(raw) :]
        if after.lstrip().startswith(b","):
            return before + after.lstrip()[1:].lstrip()
        return before.rstrip().removesuffix(b",") + after
    return data


def with_member(data: bytes, key: bytes, value: bytes) -> bytes:
    """An object's bytes with one member more, at its end."""
    head = data.rstrip()
    if not head.endswith(b"}"):
        return data
    head = head[:-1].rstrip()
    comma = b"" if head.endswith(b"{") else b","
    return b'%b%b"%b":%b}' % (head, comma, key, value)


def shortened(data: bytes, characters: int, tokens: int) -> bytes:
    """An event's bytes without so much of its text and so many of its tokens at the end: what came after a cut."""
    chunk = msgspec.json.decode(data)
    row = chunk["choices"][0]
    said = row.get("delta", row)
    for key in ("content", "reasoning_content", "reasoning", "text"):
        if isinstance(text := said.get(key), str):
            said[key] = text[: max(0, len(text) - characters)]
    logprobs = row.get("logprobs") or {}
    for holder, keys in ((row, ("token_ids",)), (logprobs, tuple(logprobs))):
        for key in keys:
            if isinstance(items := holder.get(key), list):
                holder[key] = items[: max(0, len(items) - tokens)]
    return msgspec.json.encode(chunk)
