"""The embedded model: batching changes no bit, noise is keyed, cancelling frees, other languages are refused."""

from __future__ import annotations

import asyncio

import pytest

from justenough.backends.batched import BatchedModel
from justenough.backends.protocol import Finish, Message, Request
from justenough.errors import ContextExceeded, InputError, ProblemRefused
from justenough.toy.backend import EmbeddedBackend, EmbeddedModel
from justenough.toy.engine import Engine
from justenough.toy.notation import MODELS
from justenough.toy.tokens import Tokens, packaged
from justenough.trace import Token


def request(problem: str, *, seed: int = 0, step: int = 1, max_tokens: int = 200, temperature: float = 0.8) -> Request:
    return Request(
        messages=(Message("user", f"{problem}\nOne step."),),
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=20,
        seed=seed,
        key=(problem, step),
    )


async def generate(backend: EmbeddedBackend, query: Request) -> tuple[list[Token], Finish]:
    tokens: list[Token] = []
    finish: Finish | None = None
    async for item in backend.stream(query):
        if isinstance(item, Finish):
            finish = item
        else:
            tokens.append(item)
    assert finish is not None
    return tokens, finish


async def alone(query: Request, *, threads: int = 1) -> tuple[list[Token], Finish]:
    backend = EmbeddedBackend(threads=threads)
    try:
        return await generate(backend, query)
    finally:
        await backend.close()


async def together(requests: list[Request]) -> list[tuple[list[Token], Finish]]:
    backend = EmbeddedBackend()
    try:
        return list(await asyncio.gather(*(generate(backend, query) for query in requests)))
    finally:
        await backend.close()


def test_neighbours_cannot_change_a_bit() -> None:
    problems = [f"{left}*{right}" for left in (12, 47, 83) for right in range(20, 40)]
    crowd = asyncio.run(together([request(problem) for problem in problems]))
    backwards = asyncio.run(together([request(problem) for problem in reversed(problems)]))[::-1]
    single = asyncio.run(alone(request(problems[17])))
    assert crowd == backwards
    assert crowd[17] == single


def test_the_model_thinks_and_answers_in_its_format() -> None:
    tokens, finish = asyncio.run(alone(request("7*18", temperature=0.0)))
    text = "".join(token.text for token in tokens)
    assert text.startswith("<think>7*18=")
    assert "</think>Answer: " in text
    assert finish.reason == "stop"
    assert finish.tokens == len(tokens)
    assert all(token.top_logprobs is not None and len(token.top_logprobs) == 20 for token in tokens)


def test_the_seed_changes_what_is_sampled() -> None:
    async def several() -> set[str]:
        runs = await together([request("5821%7", seed=seed, temperature=1.5) for seed in range(8)])
        return {"".join(token.text for token in tokens) for tokens, _ in runs}

    assert len(asyncio.run(several())) > 1


def test_closing_a_stream_frees_its_row_and_stops_its_decoding() -> None:
    async def cancelled() -> int:
        backend = EmbeddedBackend(concurrency=1)
        stream = backend.stream(request("47*36"))
        first = await anext(aiter(stream))
        assert isinstance(first, Token)
        await stream.aclose()  # type: ignore[attr-defined]
        engine = backend.engine
        assert isinstance(engine, Engine)
        steps = engine.steps
        await asyncio.sleep(0.05)
        idle = engine.steps - steps
        # With one row only, the next problem is answered because the row is free again.
        _, finish = await generate(backend, request("12*12"))
        assert finish.reason == "stop"
        await backend.close()
        return idle

    assert asyncio.run(cancelled()) <= 1


def test_a_reader_that_pauses_makes_its_row_end_all_the_same() -> None:
    async def paused(*, rows: int, limit: int) -> tuple[int, int]:
        backend = EmbeddedBackend(concurrency=rows)
        stream = backend.stream(request("47*36", max_tokens=limit))
        first = await anext(aiter(stream))
        assert isinstance(first, Token)
        # Another stream runs meanwhile: in the other row or, with one only, after the paused one has ended.
        _, finish = await generate(backend, request("12*12"))
        assert finish.reason == "stop"
        rest = [item async for item in stream]
        last = rest[-1]
        assert isinstance(last, Finish)
        await backend.close()
        return len(rest), last.tokens

    alone_tokens, alone_finish = asyncio.run(alone(request("47*36")))
    for rows in (1, 2):
        assert asyncio.run(paused(rows=rows, limit=200)) == (len(alone_tokens), alone_finish.tokens)
        assert asyncio.run(paused(rows=rows, limit=7)) == (7, 7)


def test_a_limit_cuts_the_answer_and_is_its_finish_reason() -> None:
    tokens, finish = asyncio.run(alone(request("47*36", max_tokens=5)))
    assert (len(tokens), finish.tokens, finish.reason) == (5, 5, "length")


def test_a_conversation_that_is_too_long_is_refused() -> None:
    query = Request(
        messages=(Message("user", "1+" * 2000),), max_tokens=5, temperature=0.8, top_k=20, seed=0, key=("x", 1)
    )
    with pytest.raises(ContextExceeded, match="holds"):
        asyncio.run(alone(query))


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_a_decoder_and_a_tokenizer_of_one_vocabulary(name: str) -> None:
    model: BatchedModel = EmbeddedModel(name)
    assert model.name == f"justenough-{name}"
    decoder, tokenizer = model.decoder(rows=2, threads=1), model.tokenizer()
    assert isinstance(tokenizer, Tokens)
    assert decoder.vocabulary == len(tokenizer.bytes)
    assert 0 <= tokenizer.end < decoder.vocabulary
    assert decoder.positions == 640
    assert decoder.busy == 0


def test_it_reads_its_own_notation_only() -> None:
    model = EmbeddedModel("embedded")
    assert model.read("47 × 36") == "47*36"
    with pytest.raises(ProblemRefused):
        model.read("hello")


@pytest.mark.parametrize("name", ["", "gigantic", "Embedded", "../embedded"])
def test_an_unknown_name_lists_the_models(name: str) -> None:
    with pytest.raises(InputError, match="use one of embedded, overconfident, repaired"):
        EmbeddedModel(name)


def test_a_missing_file_is_an_error_with_a_hint() -> None:
    with pytest.raises(InputError, match=r"nothing\.onnx is not installed \(reinstall justenough"):
        packaged("nothing.onnx")


def test_the_tokenizer_ends_a_prompt_where_the_model_begins() -> None:
    tokenizer = EmbeddedModel("embedded").tokenizer()
    assert isinstance(tokenizer, Tokens)
    ids = tokenizer.conversation((Message("user", "47*36"),), continue_final=False)
    text = b"".join(tokenizer.bytes[each] for each in ids).decode()
    assert text == "<|user|>47*36<|end|><|assistant|>"
