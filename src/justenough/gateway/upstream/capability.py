"""What the upstream can do, found out by asking it: how a thought that was cut can be continued with its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

import msgspec

from justenough.gateway.exchange import UNREADABLE, RawHeaders, Refused
from justenough.gateway.upstream.client import Upstream
from justenough.thought import THINK

_T = TypeVar("_T")
Method = Literal["continue_final_message", "prefill", "template"]

_NOT_NOW: Final = frozenset((401, 429, 502, 503, 504))
"""Statuses that say nothing of what an upstream can do: it wants another key, or is loading or too busy."""
JSON: Final[RawHeaders] = [(b"content-type", b"application/json")]
_PREFILL: Final = f"{THINK.open}\nYes.\n{THINK.close}\n\nO"
_RENDERED: Final = ("messages", "model", "chat_template", "chat_template_kwargs")
"""Members of a chat that shape its prompt."""
_ANSWER_LIMIT: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The outcome of the probe."""

    engine: str
    """`llama.cpp`, `vllm` or `unknown`."""
    models: tuple[str, ...]
    context: int | None = None
    """Tokens that the smallest of its models holds; None where it does not tell."""
    chat: Method | None
    """How a chat's answer is elicited: by vLLM's `continue_final_message`, by an assistant message that the server
    continues (`prefill`), or by `/v1/completions` with the prompt that the server renders (`template`)."""
    temperature: float | None = None
    """What the upstream samples with where a request names none; None where it does not tell."""
    probe_tokens: int = 0
    """Tokens that finding out has cost."""
    extra: dict[str, object] = field(default_factory=dict)
    """Members that make this engine tell the prompt's tokens early in a stream."""


class NotProbed(Refused):
    """The upstream cannot be asked now: it is to be asked again."""

    def __init__(self, status: int) -> None:
        super().__init__(
            502, f"the upstream answers {status} to the probe", code="upstream_not_probed", kind="upstream_error"
        )


class _Model(msgspec.Struct):
    id: str = ""
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message = msgspec.field(default_factory=_Message)


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Reply(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage = msgspec.field(default_factory=_Usage)


class _Params(msgspec.Struct):
    temperature: float | None = None


class _Generation(msgspec.Struct):
    params: _Params = msgspec.field(default_factory=_Params)


class _Props(msgspec.Struct):
    default_generation_settings: _Generation


class _Version(msgspec.Struct):
    version: str


class _Prompt(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: list[int]


async def call(
    upstream: Upstream, method: str, target: str, *, headers: RawHeaders, body: object = None
) -> tuple[int, bytes]:
    """A small request of our own: status and body; raises `Refused` where the upstream cannot be asked."""
    data = None if body is None else msgspec.json.encode(body)
    kept = [*[(key, value) for key, value in headers if key == b"authorization"], *(JSON if data is not None else [])]
    async with upstream.open(method, target, headers=kept, body=data) as answer:
        parts, size = [], 0
        async for part in answer.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > _ANSWER_LIMIT:
                raise Refused(502, "the upstream's answer is too large", code="upstream_broken", kind="upstream_error")
        return answer.status, b"".join(parts)


async def rendered(
    upstream: Upstream, engine: str, chat: Mapping[str, msgspec.Raw], *, headers: RawHeaders
) -> str | None:
    """The prompt that the server makes of a chat: llama.cpp tells it, vLLM its tokens; None where it does not say."""
    asked = {key: chat[key] for key in _RENDERED if key in chat}
    if engine != "vllm":
        found = await _told(upstream, "/apply-template", asked, _Prompt, headers=headers)
        return None if found is None else found.prompt
    tokens = await _told(upstream, "/tokenize", asked, _Tokens, headers=headers)
    if tokens is None:
        return None
    told = {"tokens": tokens.tokens, **{key: asked[key] for key in ("model",) if key in asked}}
    found = await _told(upstream, "/detokenize", told, _Prompt, headers=headers)
    return None if found is None else found.prompt


async def _told(upstream: Upstream, target: str, body: object, kind: type[_T], *, headers: RawHeaders) -> _T | None:
    status, said = await call(upstream, "POST", target, headers=headers, body=body)
    return _read(said, kind) if status == 200 else None


async def probe(upstream: Upstream, *, headers: RawHeaders) -> Capabilities:
    """Find out what the upstream can do, with at most three generated tokens.

    Raises `Refused` where it is away, `NotProbed` where it cannot be asked now.
    """
    status, body = await call(upstream, "GET", "/v1/models", headers=headers)
    found = _read(body, _Models) if status == 200 else None
    listed = found.data if found is not None else []
    models = tuple(model.id for model in listed)
    if status in _NOT_NOW or status == 403:
        raise NotProbed(status)
    engine, temperature = await _engine(upstream, headers)
    asked: dict[str, object] = {"max_tokens": 1, "temperature": 0, "messages": _messages(prefill=True)}
    if models:
        asked["model"] = models[0]
    chat, spent = await _continues(upstream, asked, headers)
    if chat is None:
        plain = {key: msgspec.Raw(msgspec.json.encode(value)) for key, value in asked.items()}
        plain["messages"] = msgspec.Raw(msgspec.json.encode(_messages(prefill=False)))
        if await rendered(upstream, engine, plain, headers=headers) is not None:
            chat = "template"
    extra: dict[str, object] = {}
    if engine == "llama.cpp":
        extra = {"return_progress": True}
    elif engine == "vllm":
        extra = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    return Capabilities(
        engine=engine,
        models=models,
        context=min([model.max_model_len for model in listed if model.max_model_len is not None], default=None),
        chat=chat,
        temperature=temperature,
        probe_tokens=spent,
        extra=extra,
    )


async def _engine(upstream: Upstream, headers: RawHeaders) -> tuple[str, float | None]:
    status, body = await call(upstream, "GET", "/props", headers=headers)
    if status == 200 and (props := _read(body, _Props)) is not None:
        return "llama.cpp", props.default_generation_settings.params.temperature
    status, body = await call(upstream, "GET", "/version", headers=headers)
    return ("vllm" if status == 200 and _read(body, _Version) is not None else "unknown"), None


async def _continues(upstream: Upstream, asked: dict[str, object], headers: RawHeaders) -> tuple[Method | None, int]:
    """Whether an assistant's message is continued: it is echoed, or its turn is left open and the prompt is shorter."""
    target, spent, sizes = "/v1/chat/completions", 0, list[int]()
    for continued in (True, False):
        flags = {"continue_final_message": continued, "add_generation_prompt": False}
        status, body = await call(upstream, "POST", target, headers=headers, body=asked | flags)
        if status in _NOT_NOW:
            raise NotProbed(status)
        reply = _read(body, _Reply) if status == 200 else None
        if reply is None or not reply.choices:
            return None, spent
        spent += reply.usage.completion_tokens
        sizes.append(reply.usage.prompt_tokens)
        said = reply.choices[0].message
        if continued and (said.content or "").startswith(_PREFILL):
            return "prefill", spent
    return ("continue_final_message" if 0 < sizes[0] < sizes[1] else None), spent


def _messages(*, prefill: bool) -> list[dict[str, str]]:
    messages = [{"role": "user", "content": "Say OK."}]
    return [*messages, {"role": "assistant", "content": _PREFILL}] if prefill else messages


def _read(body: bytes, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE:
        return None
