"""`openai:MODEL`: any OpenAI-compatible server as a backend, over HTTP, with log-probabilities for each token.

The server is `base_url`, else `OPENAI_BASE_URL`, else the one of OpenAI. The key is read from `OPENAI_API_KEY` and is
used only in the header of requests.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Final

import httpx

from justenough.backends.http import Patience, Site, log, models_of, rejected, unreachable
from justenough.backends.noise import noise_key
from justenough.backends.notation import notation_for
from justenough.backends.protocol import Finish, Request
from justenough.backends.registry import Options
from justenough.errors import BackendRejected, BackendUnavailable, InputError, LogprobsMissing
from justenough.prompts import Prompts
from justenough.signal.signal import Logits, Signal
from justenough.signal.thought import ThoughtFormat
from justenough.trace import Json, Token
from justenough.wire.chunks import Choice, Chunk, error_of
from justenough.wire.events import EventReader, is_end
from justenough.wire.lenient import read_strictly
from justenough.wire.logprobs import aligned, tokens_of, unmasked

OPENAI: Final = "https://api.openai.com/v1"
PATIENCE: Final = 3
"""Pieces of text without log-probabilities after which the stream is refused."""

_LOGITS: Final[Mapping[str, Logits]] = {"llamacpp": "raw", "vllm": "raw", "sglang": "processed"}
"""What servers report by default, by the `owned_by` of their models; unknown for other servers."""
_MISSING: Final = (
    "OpenAI: not all models return logprobs/top_logprobs; vLLM: --max-logprobs 20; llama.cpp: n_probs/top_logprobs;"
    " SGLang: top_logprobs; a gateway in between must forward them"
)


class OpenAIBackend:
    """Streams chat completions from an OpenAI-compatible server."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str = OPENAI,
        concurrency: int = 8,
        prompts: str | None = None,
        thought: str | None = None,
        server: str = "unknown",
    ) -> None:
        self._notation = notation_for(model, prompts=prompts, thought=thought)
        self.model = model
        self.prompts: Prompts = self._notation.prompts
        self.concurrency = concurrency
        self.server = server
        """`owned_by` of the server's models: `llamacpp`, `vllm`, `sglang` or another name."""
        self._site = Site(base_url)
        # Whether to request thoughts inside the text; set to False when the server refuses the field.
        self._plain_thoughts = server not in ("vllm", "sglang") and not self._site.is_openai
        # Set to False when the server refuses the request because of its log-probabilities.
        self._asks_for_logprobs = True
        self._client: httpx.AsyncClient | None = None

    def signal(self, *, temperature: float, top_k: int) -> Signal:
        """Entropy of the top k; before or after temperature as known for this kind of server."""
        return Signal(top_k=top_k, logits=_LOGITS.get(self.server, "unknown"), temperature=temperature)

    def read(self, problem: str) -> str:
        """The problem in the model's notation; raises `ProblemRefused` for a problem outside its language."""
        return self._notation.read(problem)

    async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        """Generate for one request; closing the iterator closes the connection, and the server stops.

        Raises `BackendUnavailable`, also if the stream ends too early; `BackendRejected` with the server's message; and
        `LogprobsMissing` if the first tokens have fewer than `request.top_k` log-probabilities.
        """
        response = await self._send(request)
        thought = self.prompts.thought
        prefill = request.messages[-1].content if request.continue_final else ""
        inside = prefill.rfind(thought.open) > prefill.rfind(thought.close)
        raw, usable = _LOGITS.get(self.server) == "raw", not request.needs_logprobs
        reader = _TokenReader(request.top_k, raw, thought=thought, inside=inside, echo=prefill, usable=usable)
        try:
            async with aclosing(_chunks(response, self._site)) as chunks:
                async for chunk in chunks:
                    for token in reader.feed(chunk):
                        yield token
        finally:
            await response.aclose()
        yield reader.finish()

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _send(self, request: Request) -> httpx.Response:
        """Send the request; the caller closes the response."""
        asks = request.needs_logprobs or self._asks_for_logprobs
        try:
            return await self._send_body(self._body(request, logprobs=asks))
        except BackendRejected as refusal:
            if request.needs_logprobs or not asks or refusal.status not in (400, 422):
                raise
            response = await self._send_body(self._body(request, logprobs=False))
            self._asks_for_logprobs = False
            return response

    async def _send_body(self, body: dict[str, Json]) -> httpx.Response:
        extras: dict[str, Json] = {"reasoning_format": "none"} if self._plain_thoughts else {}
        try:
            return await self._post(body | extras)
        except BackendRejected as refusal:
            if not extras or refusal.status not in (400, 422):
                raise
            with suppress(BackendRejected):
                response = await self._post(body)
                self._plain_thoughts = False
                return response
            raise

    async def _post(self, body: dict[str, Json]) -> httpx.Response:
        if self._client is None:
            self._client = self._site.client()
        patience = Patience()
        while True:
            try:
                request = self._client.build_request("POST", "chat/completions", json=body, timeout=patience.timeout())
                response = await self._client.send(request, stream=True)
            except httpx.RequestError as error:
                if not await patience.again(error):
                    raise unreachable(error, self._site) from error
                continue
            kind = response.headers.get("content-type", "")
            if response.status_code == 200 and not kind.startswith(("application/json", "text/html")):
                return response
            try:
                refusal = await rejected(response, self._site)
            finally:
                await response.aclose()
            if not await patience.again(response, reason=str(refusal)):
                raise refusal

    def _body(self, request: Request, *, logprobs: bool) -> dict[str, Json]:
        body: dict[str, Json] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            # A server samples the same noise for the same seed and prompt.
            "seed": int.from_bytes(noise_key(request.seed, *request.key)[:4], "big") >> 1,
        }
        if logprobs:
            body |= {"logprobs": True, "top_logprobs": request.top_k}
        if request.continue_final:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if request.effort is not None:
            body["reasoning_effort"] = request.effort
        return body


def open_openai(model: str, options: Options) -> OpenAIBackend:
    """`openai:MODEL`; without MODEL, the server's only model.

    Where llama.cpp has no MODEL, its only model answers, and the backend has that model's name: a threshold is valid
    for the model that answers, and the gateway knows it by this name. Asks the server once for its models, so that an
    unreachable server is an error before the first request.
    """
    base_url = options.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
    site = Site(base_url)
    models = {} if site.is_openai and model else models_of(site, optional=bool(model))
    if not model:
        if len(models) != 1:
            raise InputError(
                f"{site} has {len(models)} models: {', '.join(sorted(models)[:8])}",
                hint="choose one: --model openai:NAME",
            )
        model = next(iter(models))
    server = models.get(model) or next(iter(models.values()), "unknown")
    if server == "llamacpp" and len(models) == 1 and model not in models:
        # It ignores the name in a request.
        (served,) = models
        log.warning("the server has no model %s: %s answers, and the traces carry its name", model, served)
        model = served
    concurrency = options.concurrency or 8
    return OpenAIBackend(
        model,
        base_url=base_url,
        concurrency=concurrency,
        prompts=options.prompts,
        thought=options.thought,
        server=server,
    )


async def _chunks(response: httpx.Response, site: Site) -> AsyncGenerator[Chunk, None]:
    """The events of a stream up to its end; raises if the stream ends too early or contains an error."""
    events, finished = EventReader(), False
    try:
        async for data in response.aiter_bytes():
            for payload in events.feed_bytes(data):
                if not payload.strip():
                    continue
                if is_end(payload):
                    if not finished:
                        raise BackendUnavailable(f"{site} ended the stream before the answer", hint="try again")
                    return
                chunk = read_strictly(payload)
                if (words := error_of(chunk, payload)) is not None:
                    raise BackendRejected(f"{site} sent an error: {site.redact(words)}", status=500, retryable=True)
                finished = finished or any(choice.finish_reason is not None for choice in chunk.choices or ())
                yield chunk
    except httpx.RequestError as error:
        if not finished:
            raise BackendUnavailable(
                f"{site} closed the connection in the middle of a stream: {type(error).__name__}", hint="try again"
            ) from error
    if not finished:
        raise BackendUnavailable(f"{site} closed the stream before its end", hint="try again")


@dataclass(slots=True)
class _TokenReader:
    """Converts chunks to tokens: puts thoughts back into the text and checks the log-probabilities."""

    top_k: int
    raw: bool
    """Whether the log-probabilities are from before the samplers."""
    thought: ThoughtFormat
    inside: bool
    """Whether the stream is inside a thought that the server sends apart from the text."""
    echo: str
    """The part of the prefill that the server may still repeat."""
    waiting: list[Token] = field(default_factory=list)
    """Tokens before the first usable log-probabilities."""
    pieces: int = 0
    usable: bool = False
    narrowest: int | None = None
    apart: bool = False
    repeated: bool = False
    """Whether the server now repeats in the text the thought that it has sent apart."""
    count: int = 0
    reason: str = "stop"
    reported: int | None = None
    prompt_tokens: int | None = None

    def feed(self, chunk: Chunk) -> list[Token]:
        """The tokens that a chunk completes."""
        if chunk.usage is not None:
            self.reported = chunk.usage.completion_tokens
            self.prompt_tokens = chunk.usage.prompt_tokens
        out: list[Token] = []
        for choice in chunk.choices or ():
            if not choice.index:
                out += self._read(choice)
        return out

    def _read(self, choice: Choice) -> list[Token]:
        self.reason = choice.finish_reason or self.reason
        entries = tokens_of(choice.logprobs)
        text = self._without_echo(self._whole(choice, entries), entries)
        tokens = aligned(entries, text, finish=choice.finish_reason) or ((Token(text=text),) if text else ())
        return self._checked([self._trimmed(token) for token in tokens], bool(text))

    def _whole(self, choice: Choice, entries: list[Token]) -> str:
        """The text as the model generated it, with the tags of a thought, which some servers send only as entries."""
        opening, closing = self.thought.open, "" if self.thought.cue else self.thought.close
        text = ""
        last = entries[-1].text if entries else ""
        reasoning, content = choice.texts(apart=self.apart)
        if reasoning:
            # Under load, vLLM does not remove the tag.
            text = reasoning if self.inside else opening + reasoning.removeprefix(opening)
            self.inside = self.apart = True
        leaves = self.apart and self.inside and bool(content)
        if self.repeated or (leaves and opening and content.startswith(opening)):
            _, close, content = content.partition(closing)
            self.repeated = not close
            content = content if close else ""
        if leaves:
            # A thought in plain text has its closing tag; a thought sent apart has lost it.
            text, self.inside = text + closing, False
        text += content
        if not text and last == opening and not self.inside:
            text, self.inside, self.apart = opening, True, True
        elif last == closing and self.inside and self.apart:
            text, self.inside = text + closing, False
        return text

    def _without_echo(self, text: str, entries: list[Token]) -> str:
        """The text without a prefill that some servers repeat, without entries, before the new text."""
        if not self.echo or not text:
            return text
        if not entries and self.echo.startswith(text):
            self.echo = self.echo[len(text) :]
            return ""
        repeated, self.echo = self.echo, ""
        new = sum(len(token.text) for token in entries)
        return text.removeprefix(repeated) if len(text) >= len(repeated) + new else text

    def _trimmed(self, token: Token) -> Token:
        """The token with exactly `top_k` log-probabilities or with none: fewer would be another signal."""
        top = (unmasked(token) if self.raw else token).top_logprobs
        if top is not None and len(top) < self.top_k:
            self.narrowest = len(top) if self.narrowest is None else min(self.narrowest, len(top))
            top = None
        return Token(text=token.text, top_logprobs=top and top[: self.top_k], logprob=token.logprob)

    def _checked(self, tokens: list[Token], has_text: bool) -> list[Token]:
        """Hold tokens back until the first usable entry; raises `LogprobsMissing` if none arrives."""
        self.count += len(tokens)
        if self.usable:
            return tokens
        self.waiting += tokens
        self.pieces += has_text
        if any(token.top_logprobs is not None for token in tokens):
            self.usable = True
            tokens, self.waiting = self.waiting, []
            return tokens
        if self.pieces >= PATIENCE:
            raise self._missing()
        return []

    def _missing(self) -> LogprobsMissing:
        arrived = "none" if self.narrowest is None else str(self.narrowest)
        reason = f"{self.top_k} log-probabilities were requested for each token, {arrived} arrived"
        fewer = f"--top-k {arrived} if the server gives no more; " if self.narrowest else ""
        return LogprobsMissing(reason, hint=fewer + _MISSING)

    def finish(self) -> Finish:
        """The finish with the server's token count, without the end-of-turn token that it counts but does not show.

        Raises `LogprobsMissing` if tokens are still held back.
        """
        if self.waiting:
            raise self._missing()
        tokens = max(self.count, (self.reported or 0) - (self.reason == "stop"))
        return Finish(reason=self.reason, tokens=tokens, prompt_tokens=self.prompt_tokens)
