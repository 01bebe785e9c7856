"""What every backend promises: see `justenough.backends.protocol.Backend`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest

from justenough.backends.batched import BatchedBackend
from justenough.backends.protocol import Backend, Finish, Message
from justenough.errors import ContextExceeded, ProblemRefused
from justenough.signal.signal import Signal
from justenough.toy.backend import EmbeddedBackend
from justenough.toy.notation import PROMPTS
from justenough.trace import Token
from tests.contract.conftest import Case, Endless, heard, request, said

T = TypeVar("T")


def ask(case: Case, question: Callable[[Backend], Awaitable[T]]) -> T:
    """Open, ask and close in one event loop."""

    async def run() -> T:
        backend = case.open()
        try:
            return await question(backend)
        finally:
            await backend.close()
            await backend.close()

    return asyncio.run(run())


def test_a_stream_is_tokens_and_then_one_finish_with_an_honest_count(case: Case) -> None:
    tokens, finish = ask(case, lambda backend: heard(backend, request()))
    assert said(tokens).startswith("<think>47*36")
    assert "</think>Answer: " in said(tokens)
    assert "<|end|>" not in said(tokens)
    assert finish.reason == "stop"
    assert finish.tokens == len(tokens) == len([token for token in tokens if token.text])
    assert finish.prompt_tokens == len("47*36") + len(["\n", "One", " step", "."]) + 3


def test_every_token_has_the_log_probabilities_that_were_asked_for(case: Case) -> None:
    tokens, _ = ask(case, lambda backend: heard(backend, request()))
    for token in tokens:
        assert token.top_logprobs is not None
        assert token.logprob is not None
        assert len(token.top_logprobs) == 20
        assert list(token.top_logprobs) == sorted(token.top_logprobs, reverse=True)
        assert all(value <= 0 for value in (*token.top_logprobs, token.logprob))


def test_fewer_log_probabilities_are_the_largest_ones(live: Case) -> None:
    async def both(backend: Backend) -> tuple[list[Token], list[Token]]:
        few, _ = await heard(backend, request(top_k=3, temperature=0.0))
        many, _ = await heard(backend, request(top_k=20, temperature=0.0))
        return few, many

    few, many = ask(live, both)
    for short, long in zip(few, many, strict=True):
        assert short.top_logprobs == pytest.approx((long.top_logprobs or ())[:3], abs=1e-3)


def test_the_same_request_says_the_same_again(case: Case) -> None:
    async def twice(backend: Backend) -> tuple[list[Token], list[Token]]:
        asked = request(temperature=0.8 if not case.live else 1.5)
        first, _ = await heard(backend, asked)
        return first, (await heard(backend, asked))[0]

    first, second = ask(case, twice)
    if case.exact:
        assert first == second
    assert said(first) == said(second)
    signal = Signal()
    bits, again = ([token.bits(signal) for token in tokens] for tokens in (first, second))
    assert bits == pytest.approx(again, abs=1e-3)


def test_problem_step_and_seed_each_draw_their_own_noise(live: Case) -> None:
    if live.name == "openai":
        pytest.skip("a stock llama.cpp cuts off all but the likeliest token here, whatever the temperature")

    async def several(backend: Backend) -> list[str]:
        hot = request(temperature=10.0, max_tokens=40)
        seeded, other, later = replace(hot, seed=2), replace(hot, key=("other", 1)), replace(hot, key=("47*36", 2))
        return [said((await heard(backend, asked))[0]) for asked in (hot, seeded, other, later)]

    assert len(set(ask(live, several))) == 4


def test_a_limit_of_tokens_is_kept_and_named(live: Case) -> None:
    tokens, finish = ask(live, lambda backend: heard(backend, request(max_tokens=5)))
    assert (len(tokens), finish.tokens, finish.reason) == (5, 5, "length")


def test_a_prefill_is_continued_and_not_repeated(live: Case) -> None:
    messages = (Message("user", "47*36"), Message("assistant", "<think>47*36=1692\n\n</think>"))
    asked = request(messages=messages, continue_final=True, temperature=0.0)
    tokens, finish = ask(live, lambda backend: heard(backend, asked))
    assert said(tokens) == "Answer: 1692"
    assert finish.tokens == len(tokens) == 7


def test_a_thought_is_continued_within(live: Case) -> None:
    messages = (Message("user", "47*36"), Message("assistant", "<think>47*36=1692\n\n"))
    asked = request(messages=messages, continue_final=True, temperature=0.0)
    tokens, _ = ask(live, lambda backend: heard(backend, asked))
    assert "<think>" not in said(tokens)
    assert re.fullmatch(r"[^<]*</think>Answer: \d+", said(tokens))


def test_earlier_turns_are_heard(live: Case) -> None:
    first = Message("assistant", "<think>47*36=1602\n\n</think>Answer: 1602")
    turns = (Message("user", "47*36\nOne step."), first, Message("user", "Check again."))
    tokens, finish = ask(live, lambda backend: heard(backend, request(messages=turns)))
    assert said(tokens).startswith("<think>")
    assert (finish.prompt_tokens or 0) > 30


def test_streams_that_run_together_say_what_they_say_alone(live: Case) -> None:
    problems = [f"{number}*36\nOne step." for number in (47, 58, 69, 71)]

    async def all_at_once(backend: Backend) -> tuple[list[list[Token]], list[list[Token]]]:
        asked = [request(problem, temperature=0.0) for problem in problems]
        alone = [(await heard(backend, each))[0] for each in asked]
        together = await asyncio.gather(*(heard(backend, each) for each in asked))
        return alone, [tokens for tokens, _ in together]

    alone, together = ask(live, all_at_once)
    if live.exact:
        assert alone == together
    assert [said(tokens) for tokens in alone] == [said(tokens) for tokens in together]


def test_a_backend_says_how_it_is_asked_and_what_it_measures(case: Case) -> None:
    backend = case.open()
    assert backend.model == f"justenough-embedded{case.rule}"
    assert backend.prompts == PROMPTS
    assert backend.concurrency >= 1
    assert backend.signal(temperature=0.8, top_k=20) == Signal(top_k=20, logits="raw", temperature=0.8)
    if case.live:
        assert backend.read("What is 47 times 36?") == "47*36"
        with pytest.raises(ProblemRefused):
            backend.read("Why is the sky blue?")
    asyncio.run(backend.close())


def test_raw_log_probabilities_do_not_depend_on_the_temperature(live: Case) -> None:
    async def first_at(backend: Backend) -> list[Sequence[float]]:
        asked = [request(temperature=temperature, max_tokens=1) for temperature in (0.1, 0.1, 2.0)]
        tokens = [(await heard(backend, each))[0][0] for each in asked]
        return [token.top_logprobs or () for token in tokens]

    _, cold, hot = ask(live, first_at)
    assert len(cold) == 20
    assert cold == pytest.approx(hot, abs=1e-3)


def test_a_conversation_that_does_not_fit_is_an_error_of_its_own(live: Case) -> None:
    with pytest.raises(ContextExceeded, match="640"):
        ask(live, lambda backend: heard(backend, request("1" * 700)))


def test_the_bits_are_those_of_the_embedded_model(live: Case) -> None:
    asked = request(temperature=0.0)
    tokens, _ = ask(live, lambda backend: heard(backend, asked))
    reference, _ = ask(Case("", lambda: EmbeddedBackend(concurrency=1)), lambda backend: heard(backend, asked))
    assert said(tokens) == said(reference)
    if not live.whole:
        return
    signal = Signal()
    # llamacpp keeps its cache in half precision, as large models need it.
    assert [token.bits(signal) for token in tokens] == pytest.approx(
        [token.bits(signal) for token in reference], abs=0.02 if live.name == "llamacpp" else 1e-3
    )


def test_closing_a_stream_really_stops_the_generation(never_ending: Endless) -> None:
    limit = 600 if isinstance(never_ending.backend, BatchedBackend) else 6000

    async def run() -> float:
        before = never_ending.generated()
        stream = never_ending.backend.stream(request(max_tokens=limit))
        count = 0
        async for item in stream:
            assert not isinstance(item, Finish)
            count += 1
            if count == 5:
                break
        await stream.aclose()  # type: ignore[attr-defined]
        deadline = time.monotonic() + 5
        while never_ending.busy() and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert never_ending.busy() == 0
        stopped = never_ending.generated() - before
        await asyncio.sleep(0.1)
        assert never_ending.generated() - before == stopped
        # The place is free again.
        tokens, finish = await heard(never_ending.backend, request(max_tokens=7))
        assert (len(tokens), finish.reason) == (7, "length")
        await never_ending.backend.close()
        return stopped

    assert 5 <= asyncio.run(run()) < limit / 2
