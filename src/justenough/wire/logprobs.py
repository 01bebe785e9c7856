"""Log-probabilities of either form as `Token`s, and their alignment to the text.

OpenAI and vLLM give `content` with chats and parallel lists with completions; llama.cpp gives `content` with both.
DeepSeek keeps those of the thought in a `reasoning_content` of their own. vLLM adds the sampled token to the k most
likely ones.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from typing import Final, Generic, TypeVar, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from justenough.errors import BackendRejected
from justenough.trace import Token
from justenough.wire.values import NOTHING, UNREADABLE, read_as, unreadable

_RESYNC: Final = 64
_ALTERNATIVES: Final = b'"top_logprobs":['
_END: Final = b"}]}]}"
"""The end of the last alternative, of the alternatives, of the entry, of the entries, and of the object."""


class Alternative(msgspec.Struct, gc=False):
    """The log-probability of one of the most likely tokens."""

    logprob: float | None = None


class Entry(msgspec.Struct, gc=False):
    """Log-probabilities of one token."""

    token: str = ""
    logprob: float | None = None
    top_logprobs: list[Alternative] | None = None


class ExactEntry(Entry, gc=False):
    """An entry with the token's bytes: a character can be split over tokens. To read them costs a third more."""

    raw: list[int] | None = msgspec.field(name="bytes", default=None)


EntryType = TypeVar("EntryType", bound=Entry)


class _Logprobs(msgspec.Struct, Generic[EntryType], gc=False):
    """Both forms: `content` of chats, the parallel lists of OpenAI's text completions."""

    content: list[EntryType] | None = None
    reasoning_content: list[EntryType] | None = None
    """The thought's entries where they are kept apart."""
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float | None] | None] | None = None


_plain: Final[msgspec.json.Decoder[_Logprobs[Entry] | None]] = msgspec.json.Decoder(_Logprobs[Entry] | None)
_exact: Final[msgspec.json.Decoder[_Logprobs[ExactEntry] | None]] = msgspec.json.Decoder(_Logprobs[ExactEntry] | None)
_several: Final = msgspec.json.Decoder(list[_Logprobs[Entry]])
_unread: Final = msgspec.json.Decoder(list[msgspec.Raw])


def tokens_of(logprobs: msgspec.Raw | bytes) -> list[Token]:
    """The tokens of a choice, none where it has no log-probabilities; raises `BackendRejected`.

    `top_logprobs` fall, and can be more than were requested. A token's text is that of its bytes, so that a split
    character comes whole.
    """
    if not logprobs:
        return []
    try:
        read = _exact.decode(logprobs)
    except UNREADABLE:
        read = read_as(logprobs, _Logprobs[ExactEntry], name="logprobs")
    if read is None:
        return []
    if (entries := _entries(read)) is None:
        return _parallel(read)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    tokens: list[Token] = []
    for entry in entries:
        raw = bytes([value for value in entry.raw or () if 0 <= value < 256])
        tokens.append(_token(entry, decoder.decode(raw) if raw else entry.token))
    return tokens


def entries_of(logprobs: msgspec.Raw | bytes) -> list[Token] | None:
    """Like `tokens_of`, but None where there are none that can be read, and faster: bytes are read only if needed."""
    if not logprobs:
        return None
    try:
        try:
            read = _plain.decode(logprobs)
        except UNREADABLE:
            read = read_as(logprobs, _Logprobs[Entry])
        entries = None if read is None else _entries(read)
        if entries is None:
            return None if read is None or read.tokens is None else _parallel(read)
        for entry in entries:
            if "\ufffd" in entry.token or "\\" in entry.token:
                return tokens_of(logprobs)
        return [_token(entry, entry.token) for entry in entries]
    except BackendRejected:
        return None


def _entries(logprobs: _Logprobs[EntryType]) -> list[EntryType] | None:
    """The thought's entries and the others; None where there are no entries."""
    if logprobs.reasoning_content:
        return logprobs.reasoning_content + (logprobs.content or [])
    return logprobs.content


def _token(entry: Entry, text: str) -> Token:
    return Token(text, _falling([top.logprob for top in entry.top_logprobs or ()]), logprob=entry.logprob)


def _falling(values: list[float | None]) -> tuple[float, ...] | None:
    """In falling order, so that sums round alike and the bits are the same everywhere."""
    row = [-math.inf if value is None else value for value in values] if None in values else cast("list[float]", values)
    row.sort(reverse=True)
    return tuple(row) or None


def _parallel(logprobs: _Logprobs[EntryType]) -> list[Token]:
    """The tokens of parallel lists; their alternatives are merged by text, so fewer than k are common."""
    texts = logprobs.tokens or []
    tops = logprobs.top_logprobs or [None] * len(texts)
    own = logprobs.token_logprobs or [None] * len(texts)
    if len(tops) != len(texts) or len(own) != len(texts):
        raise unreadable(f"{len(texts)} tokens have {len(own)} token_logprobs and {len(tops)} top_logprobs")
    return [
        Token(text, _falling(list((top or {}).values())), logprob=logprob)
        for text, logprob, top in zip(texts, own, tops, strict=True)
    ]


def unmasked(token: Token) -> Token:
    """A token without the alternatives that a sampler has removed: then its top k are too few to measure.

    They have no probability: minus infinity, or what servers write for it. Log-probabilities from before the samplers
    have no such alternative.
    """
    row = token.top_logprobs
    if not row or row[-1] > NOTHING:
        return token
    return token._replace(top_logprobs=tuple([value for value in row if value > NOTHING]) or None)


def block_of(tokens: Sequence[tuple[str, bytes]]) -> NDArray[np.float64] | None:
    """The alternatives (T, k) of tokens with these texts, falling in each row, from one entry for each token.

    None where the bytes hold anything else; then each token has to be read alone. Reading them together halves the
    cost.
    """
    try:
        rows = _several.decode(b"[%b]" % b",".join([logprobs for _, logprobs in tokens]))
    except UNREADABLE:
        return None
    if len(rows) != len(tokens):
        return None
    tops: list[list[Alternative]] = []
    for (text, _), row in zip(tokens, rows, strict=True):
        entries = row.content
        if entries is None or len(entries) != 1 or row.reasoning_content:
            return None
        entry = entries[0]
        if not entry.top_logprobs or entry.token != text:
            return None
        tops.append(entry.top_logprobs)
    if len(set(map(len, tops))) > 1:
        return None
    # An alternative without a value becomes a NaN, which no measure takes.
    values = [alternative.logprob for top in tops for alternative in top]
    block = np.array(values, dtype=np.float64).reshape(len(tops), len(tops[0]))
    if (block[:, 1:] > block[:, :-1]).any():
        block = np.ascontiguousarray(np.sort(block, axis=1)[:, ::-1])
    return block


def is_one_entry(logprobs: bytes) -> bool:
    """Whether they look like those of one token, with alternatives, judged without reading them.

    `block_of` is exact. Until then, an entry that has no alternatives, but another list of objects, goes unseen.
    """
    # Nothing may follow the first end. A second entry, or a second list of entries, has alternatives of its own.
    return (
        logprobs.endswith(_END)
        and logprobs.startswith(b'{"content":[{')
        and logprobs.rfind(_END, 0, -1) < 0
        and 0 < logprobs.find(_ALTERNATIVES) == logprobs.rfind(_ALTERNATIVES)
    )


def with_fewer(logprobs: bytes, most: int) -> bytes | None:
    """The same bytes with at most `most` alternatives, where `is_one_entry`; None if that needs more than a cut."""
    begin = logprobs.find(_ALTERNATIVES) + len(_ALTERNATIVES)
    try:
        kept = b",".join(_unread.decode(logprobs[begin - 1 : 2 - len(_END)])[:most])
    except UNREADABLE:
        return None
    return logprobs[:begin] + kept + logprobs[1 - len(_END) :] if logprobs.startswith(kept, begin) else None


def aligned(tokens: Sequence[Token], text: str, *, finish: str | None) -> tuple[Token, ...]:
    """The entries with texts that join to exactly `text`, without an entry of the end-of-sequence token.

    Servers remove what the entries still show (the tags of a thought, the end of a turn) and hold back bytes that are
    not yet a character. So the texts of entries need not join to the text.
    """
    out: list[Token] = []
    rest = text
    for number, token in enumerate(tokens, start=1):
        if number == len(tokens):
            if not rest and finish == "stop":
                break
            piece = rest
        else:
            at = rest.find(token.text, 0, _RESYNC + len(token.text)) if token.text else -1
            piece = rest[: at + len(token.text)] if at >= 0 else ""
        rest = rest[len(piece) :]
        out.append(
            token if piece == token.text else Token(text=piece, top_logprobs=token.top_logprobs, logprob=token.logprob)
        )
    return tuple(out)


def fitted(text: str, entries: list[Token] | None, *, finish: str | None) -> tuple[Sequence[Token], bool]:
    """The tokens of a piece of text, and whether their log-probabilities belong to it.

    The end-of-sequence token, an entry without text in the last chunk, is left out. Where most entries do not occur in
    the text, they keep their number but lose their log-probabilities: no decision may rest on them.
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
    unchanged = sum(token is entry for token, entry in zip(tokens, entries, strict=False))
    if 2 * unchanged >= len(tokens):
        return tokens, True
    return [Token(text=text), *[Token(text="") for _ in entries[1:]]], False
