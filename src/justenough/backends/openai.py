"""Any OpenAI-compatible server as a backend: `openai:MODEL`, over HTTP, with the log-probabilities of each token.

The server is `base_url`, else `OPENAI_BASE_URL`, else OpenAI's own; the key is read from `OPENAI_API_KEY` and goes
nowhere but into the request's header.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import httpx

from justenough.backends.http import Patience, Site, models_of, rejected, unreachable
from justenough.backends.protocol import Finish, Message, Request
from justenough.backends.registry import Options
from justenough.errors import BackendRejected, BackendUnavailable, InputError, LogprobsMissing
from justenough.prompts import PROMPTS, Prompts
from justenough.signal.signal import Logits, Signal
from justenough.thought import ThoughtFormat
from justenough.toy.families import parse
from justenough.trace import Json, Token
from justenough.wire import DONE, Choice, Chunk, EventReader, aligned, chat_chunk, read_json

OPENAI: Final = "https://api.openai.com/v1"
PATIENCE: Final = 3
"""Pieces of text that may come before the first log-probabilities."""

_LOGITS: Final[Mapping[str, Logits]] = {"llamacpp": "raw", "vllm": "raw", "sglang": "processed"}
"""What servers report unless told otherwise, by the `owned_by` of their models; of others it is not known."""
_MISSING: Final = (
    "OpenAI: not every model gives logprobs/top_logprobs; vLLM: --max-logprobs 20; llama.cpp: n_probs/top_logprobs;"
    " SGLang: top_logprobs; a gateway in between must pass them on"
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
        server: str = "unknown",
    ) -> None:
        name = prompts or ("embedded" if model.startswith("justenough-") else "general")
        if name not in PROMPTS:
            raise InputError(f"no prompts {name!r}", hint=f"one of {', '.join(PROMPTS)}")
        self.model = model
        self.prompts: Prompts = PROMPTS[name]
        self.concurrency = concurrency
        self.server = server
        """`owned_by` of the server's models: `llamacpp`, `vllm`, `sglang` or what it calls itself."""
        self._site = Site(base_url)
        # Whether to ask for thoughts inside the text; dropped once a server has refused the field.
        self._plain_thoughts = server not in ("vllm", "sglang") and not self._site.is_openai
        self._client: httpx.AsyncClient | None = None

    def signal(self, *, temperature: float, top_k: int) -> Signal:
        """Entropy of the top k; whether before or after temperature as the kind of server is known to give."""
        return Signal(top_k=top_k, logits=_LOGITS.get(self.server, "unknown"), temperature=temperature)

    def read(self, problem: str) -> str:
        """The problem as given; in its own notation for the embedded model, which refuses what it does not speak."""
        return parse(problem).text if self.prompts.name == "embedded" else problem

    async def stream(self, request: Request) -> AsyncIterator[Token | Finish]:
        """Generate for one request; closing the iterator closes the connection, at which servers stop.

        Raises `BackendUnavailable`, also for a stream that breaks off; `BackendRejected` with the server's words; and
        `LogprobsMissing` where the first tokens come without `request.top_k` log-probabilities.
        """
        response = await self._send(request)
        thought = self.prompts.thought
        prefill = _prefill(request)
        inside = prefill.rfind(thought.open) > prefill.rfind(thought.close)
        speech = _Speech(request.top_k, thought=thought, inside=inside, echo=prefill)
        try:
            async with aclosing(_chunks(response, self._site)) as chunks:
                async for chunk in chunks:
                    for token in speech.hear(chunk):
                        yield token
        finally:
            await response.aclose()
        for token in speech.end():
            yield token
        yield speech.finish()

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _send(self, request: Request) -> httpx.Response:
        """The open response; the caller closes it."""
        extras: dict[str, Json] = {"reasoning_format": "none"} if self._plain_thoughts else {}
        body = self._body(request)
        try:
            return await self._post(body | extras)
        except BackendRejected as refusal:
            if not extras or refusal.status not in (400, 422):
                raise
            try:
                response = await self._post(body)
            except BackendRejected:
                raise refusal from None
            self._plain_thoughts = False
            return response

    async def _post(self, body: dict[str, Json]) -> httpx.Response:
        if self._client is None:
            self._client = self._site.client()
        patience = Patience()
        while True:
            try:
                sent = self._client.build_request("POST", "chat/completions", json=body, timeout=patience.timeout())
                response = await self._client.send(sent, stream=True)
            except httpx.RequestError as error:
                if not await patience.again(error):
                    raise unreachable(error, self._site) from error
                continue
            if response.status_code == 200 and _streams(response):
                return response
            try:
                refusal = await rejected(response, self._site)
            finally:
                await response.aclose()
            if not await patience.again(response):
                raise refusal

    def _body(self, request: Request) -> dict[str, Json]:
        body: dict[str, Json] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "logprobs": True,
            "top_logprobs": request.top_k,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": _seed(request),
        }
        if request.continue_final:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if request.effort is not None:
            body["reasoning_effort"] = request.effort
        return body


def open_openai(model: str, options: Options) -> OpenAIBackend:
    """`openai:MODEL`; without a model, the only one that the server has.

    Asks the server once for its models, so that one that is not there is found out at the start.
    """
    base_url = options.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
    site = Site(base_url)
    models = {} if site.is_openai and model else models_of(site, optional=bool(model))
    if not model:
        if len(models) != 1:
            raise InputError(
                f"{site} has {len(models)} models: {', '.join(sorted(models)[:8])}",
                hint="name one: --model openai:NAME",
            )
        model = next(iter(models))
    server = models.get(model) or next(iter(models.values()), "unknown")
    return OpenAIBackend(
        model,
        base_url=base_url,
        concurrency=options.concurrency or 8,
        prompts=options.prompts,
        server=server,
    )


def _seed(request: Request) -> int:
    """One seed for each (seed, problem, step): a server draws the same noise for the same seed and prompt."""
    problem, step = request.key
    digest = hashlib.sha256(f"{request.seed}\0{problem}\0{step}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _final(request: Request) -> Message | None:
    return request.messages[-1] if request.continue_final and request.messages else None


def _prefill(request: Request) -> str:
    final = _final(request)
    return final.content if final is not None else ""


def _streams(response: httpx.Response) -> bool:
    kind = str(response.headers.get("content-type", ""))
    return not kind.startswith(("application/json", "text/html"))


async def _chunks(response: httpx.Response, site: Site) -> AsyncGenerator[Chunk, None]:
    """The events of a stream up to its end; raises where it breaks off or the server sends an error."""
    events = EventReader()
    finished = False
    try:
        async for data in response.aiter_bytes():
            for payload in events.feed(data):
                if payload.strip() == DONE:
                    if not finished:
                        raise BackendUnavailable(f"{site} ended the stream before its answer", hint="try again")
                    return
                chunk = chat_chunk(read_json(payload))
                if chunk.error is not None:
                    raise BackendRejected(f"{site} broke off: {site.redact(chunk.error)}", status=500, retryable=True)
                finished = finished or any(choice.finish is not None for choice in chunk.choices)
                yield chunk
    except httpx.RequestError as error:
        if not finished:
            raise BackendUnavailable(
                f"{site} broke off in the middle of a stream: {type(error).__name__}", hint="try again"
            ) from error
    if not finished:
        raise BackendUnavailable(f"{site} closed the stream before its end", hint="try again")


@dataclass(slots=True)
class _Speech:
    """From chunks to tokens: thoughts back into the text, each text to its entry, missing entries found out."""

    top_k: int
    thought: ThoughtFormat
    inside: bool
    """Inside a thought that the server keeps apart from the text."""
    echo: str
    """The prefill, as long as the server might repeat it."""
    held: list[Token] = field(default_factory=list)
    """Tokens from before the first usable entry."""
    pieces: int = 0
    usable: bool = False
    narrowest: int | None = None
    apart: bool = False
    count: int = 0
    reason: str = "stop"
    reported: int | None = None
    prompt_tokens: int | None = None

    def hear(self, chunk: Chunk) -> list[Token]:
        """The tokens that a chunk completes."""
        if chunk.usage is not None:
            self.reported = chunk.usage.completion_tokens
            self.prompt_tokens = chunk.usage.prompt_tokens
        out: list[Token] = []
        for choice in chunk.choices:
            if choice.number == 0:
                out += self._said(choice)
        return out

    def _said(self, choice: Choice) -> list[Token]:
        self.reason = choice.finish or self.reason
        text = self._without_echo(self._whole(choice), choice)
        tokens = aligned(choice.tokens, text, finish=choice.finish)
        if not tokens and text:
            tokens = (Token(text=text),)
        return self._checked([self._trimmed(token) for token in tokens], bool(text))

    def _whole(self, choice: Choice) -> str:
        """The text as the model said it, a thought between its tags; of these, some servers show the entries alone."""
        opening, closing = self.thought.open, "" if self.thought.cue else self.thought.close
        text = ""
        last = choice.tokens[-1].text if choice.tokens else ""
        if choice.reasoning:
            # A busy vLLM leaves the tag in.
            text = choice.reasoning if self.inside else opening + choice.reasoning.removeprefix(opening)
            self.inside = self.apart = True
        if choice.text:
            # A thought continued in plain text closes its tag itself; one kept apart has lost it.
            text += closing + choice.text if self.apart and self.inside else choice.text
            self.inside = self.inside and not self.apart
        if not text and last == opening and not self.inside:
            text, self.inside, self.apart = opening, True, True
        elif last == closing and self.inside and self.apart:
            text, self.inside = text + closing, False
        return text

    def _without_echo(self, text: str, choice: Choice) -> str:
        """Some servers repeat the prefill, without entries, before what is new."""
        if not self.echo or not text:
            return text
        if choice.tokens:
            repeated, self.echo = self.echo, ""
            new = "".join(token.text for token in choice.tokens)
            return text.removeprefix(repeated) if len(text) >= len(repeated) + len(new) else text
        if self.echo.startswith(text):
            self.echo = self.echo[len(text) :]
            return ""
        repeated, self.echo = self.echo, ""
        return text.removeprefix(repeated)

    def _trimmed(self, token: Token) -> Token:
        """Exactly `top_k` log-probabilities, or none: fewer would be bits of another kind."""
        top = token.top_logprobs
        if top is None or len(top) == self.top_k:
            return token
        if len(top) < self.top_k:
            self.narrowest = len(top) if self.narrowest is None else min(self.narrowest, len(top))
            return Token(text=token.text, logprob=token.logprob)
        return Token(text=token.text, top_logprobs=top[: self.top_k], logprob=token.logprob)

    def _checked(self, tokens: list[Token], spoke: bool) -> list[Token]:
        """Hold tokens back until the first entry that can be used; raise where none comes."""
        self.count += len(tokens)
        if self.usable:
            return tokens
        self.held += tokens
        self.pieces += spoke
        if any(token.top_logprobs is not None for token in tokens):
            self.usable = True
            held, self.held = self.held, []
            return held
        if self.pieces >= PATIENCE:
            raise self._missing()
        return []

    def _missing(self) -> LogprobsMissing:
        got = "none came" if self.narrowest is None else f"{self.narrowest} came"
        return LogprobsMissing(
            f"{self.top_k} log-probabilities were asked for each token, {got}",
            hint=_MISSING,
        )

    def end(self) -> list[Token]:
        """What is still held back at the end of the stream."""
        if self.held:
            raise self._missing()
        return []

    def finish(self) -> Finish:
        """Tokens as the server counted them; a turn's end, which it counts and does not show, is left out."""
        tokens = self.count
        if self.reported is not None and self.reported > self.count:
            tokens = self.reported - (self.reason == "stop")
        return Finish(reason=self.reason, tokens=tokens, prompt_tokens=self.prompt_tokens)
