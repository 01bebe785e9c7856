"""What the upstream can do, found out by asking it: how a thought that was cut can be continued with its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

import msgspec

from justenough.errors import BackendRejected
from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.upstream.client import Upstream
from justenough.thought import THINK
from justenough.wire import Chunk, Model, Prompt, Props, Tokens, Version, read_chunk, read_models, read_or_none

T = TypeVar("T")
Method = Literal["continue_final_message", "prefill", "template"]

_NO_ACCESS: Final = frozenset((401, 403, 429, 502, 503, 504))
"""Statuses that tell nothing of what an upstream can do: it wants another key, loads its model or is too busy."""
_CONCLUSIVE: Final = frozenset((400, 405, 422))
"""Statuses with which a server says that it does not take such a request. All others may pass."""
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
    conclusive: bool = True
    """Whether the upstream's answers settle what it can do; otherwise it is asked again later."""


class NotProbed(Refused):
    """The upstream cannot be asked now: it is to be asked again."""

    def __init__(self, status: int) -> None:
        self.answered = status
        super().__init__(
            502, f"the upstream answers {status} to the probe", code="upstream_not_probed", kind="upstream_error"
        )


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
        found = await _told(upstream, "/apply-template", asked, Prompt, headers=headers)
        return None if found is None else found.prompt
    tokens = await _told(upstream, "/tokenize", asked, Tokens, headers=headers)
    if tokens is None:
        return None
    told = {"tokens": tokens.tokens, **{key: asked[key] for key in ("model",) if key in asked}}
    found = await _told(upstream, "/detokenize", told, Prompt, headers=headers)
    return None if found is None else found.prompt


async def _told(upstream: Upstream, target: str, body: object, kind: type[T], *, headers: RawHeaders) -> T | None:
    status, said = await call(upstream, "POST", target, headers=headers, body=body)
    return read_or_none(said, kind) if status == 200 else None


async def probe(upstream: Upstream, *, headers: RawHeaders, settle: bool = False) -> Capabilities:
    """Find out what the upstream can do, with at most three generated tokens.

    Raises `Refused` where it is away, `NotProbed` where its answers are not conclusive. With `settle` such answers
    count as "it cannot continue a chat", for the time being.
    """
    status, body = await call(upstream, "GET", "/v1/models", headers=headers)
    if status in _NO_ACCESS or status >= 500:
        raise NotProbed(status)
    listed = _listed(body) if status == 200 else ()
    models = tuple(model.id for model in listed)
    engine, temperature = await _engine(upstream, headers)
    asked: dict[str, object] = {"max_tokens": 1, "temperature": 0, "messages": _messages(prefill=True)}
    if models:
        asked["model"] = models[0]
    conclusive = True
    try:
        chat, spent = await _continues(upstream, asked, headers)
    except NotProbed as error:
        if not settle or error.answered in _NO_ACCESS:
            raise
        chat, spent, conclusive = None, 0, False
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
        conclusive=conclusive,
    )


async def _engine(upstream: Upstream, headers: RawHeaders) -> tuple[str, float | None]:
    status, body = await call(upstream, "GET", "/props", headers=headers)
    if status == 200 and (props := read_or_none(body, Props)) is not None:
        return "llama.cpp", props.default_generation_settings.params.temperature
    status, body = await call(upstream, "GET", "/version", headers=headers)
    return ("vllm" if status == 200 and read_or_none(body, Version) is not None else "unknown"), None


async def _continues(upstream: Upstream, asked: dict[str, object], headers: RawHeaders) -> tuple[Method | None, int]:
    """Whether an assistant's message is continued: it is echoed, or its turn is left open and the prompt is shorter."""
    target, spent, sizes = "/v1/chat/completions", 0, list[int]()
    for continued in (True, False):
        flags = {"continue_final_message": continued, "add_generation_prompt": False}
        status, body = await call(upstream, "POST", target, headers=headers, body=asked | flags)
        if status in _CONCLUSIVE and read_or_none(body, dict[str, msgspec.Raw]) is not None:
            return None, spent
        reply = _chunk(body) if status == 200 else None
        if reply is None or reply.choice is None:
            raise NotProbed(status)
        if reply.usage is not None:
            spent += reply.usage.completion_tokens or 0
        sizes.append((reply.usage.prompt_tokens or 0) if reply.usage is not None else 0)
        if continued and reply.choice.content.startswith(_PREFILL):
            return "prefill", spent
    return ("continue_final_message" if 0 < sizes[0] < sizes[1] else None), spent


def _messages(*, prefill: bool) -> list[dict[str, str]]:
    messages = [{"role": "user", "content": "Say OK."}]
    return [*messages, {"role": "assistant", "content": _PREFILL}] if prefill else messages


def _listed(body: bytes) -> tuple[Model, ...]:
    try:
        return read_models(body)
    except BackendRejected:
        return ()


def _chunk(body: bytes) -> Chunk | None:
    try:
        return read_chunk(body)
    except BackendRejected:
        return None
