"""Probes what the upstream can do, above all how it can continue from a cut thought."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Literal, TypeVar, cast

import msgspec

from justenough.errors import BackendRejected
from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.upstream.client import Upstream
from justenough.signal.thought import THINK, ThoughtFormat, named_in, opened_by, tagged_with
from justenough.wire.chunks import THOUGHT_FIELDS, Chunk
from justenough.wire.lenient import read_chunk
from justenough.wire.values import read_or_none

T = TypeVar("T")
Method = Literal["continue_final_message", "prefill", "template"]

_NO_ACCESS: Final = frozenset((401, 403, 408, 425, 429))
"""Statuses below 500 that do not tell what an upstream can do: wrong key, too busy."""
_REFUSALS: Final = frozenset((400, 405, 422))
_NAMES_MEMBER: Final = re.compile(rb"continue_final_message|add_generation_prompt|assistant|prefill", re.IGNORECASE)
"""What a refusal names if the server continues no chat; any other refusal may have another reason."""
JSON: Final[RawHeaders] = [(b"content-type", b"application/json")]
_PREFILL: Final = f"{THINK.open}\nYes.\n{THINK.close}\n\nO"
_CONTINUED: Final = "K"
"""How a model continues it."""
QUESTION: Final = [{"role": "user", "content": "Say OK."}]
_MARK: Final = "They want OK."
_THOUGHTFUL: Final = {"role": "assistant", "content": "OK.", **dict.fromkeys(THOUGHT_FIELDS, _MARK)}
"""An answer with a thought; its prompt shows the tags of the model."""
_ANSWER: Final = {"role": "assistant", "content": _PREFILL}
_RENDERED: Final = ("messages", "model", "chat_template", "chat_template_kwargs")
"""Members of a chat that determine its prompt."""
_EXTRA: Final[Mapping[str, dict[str, object]]] = {
    "llama.cpp": {"return_progress": True},
    "vllm": {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
}
END: Final = 256
"""Characters of the prompt's end that are kept."""
_LONGEST_CALL: Final = 30.0
"""Seconds."""
LONGEST_ASIDE_S: Final = 5.0
"""Seconds for which the request of a client waits for the answer to a question of the gateway's own."""
PAUSE_S: Final = 60.0
"""Seconds for which such a question is not asked again after a silence."""
_ANSWER_LIMIT: Final = 4 * 1024 * 1024


class _Model(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    max_model_len: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Tokens that it holds; only vLLM tells."""


class _Models(msgspec.Struct):
    """The answer of `/v1/models`. With one odd name it is not used, since the number of models matters too."""

    data: list[_Model]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The outcome of the probe."""

    engine: str
    """`llama.cpp`, `vllm` or `unknown`."""
    models: tuple[str, ...]
    context: int | None = None
    """Smallest context length of its models, None if unknown."""
    chat: Method | None
    """How a chat is continued: by vLLM's `continue_final_message`, by an assistant message that the server continues
    (`prefill`), or by `/v1/completions` with the prompt that the server renders (`template`); None: in no way."""
    temperature: float | None = None
    """The upstream's default temperature, None if unknown."""
    probe_tokens: int = 0
    """Tokens that the probe generated."""
    thought: ThoughtFormat | None = None
    """The format of the model's thought, as its chat template shows it; None if unknown."""
    prompt_end: str = ""
    """How the prompt of a chat ends; empty if unknown."""
    apart: bool = False
    """Whether the thought that this prompt opens has a field of its own, so that no text belongs to it."""
    ends: dict[bytes, str | None] = field(default_factory=dict, compare=False)
    """How the prompt ends where clients shape the chat template, by the digest of their members; empty if the thought
    that it opens has a field of its own."""
    probed_model: str | None = None
    thinking: str | None = None
    """The member of a chat with which the server itself limits its thought."""
    doubtful: bool = False
    """Whether the answer to a side question told nothing."""
    extra: dict[str, object] = field(default_factory=dict)
    """Members with which this engine reports the prompt's tokens early in a stream."""

    @property
    def positives(self) -> int:
        """How many of the three questions have a positive answer: which models, which engine, how a chat continues."""
        return bool(self.models) + (self.engine != "unknown") + (self.chat is not None)

    @property
    def conclusive(self) -> bool:
        """Whether all have one; otherwise the upstream is probed again later.

        That it cannot do something is never final: a proxy, or a server that starts, can answer anything.
        """
        return self.positives == 3 and not self.doubtful


class _Answer(msgspec.Struct):
    """Members of the answers of llama.cpp and vLLM that the probe reads; each path has some of them."""

    default_generation_settings: dict[str, msgspec.Raw] | None = None
    chat_template: str | None = None
    """llama.cpp's `/props`."""
    version: str | None = None
    """vLLM's `/version`."""
    prompt: str | None = None
    """llama.cpp's `/apply-template`, vLLM's `/detokenize`."""
    tokens: list[int] | None = None
    """vLLM's `/tokenize`."""


class NotProbed(Refused):
    """The upstream cannot be probed now, and must be probed again."""

    def __init__(self, status: int) -> None:
        self.upstream_status = status
        self.is_about_client = status in (401, 403)
        """Whether the reason is the key of the client; then other clients can be served."""
        answers = f"answers {status} to the probe" if status else "has not answered the probe yet"
        if status == 200:
            answers = "gives the probe an answer that cannot be read; is it an OpenAI-compatible server?"
        super().__init__(502, f"the upstream {answers}", code="upstream_not_probed")


async def call(
    upstream: Upstream,
    method: str,
    target: str,
    *,
    headers: RawHeaders,
    body: object = None,
    longest_s: float | None = None,
) -> tuple[int, bytes]:
    """Send a small request of the gateway's own; returns status and body, raises `Refused` if there is no answer."""
    longest_s = _LONGEST_CALL if longest_s is None else longest_s
    data = None if body is None else msgspec.json.encode(body)
    sent = [*upstream.headers_for_own_request(headers), *(JSON if data is not None else [])]
    try:
        async with asyncio.timeout(longest_s), upstream.open(method, target, headers=sent, body=data) as answer:
            received = bytearray()
            async for part in answer.content.iter_any():
                received += part
                if len(received) > _ANSWER_LIMIT:
                    raise Refused(502, "the upstream's answer is too large", code="upstream_broken")
            return answer.status, bytes(received)
    except TimeoutError as error:
        raise Refused(504, "the upstream did not answer the gateway in time", code="upstream_timeout") from error


async def call_aside(
    upstream: Upstream, method: str, target: str, *, headers: RawHeaders, body: object = None
) -> tuple[int, bytes]:
    """`call` while the request of a client waits: for a shorter time, and after a silence not again for a while."""
    now = asyncio.get_running_loop().time()
    if now < upstream.silent.get(target, 0.0):
        raise Refused(504, "the upstream has not answered the gateway before", code="upstream_timeout")
    try:
        return await call(upstream, method, target, headers=headers, body=body, longest_s=LONGEST_ASIDE_S)
    except Refused as refused:
        if refused.code == "upstream_timeout":
            upstream.silent[target] = now + PAUSE_S
        raise


async def rendered(
    upstream: Upstream, engine: str, chat: Mapping[str, msgspec.Raw], *, headers: RawHeaders, aside: bool = False
) -> str | None:
    """The server's prompt for a chat: llama.cpp returns its text, vLLM its tokens; None if the server does neither.

    `aside`: whether it is asked by `call_aside`.
    """
    try:
        return await _prompt_of(upstream, engine, chat, headers=headers, aside=aside)
    except NotProbed:
        return None


async def _prompt_of(
    upstream: Upstream, engine: str, chat: Mapping[str, msgspec.Raw], *, headers: RawHeaders, aside: bool = False
) -> str | None:
    members = {key: chat[key] for key in _RENDERED if key in chat}
    if engine != "vllm":
        prompt = await _post(upstream, "/apply-template", members, headers=headers, aside=aside)
        return None if prompt is None else prompt.prompt
    tokens = await _post(upstream, "/tokenize", members, headers=headers, aside=aside)
    if tokens is None or tokens.tokens is None:
        return None
    model = {"model": members["model"]} if "model" in members else {}
    prompt = await _post(upstream, "/detokenize", {"tokens": tokens.tokens, **model}, headers=headers, aside=aside)
    return None if prompt is None else prompt.prompt


async def _post(upstream: Upstream, target: str, body: object, *, headers: RawHeaders, aside: bool) -> _Answer | None:
    status, answer = await (call_aside if aside else call)(upstream, "POST", target, headers=headers, body=body)
    if is_passing(status, answer):
        raise NotProbed(status)
    return read_or_none(answer, _Answer) if status == 200 else None


def is_passing(status: int, answer: bytes) -> bool:
    """Whether an answer tells nothing about what the server can do: it is too busy, or something else answers."""
    return is_busy(status) or (status == 200 and read_or_none(answer, _Answer) is None)


def is_busy(status: int) -> bool:
    """Whether a status tells nothing about what the server can do."""
    return status in _NO_ACCESS or status >= 500


async def probe(
    upstream: Upstream, *, headers: RawHeaders, calibrated: Container[str] = (), settle: bool = False
) -> Capabilities:
    """Find out what the upstream can do with a calibrated model, else the first one; at most three generated tokens.

    Raises `Refused` if it is not reachable, `NotProbed` if its answers do not tell whether it continues a chat. With
    `settle` the result is then that it does not.
    """
    status, body = await call(upstream, "GET", "/v1/models", headers=headers)
    if is_busy(status):
        raise NotProbed(status)
    answer = read_or_none(body, _Models) if status == 200 else None
    models = [] if answer is None else answer.data
    doubts = list[Refused]()

    async def aside(answer: Awaitable[T], otherwise: T) -> T:
        """The result of a side question; where its answer tells nothing, it is asked again by a later probe."""
        try:
            return await answer
        except Refused as refused:
            doubts.append(refused)
            return otherwise

    engine, temperature, template = await aside(_engine(upstream, headers), ("unknown", None, ""))
    request: dict[str, object] = {"max_tokens": 1, "temperature": 0, "messages": [*QUESTION, _ANSWER]}
    if models:
        request["model"] = next((model.id for model in models if model.id in calibrated), models[0].id)
    try:
        chat, spent = await _continues(upstream, request, headers)
    except NotProbed as error:
        if not settle or error.upstream_status in _NO_ACCESS or error.upstream_status >= 502:
            raise
        chat, spent = None, 0
    prompt = None
    if chat is None or engine != "unknown":
        prompt = await aside(_rendered(upstream, engine, request | {"messages": QUESTION}, headers), None)
    if chat is None and prompt is not None:
        chat = "template"
    thought = opened_by(prompt or "") or named_in(template)
    if thought is None and prompt is not None:
        question = request | {"messages": [*QUESTION, _THOUGHTFUL]}
        shown = await aside(_rendered(upstream, engine, question, headers), None)
        thought = tagged_with(shown or "", _MARK)
    return Capabilities(
        engine=engine,
        models=tuple(model.id for model in models),
        context=min([model.max_model_len for model in models if model.max_model_len is not None], default=None),
        chat=chat,
        temperature=temperature,
        probe_tokens=spent,
        thought=thought and replace(thought, opened=False),
        prompt_end=(prompt or "")[-END:],
        probed_model=cast("str | None", request.get("model")),
        extra=_EXTRA.get(engine, {}),
        doubtful=bool(doubts),
    )


async def _rendered(upstream: Upstream, engine: str, request: Mapping[str, object], headers: RawHeaders) -> str | None:
    members = {key: msgspec.Raw(msgspec.json.encode(value)) for key, value in request.items()}
    return await _prompt_of(upstream, engine, members, headers=headers)


async def _engine(upstream: Upstream, headers: RawHeaders) -> tuple[str, float | None, str]:
    """The engine, its default temperature, and its chat template."""
    status, body = await call(upstream, "GET", "/props", headers=headers)
    if status == 200 and (answer := read_or_none(body, _Answer)) and answer.default_generation_settings is not None:
        defaults = read_or_none(answer.default_generation_settings.get("params", b"{}"), dict[str, msgspec.Raw]) or {}
        temperature = read_or_none(defaults.get("temperature", b"null"), float)
        # The server has it in single precision: 0.800000011920929 is 0.8.
        temperature = None if temperature is None else round(temperature, 6)
        return "llama.cpp", temperature, answer.chat_template or ""
    status, body = await call(upstream, "GET", "/version", headers=headers)
    answer = read_or_none(body, _Answer) if status == 200 else None
    return "unknown" if answer is None or answer.version is None else "vllm", None, ""


async def _continues(upstream: Upstream, request: dict[str, object], headers: RawHeaders) -> tuple[Method | None, int]:
    """How a chat is continued: the server echoes the message, or the prompt is shorter because the turn stays open.

    Ollama does neither, but continues the word that the message begins, whatever the members of the request.
    """
    target, spent, sizes, texts = "/v1/chat/completions", 0, list[int](), list[str]()
    for continued in (True, False):
        flags = {"continue_final_message": continued, "add_generation_prompt": False}
        status, body = await call(upstream, "POST", target, headers=headers, body=request | flags)
        is_json = read_or_none(body, dict[str, msgspec.Raw]) is not None
        if status in _REFUSALS and is_json and _NAMES_MEMBER.search(body):
            return None, spent
        reply = _chunk(body) if status == 200 else None
        if reply is None or reply.choice is None:
            raise NotProbed(status)
        if reply.usage is not None:
            spent += reply.usage.completion_tokens or 0
        sizes.append((reply.usage.prompt_tokens or 0) if reply.usage is not None else 0)
        texts.append(reply.choice.content)
        if continued and texts[0].startswith(_PREFILL):
            return "prefill", spent
    if 0 < sizes[0] < sizes[1]:
        return "continue_final_message", spent
    return ("prefill" if all(text.startswith(_CONTINUED) for text in texts) else None), spent


def _chunk(body: bytes) -> Chunk | None:
    try:
        return read_chunk(body)
    except BackendRejected:
        return None
