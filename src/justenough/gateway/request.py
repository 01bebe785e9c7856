"""Reads a client's request. Members that the gateway does not change keep their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.settings import MODES, GatewaySettings, Mode
from justenough.wire.values import UNREADABLE

T = TypeVar("T")
Kind = Literal["chat", "completion", "response"]
Fields = dict[str, msgspec.Raw]
_Positive = Annotated[int, msgspec.Meta(ge=1)]

KINDS: Final[Mapping[str, Kind]] = {"/v1/chat/completions": "chat", "/v1/completions": "completion"}
MOST_LOGPROBS: Final = 20
"""Largest `top_logprobs` of the OpenAI protocol."""
LENGTHS: Final = ("max_completion_tokens", "max_tokens", "n_predict")
"""Members that bound the completion's tokens."""
RESPONSES: Final = "/v1/responses"
LENGTHS_OF_RESPONSES: Final = ("max_output_tokens",)
_UNSUITABLE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar"), "structured"),
    **dict.fromkeys(("structured_outputs", "grammar"), "structured"),
    "use_beam_search": "beam_search",
    # llama.cpp then returns probabilities after its samplers, which have no meaningful entropy.
    "post_sampling_probs": "sampling_probs",
    # vLLM returns these for whole answers only.
    "prompt_logprobs": "prompt_logprobs",
}
"""Members of requests that cannot be gated, and the reason."""
_ALTERNATIVES: Final = ("n", "best_of", "n_cmpl")
_PLAIN: Final = frozenset(
    (
        *("model", "messages", "prompt", "stream", "stream_options", "user", "metadata", "store", "service_tier"),
        *("temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "stop", "n"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "repeat_penalty"),
        *("chat_template_kwargs", "logprobs", "top_logprobs", "cache_prompt", "keep_alive", *LENGTHS),
    )
)
"""Members that cannot change whether an answer carries log-probabilities."""
_CONTROL_HEADERS: Final = frozenset(
    (b"x-justenough-mode", b"x-justenough-threshold", b"x-justenough-max-steps", b"x-justenough-budget")
)
_EXPECTED: Final = "mode: off, observe or gate; threshold: bits, at least 0; max_steps, budget: at least 1"
_LARGE: Final = 1 << 20
"""Bytes of a body up to which its marks are not counted."""
_MOST_OF: Final[Mapping[bytes, int]] = {b",": 300_000, b"{": 60_000, b"[": 60_000}
"""How often each mark may occur in a large body; reading more would delay all other streams."""
_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Message(msgspec.Struct):
    """The members of a chat message that the gateway reads."""

    role: str = ""
    content: str | list[dict[str, msgspec.Raw]] | None = None


class Control(msgspec.Struct, forbid_unknown_fields=True):
    """The `justenough` object of a request."""

    mode: Mode | None = None
    threshold: Annotated[float, msgspec.Meta(ge=0)] | None = None
    max_steps: _Positive | None = None
    decisions: bool = False
    """Whether the client also wants the gate's decision on each step, as it is taken."""
    budget: _Positive | None = None
    """Completion tokens of the whole request, including elicited answers and later steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """A request for a completion."""

    kind: Kind
    path: str
    fields: Fields
    """The body's members without `justenough`, each value as its bytes came."""
    body: bytes
    """The body for the upstream without a gate: unchanged, or without the `justenough` object."""
    control: Control
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    """Whether each event shall contain the tokens so far, a feature of vLLM."""
    logprobs: bool = False
    """Whether the client itself asks for log-probabilities."""
    top_logprobs: int = 0
    max_tokens: int | None = None
    temperature: float | None = None
    model: str | None = None
    relay_reason: str | None = None
    """Why it cannot be gated; None if it can."""
    readable: bool = True
    """Whether the members that limit its tokens could be read."""
    choices: int = 1
    """Completions that the upstream generates for it."""
    unlimited_body: bytes = b""
    """The body before `limited` changed it; empty if it did not."""

    @property
    def problem(self) -> str | None:
        """The text of the last message, or the prompt."""
        try:
            if self.kind == "completion":
                return _get(self.fields, "prompt", str)
            messages = _get(self.fields, "messages", list[Message]) or [Message()]
        except UNREADABLE:
            return None
        content = messages[-1].content
        return content if isinstance(content, str) else None

    @property
    def is_plain(self) -> bool:
        """Whether all members are known to have no influence on the answer's log-probabilities."""
        return self.fields.keys() <= _PLAIN

    @property
    def identity(self) -> bytes:
        """The bytes that identify a repeated request; independent of the budget that is left."""
        return self.unlimited_body or self.body

    def stream_options_with(self, options: Mapping[str, object]) -> dict[str, object]:
        """The request's `stream_options` with further members."""
        own = _get(self.fields, "stream_options", dict[str, msgspec.Raw]) or {}
        return {**own, **options}

    def limited(self, tokens: int, *, member: str) -> CompletionRequest:
        """The request with at most so many completion tokens per choice, written in `member` if it has no limit."""
        names = LENGTHS_OF_RESPONSES if self.kind == "response" else LENGTHS
        least = tokens if self.max_tokens is None else min(tokens, self.max_tokens)
        # The upstream may use any of several limits. Some servers read -1 and the like as no limit.
        own = {key: _whole(self.fields, key) for key in names if key in self.fields}
        limits = {key: tokens if length is None or length < 0 else min(length, tokens) for key, length in own.items()}
        body = self.with_fields(**(limits or {member: least}))
        return replace(self, fields=_decoder.decode(body), body=body, max_tokens=least, unlimited_body=self.identity)

    def mode(self, settings: GatewaySettings) -> Mode:
        """The client's mode, but never more than the operator's."""
        return min(settings.effective_mode, self.control.mode or settings.effective_mode, key=MODES.index)

    def with_fields(self, **changed: object) -> bytes:
        """The body with changed members; a member with the value None is removed."""
        members = dict(self.fields)
        for key, value in changed.items():
            if value is None:
                members.pop(key, None)
            else:
                members[key] = msgspec.Raw(msgspec.json.encode(value))
        return msgspec.json.encode(members)


def read_request(path: str, body: bytes, headers: RawHeaders) -> CompletionRequest:
    """Read a request; raises `Refused` only for an invalid `justenough` object or header.

    A request that cannot be read is relayed: the upstream reports its errors.
    """
    unread = CompletionRequest(
        kind=KINDS[path], path=path, fields={}, body=body, control=_control(headers), readable=False
    )
    if _is_too_complex(body):
        return replace(unread, relay_reason="complex")
    request = replace(unread, relay_reason="unreadable")
    try:
        fields = _decoder.decode(body)
    except UNREADABLE:
        return request
    request = replace(request, fields=fields)
    if "justenough" in fields:
        control = _control(headers, fields.pop("justenough"))
        request = replace(request, control=control, body=msgspec.json.encode(fields))
    try:
        return _read(request)
    except UNREADABLE:
        return request


def _is_too_complex(body: bytes) -> bool:
    """Whether a large body has so many members or elements that reading it would delay other streams."""
    return len(body) > _LARGE and any(body.count(mark) > most for mark, most in _MOST_OF.items())


def read_responses(body: bytes) -> CompletionRequest:
    """Read what a token budget needs from a request of `/v1/responses`; raises `Refused` if that is impossible."""
    unreadable = Refused(400, "under a token budget the request must be readable", code="unreadable")
    if _is_too_complex(body):
        raise unreadable
    try:
        fields = _decoder.decode(body)
        length = _whole(fields, "max_output_tokens")
        if _get(fields, "background", bool):
            raise Refused(403, "a token budget allows no generation in the background", code="not_counted")
    except UNREADABLE as error:
        raise unreadable from error
    positive = length if length is not None and length > 0 else None
    return CompletionRequest(
        kind="response", path=RESPONSES, fields=fields, body=body, control=Control(), max_tokens=positive
    )


def _read(request: CompletionRequest) -> CompletionRequest:
    fields = request.fields
    options = _get(fields, "stream_options", dict[str, msgspec.Raw]) or {}
    if request.kind == "chat":
        top = _whole(fields, "top_logprobs") or 0
        asks = _get(fields, "logprobs", bool) or False
    else:
        # A number in OpenAI's protocol. llama.cpp also accepts `true`.
        plain = bytes(fields.get("logprobs", b"null")) in (b"true", b"false")
        number = int(_get(fields, "logprobs", bool) or False) if plain else _whole(fields, "logprobs")
        top, asks = number or 0, bool(number) if plain else number is not None
    lengths = [_whole(fields, key) for key in LENGTHS]
    reason = _chat_reason(fields) if request.kind == "chat" else _completion_reason(fields)
    if top < 0:
        # vLLM returns the whole vocabulary for -1, others refuse it. The gate's own number must not replace it.
        reason = reason or "top_logprobs"
    return replace(
        request,
        stream=_get(fields, "stream", bool) or False,
        include_usage=_get(options, "include_usage", bool) or False,
        continuous_usage=all(_get(options, key, bool) for key in ("include_usage", "continuous_usage_stats")),
        logprobs=asks,
        top_logprobs=top,
        max_tokens=next((length for length in lengths if length is not None and length >= 0), None),
        temperature=_get(fields, "temperature", float),
        model=_get(fields, "model", str),
        choices=_choices(fields),
        relay_reason=reason,
        readable=True,
    )


def _choices(fields: Fields) -> int:
    """Completions that the upstream generates: all alternatives of all prompts."""
    alternatives = max(1, *(_whole(fields, key) or 1 for key in _ALTERNATIVES))
    prompt = bytes(fields.get("prompt", b'""'))
    if not prompt.startswith(b"["):
        return alternatives
    prompts = msgspec.json.decode(prompt, type=list[msgspec.Raw])
    tokens = all(not bytes(each).startswith((b"[", b'"')) for each in prompts)
    return alternatives * (1 if tokens else len(prompts))


def _common_reason(fields: Fields) -> str | None:
    """Why a request of any kind cannot be gated."""
    if any((_whole(fields, key) or 1) > 1 for key in _ALTERNATIVES):
        return "n"
    return next((reason for key, reason in _UNSUITABLE.items() if _is_set(fields, key)), None)


def _chat_reason(fields: Fields) -> str | None:
    if reason := _common_reason(fields):
        return reason
    if _is_set(fields, "tools") or _is_set(fields, "functions"):
        return "tools"
    form = _get(fields, "response_format", dict[str, msgspec.Raw])
    if form and _get(form, "type", str) not in (None, "text"):
        return "json_mode"
    if _is_set(fields, "audio") or (_get(fields, "modalities", list[str]) or ["text"]) != ["text"]:
        return "audio"
    messages = _get(fields, "messages", list[Message])
    if not messages:
        return "no_messages"
    for message in messages:
        if isinstance(message.content, list) and any(_get(part, "type", str) != "text" for part in message.content):
            return "media"
    if messages[-1].role == "assistant" or _is_set(fields, "continue_final_message"):
        return "prefill"
    return None


def _completion_reason(fields: Fields) -> str | None:
    if reason := _common_reason(fields):
        return reason
    if not bytes(fields.get("prompt", b"")).startswith(b'"'):
        return "prompt"
    _get(fields, "prompt", str)
    if _is_set(fields, "echo") or _is_set(fields, "suffix"):
        return "echo"
    return None


def _is_set(fields: Mapping[str, msgspec.Raw], key: str) -> bool:
    """Whether a member is present and has a value that is not empty."""
    return bytes(fields.get(key, b"null")) not in (b"null", b"false", b"[]", b"{}", b'""')


def _get(fields: Mapping[str, msgspec.Raw], key: str, kind: type[T]) -> T | None:
    """A member's value, None if it is absent or null; raises one of `UNREADABLE` for another type."""
    raw = fields.get(key)
    return None if raw is None or bytes(raw) == b"null" else msgspec.json.decode(raw, type=kind)


def _whole(fields: Mapping[str, msgspec.Raw], key: str) -> int | None:
    """A member's whole number. `5.0` is one in JSON, and some clients write it."""
    try:
        return _get(fields, key, int)
    except msgspec.ValidationError:
        number = _get(fields, key, float)
        if number is None or not number.is_integer():
            raise
        return int(number)


def _control(headers: RawHeaders, member: msgspec.Raw | None = None) -> Control:
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
