"""JSON as servers really send it: valid JSON, or JSON with NaN, infinities and half surrogate pairs."""

from __future__ import annotations

import math
import re
from typing import Final, TypeVar, cast

import msgspec

from justenough.errors import BackendRejected
from justenough.trace import Json

T = TypeVar("T")

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding can raise: not JSON, of another type, not UTF-8, or nested too deeply."""
ABSENT: Final = msgspec.Raw(b"")
"""Stands for a member that is not there."""
NOTHING: Final = -9999.0
"""Stands for a log-probability of minus infinity in JSON, as OpenAI and vLLM write it."""

_SUSPECT: Final = re.compile(rb"NaN|Infinity|\\[uU][dD]|[eE]\+?\d{3}|\d{309}")
_PART: Final = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|-?Infinity|NaN|-?\d++(?:\.\d++)?+(?:[eE]\+?\d++)?+', re.DOTALL
)
"""A text, also one without an end, or a number, also one that JSON does not have."""
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escaped character; the group is half a surrogate pair alone."""


def read_json(data: str | bytes | msgspec.Raw) -> Json:
    """One JSON value, repaired where it has to be; raises `BackendRejected` for anything else."""
    return read_as(data, cast("type[Json]", object))


def read_as(data: str | bytes | msgspec.Raw, kind: type[T], *, name: str = "it") -> T:
    """One JSON value of a type, repaired where it has to be; raises `BackendRejected` with the place of the mistake.

    `name`: what the value is, for the error.
    """
    raw = data.encode(errors="replace") if isinstance(data, str) else bytes(data)
    try:
        return msgspec.json.decode(raw, type=kind)
    except UNREADABLE as error:
        fits_no_type = isinstance(error, msgspec.ValidationError)
        fixed = raw if fits_no_type and "out of range" not in str(error) else repaired(raw)
        if fixed == raw and fits_no_type:
            raise unreadable(f"{name} does not fit: {error}") from error
        if fixed == raw:
            raise unreadable(f"{raw[:80].decode(errors='replace')!r} is not JSON") from error
    return read_as(fixed, kind, name=name)


def read_or_none(data: str | bytes | msgspec.Raw, kind: type[T]) -> T | None:
    """Like `read_as`, but None where the value is of another type or no JSON."""
    try:
        return read_as(data, kind)
    except BackendRejected:
        return None


def repaired(data: bytes) -> bytes:
    """The same bytes with valid JSON for what Python and others write beyond it.

    Minus infinity becomes `NOTHING`. NaN, infinity and numbers beyond a double become texts, so that no reader takes
    them for numbers. Half a surrogate pair becomes U+FFFD.
    """
    if _SUSPECT.search(data) is None:
        return data
    return _PART.sub(_valid, data)


def _valid(match: re.Match[bytes]) -> bytes:
    part = match[0]
    if part.startswith(b'"'):
        return _ESCAPE.sub(lambda escape: b"\\ufffd" if escape[1] else escape[0], part)
    if part == b"-Infinity":
        return b"%r" % NOTHING
    return part if math.isfinite(float(part)) else b'"%b"' % part


def unreadable(reason: str) -> BackendRejected:
    """The error for a reply that cannot be used."""
    return BackendRejected(f"the server's reply cannot be read: {reason}", status=502, hint="is it OpenAI-compatible?")
