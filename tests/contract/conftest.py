"""Every backend, behind one door: a case opens it and says what it promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from justenough.backends.layers.backend import LayerExitBackend
from justenough.backends.layers.leaving import Calm, DeeBert
from justenough.backends.llamacpp import LlamaCppBackend
from justenough.backends.openai import OpenAIBackend
from justenough.backends.protocol import Backend, Finish, Message, Request
from justenough.backends.replay import ReplayBackend
from justenough.backends.transformers import TransformersBackend
from justenough.signal.signal import Signal
from justenough.toy.adadec import embedded_adadec
from justenough.toy.backend import EmbeddedBackend
from justenough.toy.engine import Engine
from justenough.toy.tokens import Tokens
from justenough.trace import Step, Token, Trace
from tests.conftest import CHECKPOINT, GGUF
from tests.llama_server import busy_slots, counter, endless

NAMES = ("embedded", "openai", "llamacpp", "replay", "hf", "adadec", "calm", "deebert")
KEY = ("47*36", 1)


@dataclass(frozen=True)
class Case:
    """One backend under the contract."""

    name: str
    open: Callable[[], Backend]
    live: bool = True
    """Whether it generates, and so can be asked anything."""
    exact: bool = False
    """Whether the same request gives the same bits, whoever else asks; else they agree to 0.001."""
    rule: str = ""
    """What is added to the model's name where tokens are chosen otherwise than by the whole model."""
    whole: bool = True
    """Whether every token is predicted by the whole network, and so has its bits."""


def request(
    problem: str = "47*36\nOne step.",
    *,
    messages: tuple[Message, ...] | None = None,
    max_tokens: int = 300,
    temperature: float = 0.8,
    seed: int = 1,
    key: tuple[str, int] = KEY,
    top_k: int = 20,
    continue_final: bool = False,
) -> Request:
    """A request to the embedded model, wherever it is served."""
    return Request(
        messages=messages or (Message("user", problem),),
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        key=key,
        continue_final=continue_final,
    )


async def heard(backend: Backend, asked: Request) -> tuple[list[Token], Finish]:
    """All that a stream says: its tokens and its one finish, which is last."""
    items = [item async for item in backend.stream(asked)]
    tokens = [item for item in items if isinstance(item, Token)]
    finish = items[-1]
    assert isinstance(finish, Finish)
    assert len(tokens) == len(items) - 1, "one finish, and nothing after it"
    return tokens, finish


def said(tokens: list[Token]) -> str:
    """The text of tokens."""
    return "".join(token.text for token in tokens)


async def _record() -> Trace:
    backend = EmbeddedBackend(concurrency=1)
    tokens, finish = await heard(backend, request())
    await backend.close()
    step = Step(
        text=said(tokens),
        answer=None,
        correct=False,
        tokens=finish.tokens,
        finish=finish.reason,
        prompt_tokens=finish.prompt_tokens,
        top_logprobs=tuple(token.top_logprobs or () for token in tokens),
        logprobs=tuple(token.logprob or 0.0 for token in tokens),
        token_texts=tuple(token.text for token in tokens),
    )
    signal = Signal(top_k=20, logits="raw", temperature=0.8)
    return Trace(id=KEY[0], model=backend.model, signal=signal, steps=(step,))


@pytest.fixture(scope="session")
def recorded() -> Trace:
    """What the embedded model said to `request()`."""
    return asyncio.run(_record())


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    """Each backend in turn."""
    name = str(request.param)
    if name == "embedded":
        return Case(name, lambda: EmbeddedBackend(concurrency=4), exact=True)
    if name == "openai":
        url = str(request.getfixturevalue("llama_server"))
        return Case(name, lambda: OpenAIBackend("justenough-embedded", base_url=url, server="llamacpp", concurrency=4))
    if name == "llamacpp":
        return Case(name, lambda: LlamaCppBackend(GGUF))
    if name == "hf":
        return Case(name, lambda: TransformersBackend(CHECKPOINT, threads=1))
    if name == "adadec":
        return Case(name, lambda: embedded_adadec(threshold=0.05, concurrency=4), exact=True, rule="/adadec@0.05")
    if name in ("calm", "deebert"):
        leaving = Calm(0.999) if name == "calm" else DeeBert(0.01)
        return Case(
            name,
            lambda: LayerExitBackend(CHECKPOINT, leaving, concurrency=4, threads=1),
            rule=f"/{leaving.name}",
            whole=False,
        )
    trace: Trace = request.getfixturevalue("recorded")
    return Case(name, lambda: ReplayBackend([trace]), live=False, exact=True)


@pytest.fixture
def live(case: Case) -> Case:
    """Each backend that generates."""
    if not case.live:
        pytest.skip("a recording answers only what was recorded")
    return case


@dataclass(frozen=True)
class Endless:
    """A backend whose model never ends by itself, and its own account of what it generates."""

    backend: Backend
    generated: Callable[[], float]
    busy: Callable[[], int]


@pytest.fixture(params=["embedded", "adadec", "llamacpp"])
def never_ending(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Endless]:
    """A generation that lasts until it is cancelled or reaches its limit."""
    if request.param in ("embedded", "adadec"):
        embedded = (
            EmbeddedBackend(concurrency=2)
            if request.param == "embedded"
            else embedded_adadec(threshold=0.05, concurrency=2)
        )
        engine, tokens = embedded.engine, embedded.tokens
        assert isinstance(engine, Engine)
        assert isinstance(tokens, Tokens)
        tokens.end = -1
        yield Endless(embedded, lambda: float(engine.steps), lambda: engine.busy)
        return
    backend = LlamaCppBackend(endless(GGUF, tmp_path / "endless.gguf", context=8192), prompts="embedded")
    url = backend.base_url
    yield Endless(backend, lambda: counter(url, "tokens_predicted_total"), lambda: busy_slots(url))
