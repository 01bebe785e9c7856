"""Reads a client's request. Members that the gateway does not change keep their bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from justenough.gateway.apis.api import Api, Untranslatable
from justenough.gateway.apis.registry import APIS
from justenough.gateway.control import Control, control_of
from justenough.gateway.exchange import RawHeaders
from justenough.gateway.fields import (
    LENGTHS,
    MEMBERS,
    Fields,
    fields_of,
    is_set,
    limit_of,
    limits_within,
    value_of,
    whole_of,
)
from justenough.gateway.place import KINDS, OTHERS, Kind, Place
from justenough.gateway.settings import MODES, GatewaySettings, Mode
from justenough.wire.values import UNREADABLE

_UNSUITABLE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar"), "structured"),
    # The last four are SGLang's; llama.cpp has `json_schema` too.
    **dict.fromkeys(("structured_outputs", "grammar", "json_schema", "regex", "ebnf", "structural_tag"), "structured"),
    "use_beam_search": "beam_search",
    # llama.cpp then returns probabilities after its samplers, which have no meaningful entropy.
    "post_sampling_probs": "sampling_probs",
    # vLLM returns these for whole answers only.
    "prompt_logprobs": "prompt_logprobs",
    # vLLM completes each of them beside the prompt.
    "prompt_embeds": "prompt",
    # vLLM and Fireworks then keep only the end of the prompt, which after a cut would be the thought alone.
    "truncate_prompt_tokens": "prompt",
    "prompt_truncate_len": "prompt",
}
"""Members of requests that cannot be gated, and the reason."""
_ALTERNATIVES: Final = ("n", "best_of", "n_cmpl")
_PLAIN: Final = frozenset(
    (
        *("model", "messages", "prompt", "stream", "stream_options", "user", "metadata", "store", "service_tier"),
        *("temperature", "seed", "n", "logprobs", "top_logprobs", "cache_prompt", "keep_alive", *LENGTHS),
    )
)
"""Members that do not shape the answer; a gated request has the calibrated temperature and one choice."""
_SAMPLING: Final = frozenset(
    (
        *("top_p", "top_k", "min_p", "typical_p", "stop", "chat_template_kwargs"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "repeat_penalty"),
    )
)
"""Further members that cannot change whether an answer contains log-probabilities."""
_EXACT: Final = frozenset(
    (
        *(*LENGTHS, *_ALTERNATIVES, "model", "messages", "prompt", "input", "stream", "stream_options", "logprobs"),
        *("top_logprobs", "max_output_tokens", "options", "background"),
    )
)
"""Members that the gateway reads or changes. Servers in Go, such as Ollama, also read them from names in other case."""
_STREAM_OPTIONS: Final = frozenset(("include_usage", "continuous_usage_stats"))


class _Typed(msgspec.Struct, gc=False):
    """A part of a message, or the form of a response."""

    type: str | None = None


class Message(msgspec.Struct, gc=False):
    """The members of a chat message that the gateway reads."""

    role: str = ""
    content: msgspec.Raw = msgspec.Raw()


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a completion; a struct, which is copied much faster than a dataclass."""

    place: Place
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
    thinking_budget: int | None = None
    """The limit on its thought that the server is asked to keep; None if it is asked for none."""
    unlimited_body: bytes = b""
    """The body before `limited` changed it; empty if it did not."""
    chat: CompletionRequest | None = None
    """The same request as a chat, if it is one of another API and can be gated."""
    in_background: bool = False
    """Whether the answer is generated after the request has ended."""

    @property
    def api(self) -> Api | None:
        """Its API, None for OpenAI's completions."""
        return APIS.get(self.place.kind)

    @property
    def kind(self) -> Kind:
        """What is asked for."""
        return self.place.kind

    def for_engine(self, engine: str) -> CompletionRequest:
        """The request at the path where this engine serves it, with the model that its own path names."""
        if engine == "unknown":
            return self
        model = None if self.place.deployment is None else msgspec.Raw(msgspec.json.encode(self.place.deployment))
        fields = self.fields if model is None else {"model": model, **self.fields}
        return replace(self, place=self.place.usual, fields=fields)

    @property
    def problem(self) -> str | None:
        """The text of the last message, or the prompt."""
        try:
            if self.kind == "completion":
                return value_of(self.fields, "prompt", str)
            messages = value_of(self.fields, "messages", list[Message])
            return msgspec.json.decode(messages[-1].content, type=str) if messages else None
        except UNREADABLE:
            return None

    @property
    def is_plain(self) -> bool:
        """Whether all members are known not to shape the answer, so that it says something about the model."""
        return self.fields.keys() <= _PLAIN

    @property
    def keeps_logprobs(self) -> bool:
        """Whether no member can change whether the answer contains log-probabilities, or is refused with them."""
        # A server may check these options only in a stream, which the gateway always requests.
        options = value_of(self.fields, "stream_options", dict[str, msgspec.Raw]) or {}
        return self.fields.keys() <= _PLAIN | _SAMPLING and options.keys() <= _STREAM_OPTIONS

    @property
    def identity(self) -> bytes:
        """The bytes that identify a repeated request; independent of the budget that is left."""
        return self.unlimited_body or self.body

    def stream_options_with(self, options: Mapping[str, object]) -> dict[str, object]:
        """The request's `stream_options` with further members."""
        own = value_of(self.fields, "stream_options", dict[str, msgspec.Raw]) or {}
        return {**own, **options}

    def limited(self, tokens: int, *, member: str) -> CompletionRequest:
        """The request with at most so many completion tokens per choice, written in `member` if it has no limit."""
        least = tokens if self.max_tokens is None else min(tokens, self.max_tokens)
        if self.api is not None:
            limits = self.api.limits(self.fields, tokens)
        else:
            own = limits_within(self.fields, LENGTHS, tokens)
            # Only llama.cpp reads `n_predict`. OpenAI refuses both of its own members together.
            limits = {**own, **({} if own.keys() - {"n_predict"} else {member: least})}
        body = self.with_fields(**limits)
        chat = None if self.chat is None else self.chat.limited(tokens, member="max_tokens")
        fields = MEMBERS.decode(body)
        return replace(self, fields=fields, body=body, max_tokens=least, unlimited_body=self.identity, chat=chat)

    def with_thinking(self, tokens: int, *, member: str) -> CompletionRequest:
        """The request with a limit on its thought, unless it has one."""
        # llama.cpp reads both names, and only one of them counts.
        if not self.fields.keys().isdisjoint((member, "reasoning_budget_tokens")):
            return self
        body = self.with_fields(**{member: tokens})
        return replace(
            self, fields=MEMBERS.decode(body), body=body, thinking_budget=tokens, unlimited_body=self.identity
        )

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


def read_request(place: Place | str, body: bytes, headers: RawHeaders) -> CompletionRequest:
    """Read a request at a place or a usual path; raises `Refused` only for an invalid `justenough` object or header.

    A request that cannot be read is relayed: the upstream reports its errors.
    """
    if isinstance(place, str):
        place = Place(kind={**KINDS, **OTHERS}[place])
    unread = CompletionRequest(place=place, fields={}, body=body, control=control_of(headers), readable=False)
    request = replace(unread, relay_reason="unreadable")
    try:
        fields = fields_of(body)
    except UNREADABLE:
        return request
    if fields is None:
        return replace(unread, relay_reason="complex")
    if any(key not in _EXACT and key.casefold() in _EXACT for key in fields):
        return request
    request = replace(request, fields=fields)
    if "justenough" in fields:
        control = control_of(headers, fields.pop("justenough"))
        request = replace(request, control=control, body=msgspec.json.encode(fields))
    try:
        # `_read` skips the texts, so it does not notice bytes that are not UTF-8.
        if not body.isascii():
            body.decode()
        return _read(request) if request.api is None else _translated(request, request.api)
    except UNREADABLE:
        return request


def _translated(request: CompletionRequest, api: Api) -> CompletionRequest:
    """A request of another API, with the same request as a chat; raises one of `UNREADABLE`."""
    fields = request.fields
    request = replace(
        request,
        max_tokens=api.max_tokens(fields),
        relay_reason=None,
        readable=True,
        choices=_choices(fields),
        in_background=value_of(fields, "background", bool) or False,
    )
    try:
        body = msgspec.json.encode(api.chat(fields))
    except Untranslatable as error:
        return replace(request, relay_reason=error.reason)
    except UNREADABLE:
        # Its limit can be read, and its server says what is wrong.
        return replace(request, relay_reason="unreadable")
    chat = replace(read_request(request.place.of_chat, body, []), control=request.control)
    return replace(request, chat=chat, relay_reason=chat.relay_reason)


def _read(request: CompletionRequest) -> CompletionRequest:
    fields = request.fields
    options = value_of(fields, "stream_options", dict[str, msgspec.Raw]) or {}
    if request.kind == "chat":
        top = whole_of(fields, "top_logprobs") or 0
        asks = value_of(fields, "logprobs", bool) or False
    else:
        # A number in OpenAI's protocol. llama.cpp also accepts `true`.
        plain = bytes(fields.get("logprobs", b"null")) in (b"true", b"false")
        number = int(value_of(fields, "logprobs", bool) or False) if plain else whole_of(fields, "logprobs")
        top, asks = number or 0, bool(number) if plain else number is not None
    reason = _chat_reason(fields) if request.kind == "chat" else _completion_reason(fields)
    if top < 0:
        # vLLM returns the whole vocabulary for -1, others refuse it. The gate's own number must not replace it.
        reason = reason or "top_logprobs"
    return replace(
        request,
        stream=value_of(fields, "stream", bool) or False,
        include_usage=value_of(options, "include_usage", bool) or False,
        continuous_usage=all(value_of(options, key, bool) for key in _STREAM_OPTIONS),
        logprobs=asks,
        top_logprobs=top,
        max_tokens=limit_of(fields, LENGTHS),
        temperature=value_of(fields, "temperature", float),
        model=value_of(fields, "model", str) or request.place.deployment,
        choices=_choices(fields),
        relay_reason=reason,
        readable=True,
    )


def _choices(fields: Fields) -> int:
    """Completions that the upstream generates: all alternatives of all prompts."""
    alternatives = max(1, *(whole_of(fields, key) or 1 for key in _ALTERNATIVES))
    prompts = sum(_prompts(bytes(fields[key])) for key in ("prompt", "prompt_embeds") if key in fields)
    return alternatives * max(1, prompts)


def _prompts(raw: bytes) -> int:
    """How many prompts a member has; a text and a list of token numbers are one."""
    prompts = msgspec.json.decode(raw, type=list[str | list[int] | int]) if raw.startswith(b"[") else []
    return 1 if all(isinstance(each, int) for each in prompts) else len(prompts)


def _common_reason(fields: Fields) -> str | None:
    """Why a request of any kind cannot be gated."""
    if any((whole_of(fields, key) or 1) > 1 for key in _ALTERNATIVES):
        return "n"
    form = value_of(fields, "response_format", _Typed)
    if form is not None and form.type not in (None, "text"):
        return "json_mode"
    return next((reason for key, reason in _UNSUITABLE.items() if is_set(fields, key)), None)


def _chat_reason(fields: Fields) -> str | None:
    if reason := _common_reason(fields):
        return reason
    if is_set(fields, "tools") or is_set(fields, "functions"):
        return "tools"
    if is_set(fields, "audio") or (value_of(fields, "modalities", list[str]) or ["text"]) != ["text"]:
        return "audio"
    messages = value_of(fields, "messages", list[Message])
    if not messages:
        return "no_messages"
    for message in messages:
        content = message.content
        if bytes(content).startswith(b"[") and any(
            part.type != "text" for part in msgspec.json.decode(content, type=list[_Typed])
        ):
            return "media"
    continues = is_set(fields, "continue_final_message") or bytes(fields.get("add_generation_prompt", b"")) == b"false"
    if messages[-1].role == "assistant" or continues:
        return "prefill"
    return None


def _completion_reason(fields: Fields) -> str | None:
    if reason := _common_reason(fields):
        return reason
    if not bytes(fields.get("prompt", b"")).startswith(b'"'):
        return "prompt"
    if is_set(fields, "echo") or is_set(fields, "suffix"):
        return "echo"
    return None
