"""What a client asks for: read from its body without changing what the gateway does not need to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

import msgspec

from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.settings import MODES, GatewaySettings, Mode
from justenough.wire import UNREADABLE

T = TypeVar("T")
Kind = Literal["chat", "completion", "response"]
Fields = dict[str, msgspec.Raw]

KINDS: Final[Mapping[str, Kind]] = {"/v1/chat/completions": "chat", "/v1/completions": "completion"}
MOST_LOGPROBS: Final = 20
"""Largest `top_logprobs` of the OpenAI protocol."""
LENGTHS: Final = ("max_completion_tokens", "max_tokens", "n_predict")
"""Members that bound the completion's tokens."""
RESPONSES: Final = "/v1/responses"
LENGTHS_OF_RESPONSES: Final = ("max_output_tokens",)
_SHAPED: Final = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "grammar")
_PLAIN: Final = frozenset(
    (
        *("model", "messages", "prompt", "stream", "stream_options", "user", "metadata", "store", "service_tier"),
        *("temperature", "top_p", "top_k", "min_p", "typical_p", "seed", "stop", "n", "reasoning_effort"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "repeat_penalty"),
        *("chat_template_kwargs", "logprobs", "top_logprobs", "cache_prompt", "keep_alive", *LENGTHS),
    )
)
"""Members that cannot change whether an answer carries log-probabilities."""
_LARGE: Final = 1 << 20
"""Bytes of a body below which its structure is not counted."""
_MOST_OF: Final[Mapping[bytes, int]] = {b",": 1_000_000, b'":': 200_000, b"{": 200_000, b"[": 200_000}
"""Structure that a body may hold: reading more of it would hold up every other stream."""
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
    budget: int | None = None
    """Completion tokens of the whole request, elicited answers and later steps included."""


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
    continuous_usage: bool = False
    """Whether each event is to tell the tokens so far, as vLLM can."""
    logprobs: bool = False
    """Whether the client wants log-probabilities itself."""
    top_logprobs: int = 0
    max_tokens: int | None = None
    temperature: float | None = None
    model: str | None = None
    relayed: str | None = None
    """Why it is not for a gate; None where it may be."""
    readable: bool = True
    """Whether what bounds its tokens can be read."""
    choices: int = 1
    """Completions that it asks for."""
    sent: bytes = b""
    """The body before its tokens were bounded: what the request is known by."""

    @property
    def problem(self) -> str | None:
        """What was asked: the last message's text, or the prompt."""
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
        """Whether none of its members can change which log-probabilities the answer carries."""
        return self.fields.keys() <= _PLAIN

    @property
    def identity(self) -> bytes:
        """The same for a repeated request, whatever was left of a budget."""
        return self.sent or self.body

    def asking_for_usage(self) -> dict[str, object]:
        """`stream_options` that ask for the usage beside what else they say."""
        own = _get(self.fields, "stream_options", dict[str, msgspec.Raw]) or {}
        return {**own, "include_usage": True}

    def bounded(self, tokens: int, *, member: str) -> Asked:
        """The request with at most so many completion tokens each choice, said by `member` where it has none."""
        names = LENGTHS_OF_RESPONSES if self.kind == "response" else LENGTHS
        least = tokens if self.max_tokens is None else min(tokens, self.max_tokens)
        # Of several the upstream may take any; a length that is none, such as -1, is endless to some.
        own = {key: _whole(self.fields, key) for key in names if key in self.fields}
        bounds = {key: tokens if length is None or length < 0 else min(length, tokens) for key, length in own.items()}
        body = self.with_fields(**(bounds or {member: least}))
        return replace(self, fields=_decoder.decode(body), body=body, max_tokens=least, sent=self.identity)

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
    if _is_too_complex(body):
        return Asked(kind=kind, path=path, fields={}, body=body, control=control, relayed="complex", readable=False)
    try:
        fields = _decoder.decode(body)
    except UNREADABLE:
        return Asked(kind=kind, path=path, fields={}, body=body, control=control, relayed="unreadable", readable=False)
    if "justenough" in fields:
        control = _merged(control, fields.pop("justenough"))
        body = msgspec.json.encode(fields)
    asked = Asked(kind=kind, path=path, fields=fields, body=body, control=control)
    try:
        return _read(asked)
    except UNREADABLE:
        return replace(asked, relayed="unreadable", readable=False)


def _is_too_complex(body: bytes) -> bool:
    """Whether a large body has more members or elements than can be read between two tokens of other streams."""
    return len(body) > _LARGE and any(body.count(mark) > most for mark, most in _MOST_OF.items())


def read_responses(body: bytes) -> Asked:
    """Read a request of `/v1/responses` as far as a token budget must; raises `Refused` where that cannot be."""
    if _is_too_complex(body):
        raise Refused(400, "under a token budget the request must be readable", code="unreadable")
    try:
        fields = _decoder.decode(body)
        length = _whole(fields, "max_output_tokens")
        if _get(fields, "background", bool):
            raise Refused(403, "under a token budget nothing is generated in the background", code="not_counted")
    except UNREADABLE as error:
        raise Refused(400, "under a token budget the request must be readable", code="unreadable") from error
    positive = length if length is not None and length > 0 else None
    return Asked(kind="response", path=RESPONSES, fields=fields, body=body, control=Control(), max_tokens=positive)


def _read(asked: Asked) -> Asked:
    fields = asked.fields
    options = _get(fields, "stream_options", dict[str, msgspec.Raw]) or {}
    if asked.kind == "chat":
        top = _whole(fields, "top_logprobs") or 0
        wanted = _get(fields, "logprobs", bool) or False
    else:
        # A number in OpenAI's protocol; llama.cpp takes the chat's `true` as well.
        plain = bytes(fields.get("logprobs", b"null")) in (b"true", b"false")
        number = int(_get(fields, "logprobs", bool) or False) if plain else _whole(fields, "logprobs")
        top, wanted = number or 0, bool(number) if plain else number is not None
    lengths = [_whole(fields, key) for key in LENGTHS]
    reason = _chat_reason(fields) if asked.kind == "chat" else _completion_reason(fields)
    if top < 0:
        # vLLM gives the whole vocabulary for -1, others refuse it: with the gate's number in its place neither would.
        reason = reason or "top_logprobs"
    return replace(
        asked,
        stream=_get(fields, "stream", bool) or False,
        include_usage=_get(options, "include_usage", bool) or False,
        continuous_usage=all(_get(options, key, bool) for key in ("include_usage", "continuous_usage_stats")),
        logprobs=wanted,
        top_logprobs=top,
        max_tokens=next((length for length in lengths if length is not None and length >= 0), None),
        temperature=_get(fields, "temperature", float),
        model=_get(fields, "model", str),
        choices=_choices(fields),
        relayed=reason,
    )


def _choices(fields: Fields) -> int:
    """Completions that are generated: alternatives of each prompt."""
    alternatives = max(_whole(fields, key) or 1 for key in ("n", "best_of", "n_cmpl"))
    prompt = bytes(fields.get("prompt", b'""'))
    if not prompt.startswith(b"["):
        return max(1, alternatives)
    prompts = msgspec.json.decode(prompt, type=list[msgspec.Raw])
    tokens = all(not bytes(each).startswith((b"[", b'"')) for each in prompts)
    return max(1, alternatives) * (1 if tokens else len(prompts))


def _common_reason(fields: Fields) -> str | None:
    if any((_whole(fields, key) or 1) > 1 for key in ("n", "best_of", "n_cmpl")):
        return "n"
    if any(_given(fields, key) for key in _SHAPED):
        return "structured"
    if _given(fields, "use_beam_search"):
        return "beam_search"
    if _given(fields, "post_sampling_probs"):
        # llama.cpp then gives probabilities after its samplers, of which no entropy can be taken.
        return "sampling_probs"
    if _given(fields, "prompt_logprobs"):
        # vLLM gives these for whole answers only.
        return "prompt_logprobs"
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
    _get(fields, "prompt", str)
    if _given(fields, "echo") or _given(fields, "suffix"):
        return "echo"
    return None


def _given(fields: Mapping[str, msgspec.Raw], key: str) -> bool:
    """Whether a member is there and says something."""
    return bytes(fields.get(key, b"null")) not in (b"null", b"false", b"[]", b"{}", b'""')


def _get(fields: Mapping[str, msgspec.Raw], key: str, kind: type[T]) -> T | None:
    """A member's value; None where it is absent or null. Raises one of `UNREADABLE` for another type."""
    raw = fields.get(key)
    return None if raw is None or bytes(raw) == b"null" else msgspec.json.decode(raw, type=kind)


def _whole(fields: Mapping[str, msgspec.Raw], key: str) -> int | None:
    """A member's whole number, `5.0` among them: to JSON it is one, and some clients write it so."""
    try:
        return _get(fields, key, int)
    except msgspec.ValidationError:
        number = _get(fields, key, float)
        if number is None or not number.is_integer():
            raise
        return int(number)


def _from_headers(headers: RawHeaders) -> Control:
    found = {key: value.decode("latin-1") for key, value in headers if key.startswith(b"x-justenough-")}
    return _control(
        mode=found.get(b"x-justenough-mode"),
        threshold=found.get(b"x-justenough-threshold"),
        max_steps=found.get(b"x-justenough-max-steps"),
        budget=found.get(b"x-justenough-budget"),
    )


def _control(*, mode: str | None, threshold: str | None, max_steps: str | None, budget: str | None) -> Control:
    try:
        return _checked(
            Control(
                mode=mode,
                threshold=None if threshold is None else float(threshold),
                max_steps=None if max_steps is None else int(max_steps),
                budget=None if budget is None else int(budget),
            )
        )
    except ValueError as error:
        raise Refused(400, "an x-justenough- header is no number", code="invalid_justenough") from error


def _merged(control: Control, raw: msgspec.Raw) -> Control:
    try:
        members = msgspec.json.decode(raw, type=dict[str, object])
        for key, value in members.items():
            if isinstance(value, float) and value.is_integer():
                members[key] = int(value)
        given = msgspec.convert(members, Control)
    except UNREADABLE as error:
        raise Refused(400, f"justenough: {error}", code="invalid_justenough") from error
    return _checked(
        Control(
            mode=given.mode if given.mode is not None else control.mode,
            threshold=given.threshold if given.threshold is not None else control.threshold,
            max_steps=given.max_steps if given.max_steps is not None else control.max_steps,
            decisions=given.decisions,
            budget=given.budget if given.budget is not None else control.budget,
        )
    )


def _checked(control: Control) -> Control:
    if control.mode is not None:
        mode_named(control.mode)
    if control.threshold is not None and not 0 <= control.threshold < float("inf"):
        raise Refused(400, f"justenough.threshold is {control.threshold}, expected bits", code="invalid_justenough")
    if control.max_steps is not None and control.max_steps < 1:
        raise Refused(400, "justenough.max_steps is at least 1", code="invalid_justenough")
    if control.budget is not None and control.budget < 1:
        raise Refused(400, "justenough.budget is at least 1 token", code="invalid_justenough")
    return control
