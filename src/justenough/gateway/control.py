"""The `justenough` object of a request, and the headers with the same meaning."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.settings import Mode
from justenough.wire.values import UNREADABLE

_Positive = Annotated[int, msgspec.Meta(ge=1)]

_CONTROL_HEADERS: Final = frozenset(
    (b"x-justenough-mode", b"x-justenough-threshold", b"x-justenough-max-steps", b"x-justenough-budget")
)
_EXPECTED: Final = "mode: off, observe or gate; threshold: bits, at least 0; max_steps, budget: at least 1"


class Control(msgspec.Struct, forbid_unknown_fields=True):
    """The `justenough` object of a request."""

    mode: Mode | None = None
    threshold: Annotated[float, msgspec.Meta(ge=0)] | None = None
    max_steps: _Positive | None = None
    decisions: bool = False
    """Whether the client also wants the gate's decision on each step, as it is taken."""
    budget: _Positive | None = None
    """Completion tokens of the whole request, including elicited answers and later steps."""


def control_of(headers: RawHeaders, member: msgspec.Raw | None = None) -> Control:
    """The headers and the `justenough` object together; the object takes precedence. Raises `Refused`."""
    prefix = b"x-justenough-"
    texts = {
        key.removeprefix(prefix).decode("latin-1").replace("-", "_"): value.decode("latin-1")
        for key, value in headers
        if key in _CONTROL_HEADERS
    }
    try:
        from_headers = msgspec.convert(texts, Control, strict=False)
        members = {} if member is None else msgspec.json.decode(member, type=dict[str, object])
        for key, value in members.items():
            if isinstance(value, float) and value.is_integer():
                members[key] = int(value)
        own = msgspec.convert(members, Control)
    except UNREADABLE as error:
        raise Refused(400, f"justenough: {error} (expected {_EXPECTED})", code="invalid_justenough") from error
    for key in ("mode", "threshold", "max_steps", "budget"):
        if getattr(own, key) is None:
            setattr(own, key, getattr(from_headers, key))
    if own.threshold == float("inf"):
        raise Refused(400, f"justenough.threshold is inf, expected {_EXPECTED}", code="invalid_justenough")
    return own
