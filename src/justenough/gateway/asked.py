"""What a client asks for: read from its body without changing what the gateway does not need to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

import msgspec

from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.settings import MODES, GatewaySettings, Mode

T = TypeVar("T")
Kind = Literal["chat", "completion"]
Fields = dict[str, msgspec.Raw]

KINDS: Final[Mapping[str, Kind]] = {"/v1/chat/completions": "chat", "/v1/completions": "completion"}
MOST_LOGPROBS: Final = 20
"""Largest `top_logprobs` of the OpenAI protocol."""
LENGTHS: Final = ("max_completion_tokens", "max_tokens", "n_predict")
"""Members that bound the completion's tokens."""
_SHAPED: Final = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "grammar")
_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Message(msgspec.Struct):
    """One message of a chat, as far as the gate looks at it."""

    role: str = ""
    content: str | list[dict[str, msgspec.Raw]] | None = None


class Control(msgspec.Struct, forbid_unknown_fields=True):
    """The `justenough` object of a request."""

    mode: str | None = None
    threshold: float | None = None
    max_steps: int | None = None
    decisions: bool = False
    """Whether the gate's decision on each step is told too, as it is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for a completion."""

    kind: Kind
    path: str
    fields: Fields
    """The body's members without `justenough`, each value as its bytes came."""
    body: bytes
    """The body for the upstream where nothing is gated: untouched, or without the `justenough` object."""
    control: Control
    stream: bool = False
    include_usage: bool = False
    logprobs: bool = False
    """Whether the client wants log-probabilities itself."""
    top_logprobs: int = 0
    max_tokens: int | None = None
    temperature: float | None = None
    model: str | None = None
    relayed: str | None = None
    """Why it is not for a gate; None where it may be."""

    @property
    def problem(self) -> str | None:
        """What was asked: the last message's text, or the prompt."""
        try:
            if self.kind == "completion":
                return _get(self.fields, "prompt", str)
            messages = _get(self.fields, "messages", list[Message]) or [Message()]
        except msgspec.MsgspecError:
            return None
        content = messages[-1].content
        return content if isinstance(content, str) else None

    def mode(self, settings: GatewaySettings) -> Mode:
        """What the client wants, within what the operator does."""
        limit = settings.effective_mode
        if self.control.mode is None:
            return limit
        return MODES[min(MODES.index(limit), MODES.index(mode_named(self.control.mode)))]

    def with_fields(self, **changed: object) -> bytes:
        """The body with members set, or taken out where the value is None."""
        members = dict(self.fields)
        for key, value in changed.items():
            if value is None:
                members.pop(key, None)
            else:
                members[key] = msgspec.Raw(msgspec.json.encode(value))
        return msgspec.json.encode(members)


def mode_named(name: str) -> Mode:
    """A mode by its name; raises `Refused`."""
    for mode in MODES:
        if mode == name:
            return mode
    raise Refused(400, f"justenough.mode is {name!r}, expected off, observe or gate", code="invalid_justenough")


def read_asked(path: str, body: bytes, headers: RawHeaders) -> Asked:
    """Read a request; raises `Refused` only for a `justenough` object that makes no sense.

    What else cannot be read is the upstream's to complain about, and is relayed.
    """
    kind = KINDS[path]
    control = _from_headers(headers)
    try:
        fields = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Asked(kind=kind, path=path, fields={}, body=body, control=control, relayed="unreadable")
    if "justenough" in fields:
        control = _merged(control, fields.pop("justenough"))
        body = msgspec.json.encode(fields)
    if control.mode is not None:
        mode_named(control.mode)
    asked = Asked(kind=kind, path=path, fields=fields, body=body, control=control)
    try:
        return _read(asked)
    except msgspec.MsgspecError:
        return replace(asked, relayed="unreadable")


def _read(asked: Asked) -> Asked:
    fields = asked.fields
    options = _get(fields, "stream_options", dict[str, msgspec.Raw]) or {}
    if asked.kind == "chat":
        top = _get(fields, "top_logprobs", int) or 0
        wanted = _get(fields, "logprobs", bool) or False
    else:
        # A number in OpenAI's protocol; llama.cpp takes the chat's `true` as well.
        plain = bytes(fields.get("logprobs", b"null")) in (b"true", b"false")
        number = int(_get(fields, "logprobs", bool) or False) if plain else _get(fields, "logprobs", int)
        top, wanted = number or 0, bool(number) if plain else number is not None
    lengths = [_get(fields, key, int) for key in LENGTHS]
    return replace(
        asked,
        stream=_get(fields, "stream", bool) or False,
        include_usage=_get(options, "include_usage", bool) or False,
        logprobs=wanted,
        top_logprobs=top,
        max_tokens=next((length for length in lengths if length is not None and length > 0), None),
        temperature=_get(fields, "temperature", float),
        model=_get(fields, "model", str),
        relayed=_chat_reason(fields) if asked.kind == "chat" else _completion_reason(fields),
    )


def _common_reason(fields: Fields) -> str | None:
    if (_get(fields, "n", int) or 1) > 1 or (_get(fields, "best_of", int) or 1) > 1:
        return "n"
    if any(_given(fields, key) for key in _SHAPED):
        return "structured"
    if _given(fields, "use_beam_search"):
        return "beam_search"
    return None


def _chat_reason(fields: Fields) -> str | None:
    if reason := _common_reason(fields):
        return reason
    if _given(fields, "tools") or _given(fields, "functions"):
        return "tools"
    form = _get(fields, "response_format", dict[str, msgspec.Raw])
    if form and _get(form, "type", str) not in (None, "text"):
        return "json_mode"
    if _given(fields, "audio") or (_get(fields, "modalities", list[str]) or ["text"]) != ["text"]:
        return "audio"
    messages = _get(fields, "messages", list[Message])
    if not messages:
        return "no_messages"
    for message in messages:
        if isinstance(message.content, list) and any(_get(part, "type", str) != "text" for part in message.content):
            return "media"
    if messages[-1].role == "assistant" or _given(fields, "continue_final_message"):
        return "prefill"
    return None


def _completion_reason(fields: Fields) -> str | None:
    if reason := _common_reason(fields):
        return reason
    if not bytes(fields.get("prompt", b"")).startswith(b'"'):
        return "prompt"
    if _given(fields, "echo") or _given(fields, "suffix"):
        return "echo"
    return None


def _given(fields: Mapping[str, msgspec.Raw], key: str) -> bool:
    """Whether a member is there and says something."""
    return bytes(fields.get(key, b"null")) not in (b"null", b"false", b"[]", b"{}", b'""')


def _get(fields: Mapping[str, msgspec.Raw], key: str, kind: type[T]) -> T | None:
    """A member's value; None where it is absent or null. Raises `msgspec.MsgspecError` for another type."""
    raw = fields.get(key)
    return None if raw is None or bytes(raw) == b"null" else msgspec.json.decode(raw, type=kind)


def _from_headers(headers: RawHeaders) -> Control:
    found = {key: value.decode("latin-1") for key, value in headers if key.startswith(b"x-justenough-")}
    return _control(
        mode=found.get(b"x-justenough-mode"),
        threshold=found.get(b"x-justenough-threshold"),
        max_steps=found.get(b"x-justenough-max-steps"),
    )


def _control(*, mode: str | None, threshold: str | None, max_steps: str | None) -> Control:
    try:
        return _checked(
            Control(
                mode=mode,
                threshold=None if threshold is None else float(threshold),
                max_steps=None if max_steps is None else int(max_steps),
            )
        )
    except ValueError as error:
        raise Refused(400, "an x-justenough- header is no number", code="invalid_justenough") from error


def _merged(control: Control, raw: msgspec.Raw) -> Control:
    try:
        given = msgspec.json.decode(raw, type=Control)
    except msgspec.MsgspecError as error:
        raise Refused(400, f"justenough: {error}", code="invalid_justenough") from error
    return _checked(
        Control(
            mode=given.mode if given.mode is not None else control.mode,
            threshold=given.threshold if given.threshold is not None else control.threshold,
            max_steps=given.max_steps if given.max_steps is not None else control.max_steps,
            decisions=given.decisions,
        )
    )


def _checked(control: Control) -> Control:
    if control.threshold is not None and not 0 <= control.threshold < float("inf"):
        raise Refused(400, f"justenough.threshold is {control.threshold}, expected bits", code="invalid_justenough")
    if control.max_steps is not None and control.max_steps < 1:
        raise Refused(400, "justenough.max_steps is at least 1", code="invalid_justenough")
    return control
