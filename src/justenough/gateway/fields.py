"""The members of a request's body, each as its bytes came, and their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")
Fields = dict[str, msgspec.Raw]

_MOST_OF: Final[Mapping[bytes, int]] = {b",": 300_000, b"{": 60_000, b"[": 60_000, b"\\": 1_000_000}
"""How often each mark may occur in a body; reading more would delay all other streams."""
_LONG: Final = (
    *("messages", "prompt", "input", "instructions", "tools", "functions", "response_format", "text"),
    *("guided_json", "structured_outputs", "grammar", "json_schema", "logit_bias"),
)
"""Members that may be long."""
_MOST_OTHER_BYTES: Final = 64 * 1024
"""Bytes of all other members together. They become Python objects one by one, which takes long for very many."""
LENGTHS: Final = ("max_completion_tokens", "max_tokens", "n_predict")
"""Members that bound the completion's tokens."""
MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_long: Final = msgspec.json.Decoder(
    msgspec.defstruct("_Long", [(name, msgspec.Raw, msgspec.Raw()) for name in _LONG], gc=False)
)


def fields_of(body: bytes) -> Fields | None:
    """The body's members; None if it has so many parts that reading them would delay other streams."""
    if any(body.count(mark) > most for mark, most in _MOST_OF.items()):
        return None
    if len(body) > _MOST_OTHER_BYTES:
        long = sum(len(bytes(raw)) for raw in msgspec.structs.astuple(_long.decode(body)))
        if len(body) - long > _MOST_OTHER_BYTES:
            return None
    return MEMBERS.decode(body)


def is_set(fields: Mapping[str, msgspec.Raw], key: str) -> bool:
    """Whether a member is present and has a value that is not empty."""
    return bytes(fields.get(key, b"null")) not in (b"null", b"false", b"[]", b"{}", b'""')


def value_of(fields: Mapping[str, msgspec.Raw], key: str, kind: type[T]) -> T | None:
    """A member's value, None if it is absent or null; raises one of `UNREADABLE` for another type."""
    raw = fields.get(key)
    return None if raw is None or bytes(raw) == b"null" else msgspec.json.decode(raw, type=kind)


def whole_of(fields: Mapping[str, msgspec.Raw], key: str) -> int | None:
    """A member's whole number. `5.0` is one in JSON, and some clients write it."""
    try:
        return value_of(fields, key, int)
    except msgspec.ValidationError:
        number = value_of(fields, key, float)
        if number is None or not number.is_integer():
            raise
        return int(number)


def limit_of(fields: Mapping[str, msgspec.Raw], names: Iterable[str]) -> int | None:
    """The first of these members that is a limit; raises one of `UNREADABLE` if any has another type."""
    lengths = [whole_of(fields, key) for key in names]
    return next((length for length in lengths if length is not None and length >= 0), None)


def limits_within(fields: Mapping[str, msgspec.Raw], names: Iterable[str], tokens: int) -> dict[str, int]:
    """The members with these names that the request has, each at most `tokens`.

    The upstream may use any of several limits. Some servers read -1 and the like as no limit.
    """
    own = {key: whole_of(fields, key) for key in names if key in fields}
    return {key: tokens if length is None or length < 0 else min(length, tokens) for key, length in own.items()}
