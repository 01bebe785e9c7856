"""The OpenAI-compatible backend, with a server that fails in many ways."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from justenough.backends.openai import OpenAIBackend, open_openai
from justenough.backends.protocol import Finish, Message
from justenough.backends.registry import Options, open_backend
from justenough.errors import (
    BackendRejected,
    BackendUnavailable,
    InputError,
    JustEnoughError,
    LogprobsMissing,
)
from justenough.testing import MockUpstream
from justenough.trace import Json, Token
from tests.contract.conftest import heard, request
from tests.contract.conftest import said as text_of
from tests.contract.faulty import END, HANG, RESET, TOP, Asked, reply, said, serving, shown, streamed, usage

T = TypeVar("T")
GOOD = streamed(said("4"), said("2"), END, usage(3), "[DONE]")
KEY = "sk-very-secret"


def with_server(
    *replies: bytes, question: Callable[[OpenAIBackend, Asked], Awaitable[T]], model: str = "m", server: str = "unknown"
) -> T:
    """Ask a backend on a server that gives these answers in turn."""

    async def run() -> T:
        async with serving(*replies) as (url, sent):
            backend = OpenAIBackend(model, base_url=url, server=server)
            try:
                return await question(backend, sent)
            finally:
                await backend.close()

    return asyncio.run(run())


async def one(backend: OpenAIBackend, sent: Asked) -> tuple[list[Token], Finish]:
    return await heard(backend, request())


def error_of(*replies: bytes, server: str = "unknown") -> tuple[JustEnoughError, int, float]:
    """The error, the number of requests, and the seconds that they took."""

    async def failing(backend: OpenAIBackend, sent: Asked) -> tuple[JustEnoughError, int, float]:
        start = time.monotonic()
        with pytest.raises(JustEnoughError) as failure:
            await heard(backend, request())
        return failure.value, len(sent.bodies), time.monotonic() - start

    return with_server(*replies, question=failing, server=server)


def test_a_good_stream_is_counted_without_its_end_of_sequence_token() -> None:
    tokens, finish = with_server(GOOD, question=one)
    assert text_of(tokens) == "42"
    assert [token.top_logprobs for token in tokens] == [TOP, TOP]
    assert finish == Finish(reason="stop", tokens=2, prompt_tokens=7)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([said("4"), said("2"), said("", finish="stop"), "[DONE]"], 2),
        ([said("4"), said("2"), said("", finish="stop"), usage(3), "[DONE]"], 2),
        ([said("4"), said("2", finish="length"), usage(2), "[DONE]"], 2),
        ([said("4"), said("2", finish="length"), usage(5), "[DONE]"], 5),
        ([said("4"), said("2"), END, usage(1)], 2),
        ([said("4"), said("2"), END], 2),
    ],
    ids=["shown end", "shown and counted end", "length", "hidden tokens", "counted too few", "no usage, no [DONE]"],
)
def test_tokens_are_counted_as_the_server_counts_them(events: list[dict[str, object]], expected: int) -> None:
    tokens, finish = with_server(streamed(*events), question=one)  # type: ignore[arg-type]
    assert text_of(tokens) == "42"
    assert len(tokens) == 2
    assert finish.tokens == expected


def test_a_thought_that_the_server_keeps_apart_is_put_back() -> None:
    events = [said("", reasoning="6*"), said("", reasoning="7"), said("4"), said("2"), END, usage(5), "[DONE]"]
    tokens, _ = with_server(streamed(*events), question=one)
    assert [token.text for token in tokens] == ["<think>6*", "7", "</think>4", "2"]
    assert all(token.top_logprobs == TOP for token in tokens)


@pytest.mark.parametrize(
    "events",
    [
        [said("<think>6*", reasoning="6*"), said("7", reasoning="7"), said("</think>4"), said("2")],
        [said("<think>"), said("6*", reasoning="6*"), said("7</think>", reasoning="7"), said("4"), said("2")],
        [said("", reasoning="6*"), said("", reasoning="7"), said("<think>6*7", top=None), said("</think>4"), said("2")],
    ],
    ids=["beside it", "with its tags alone", "after it"],
)
def test_a_thought_that_the_server_repeats_in_the_text_is_read_once(events: list[Json]) -> None:
    """llama.cpp's `deepseek-legacy` sends it in its field and again in the text."""
    tokens, _ = with_server(streamed(*events, END, "[DONE]"), question=one)
    assert text_of(tokens) == "<think>6*7</think>42"


@pytest.mark.parametrize("field", ["reasoning", "thinking", "reasoning_text", "thought"])
def test_a_thought_under_any_name_or_two_is_put_back_once(field: str) -> None:
    for text in ("6*7", None):
        event: dict[str, Any] = {**said("", reasoning="6*7")}  # type: ignore[dict-item]
        event["choices"][0]["delta"] = {"reasoning_content": text, field: "6*7"}
        tokens, _ = with_server(streamed(event, said("42"), END, "[DONE]"), question=one)
        assert text_of(tokens) == "<think>6*7</think>42"


@pytest.mark.parametrize(
    "events",
    [
        [
            shown("<think>"),
            shown("6*", reasoning="6*"),
            shown("7", reasoning="7"),
            shown("</think>"),
            shown("4", text="4"),
        ],
        [shown("<think>", "6*", reasoning="<think>6*"), shown("7", "</think>", reasoning="7"), shown("4", text="4")],
        [shown("<think>", "6*", reasoning="6*"), shown("7", "</think>", "4", reasoning="7", text="4")],
    ],
    ids=["one by one", "tag left in", "both fields at once"],
)
def test_tags_without_text_are_tokens(events: list[Json]) -> None:
    """vLLM's, with a parser for thoughts: how many tokens come in one event is a matter of its load."""
    tokens, finish = with_server(streamed(*events, END, usage(6), "[DONE]"), question=one)
    assert [token.text for token in tokens] == ["<think>", "6*", "7", "</think>", "4"]
    assert all(token.top_logprobs == TOP for token in tokens)
    assert finish.tokens == 5


def test_a_continued_thought_is_not_opened_twice_and_an_echo_is_stripped() -> None:
    messages = (Message("user", "q"), Message("assistant", "<think>6*"))
    asking = request(messages=messages, continue_final=True)

    async def continued(backend: OpenAIBackend, sent: Asked) -> tuple[str, Asked]:
        return text_of((await heard(backend, asking))[0]), sent

    apart = streamed(said("", reasoning="7"), said("42"), END, usage(3))
    text, sent = with_server(apart, question=continued)
    assert text == "7</think>42"
    assert sent.bodies[0]["continue_final_message"] is True
    assert sent.bodies[0]["add_generation_prompt"] is False
    for echo in (["<think>6*"], ["<thi", "nk>6*"], []):
        events = [said(piece, top=None) for piece in echo] + [said("7"), said("</think>42"), END, usage(3)]
        assert with_server(streamed(*events), question=continued)[0] == "7</think>42"


def test_the_request_asks_for_all_that_is_needed() -> None:
    async def ask(backend: OpenAIBackend, sent: Asked) -> list[dict[str, object]]:
        for key in (("p", 1), ("p", 2), ("p", 1)):
            await heard(backend, request(key=key))
        return [dict(body) for body in sent.bodies]

    first, second, again = with_server(GOOD, question=ask)
    assert first == again
    assert first["seed"] != second["seed"]
    assert {**first, "seed": 0} == {
        "model": "m",
        "messages": [{"role": "user", "content": "47*36\nOne step."}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        "top_logprobs": 20,
        "max_tokens": 300,
        "temperature": 0.8,
        "seed": 0,
        "reasoning_format": "none",
    }


def test_a_field_that_the_server_refuses_is_not_sent_again() -> None:
    refusal = reply(400, {"error": {"message": "Unrecognized request argument supplied: reasoning_format"}})

    async def twice(backend: OpenAIBackend, sent: Asked) -> list[bool]:
        await heard(backend, request())
        await heard(backend, request())
        return ["reasoning_format" in body for body in sent.bodies]

    assert with_server(refusal, GOOD, question=twice) == [True, False, False]
    error, count, _ = error_of(reply(400, {"error": {"message": "no such model"}}))
    assert isinstance(error, BackendRejected)
    assert (error.status, error.retryable, count) == (400, False, 2)
    assert "no such model" in str(error)


def test_a_busy_server_gets_a_second_request_after_its_retry_after() -> None:
    start = time.monotonic()
    tokens, _ = with_server(reply(429, "", headers=["Retry-After: 1"]), GOOD, question=one)
    assert text_of(tokens) == "42"
    assert 1 <= time.monotonic() - start < 5


def test_a_retry_after_beyond_the_deadline_fails_at_once() -> None:
    error, count, seconds = error_of(reply(429, {"error": {"message": "slow down"}}, headers=["Retry-After: 60"]))
    assert isinstance(error, BackendRejected)
    assert (error.status, error.retryable, count) == (429, True, 1)
    assert seconds < 2


def test_a_failing_server_gets_three_requests() -> None:
    error, count, seconds = error_of(reply(500, {"detail": "out of memory"}))
    assert isinstance(error, BackendRejected)
    assert (error.status, error.retryable, count) == (500, True, 3)
    assert "out of memory" in str(error)
    assert seconds < 5
    tokens, _ = with_server(reply(503), RESET, GOOD, question=one)
    assert text_of(tokens) == "42"


@pytest.mark.parametrize(
    "answer",
    [
        streamed(said("4"), said("2")),
        streamed(said("4"), said("2"), "[DONE]"),
        streamed(said("4"), said("2"), chunked=True),
        streamed(said("4"), chunked=True) + RESET,
        streamed(),
    ],
    ids=["closed", "done without finish", "half a chunk", "reset", "empty"],
)
def test_a_broken_stream_is_an_error_and_not_a_short_answer(answer: bytes) -> None:
    error, count, _ = error_of(answer)
    assert isinstance(error, BackendUnavailable)
    assert error.retryable
    assert count == 1


def test_tokens_before_the_break_are_delivered() -> None:
    async def partly(backend: OpenAIBackend, sent: Asked) -> list[str]:
        texts: list[str] = []

        async def listen() -> None:
            async for item in backend.stream(request()):
                texts.append(item.text if isinstance(item, Token) else "finish")

        with pytest.raises(BackendUnavailable):
            await listen()
        return texts

    assert with_server(streamed(said("4"), said("2")), question=partly) == ["4", "2"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (streamed(said("4"), "{nonsense"), "is not JSON"),
        (streamed(said("4"), {"choices": 3}), "cannot be read"),
        (streamed(said("4"), {"error": {"message": "the slot died"}}), "the slot died"),
        (reply(200, {"choices": []}), "instead of a stream"),
        (reply(200, {"error": {"message": "not today"}}), "not today"),
        (reply(404, "<html>nowhere</html>", kind="text/html"), "nowhere"),
        (reply(401, {"error": {"message": f"bad key {KEY}"}}), "OPENAI_API_KEY"),
        (reply(307, "", headers=["Location: http://elsewhere.example/"]), "elsewhere.example"),
    ],
    ids=["no JSON", "no chunk", "error event", "no stream", "error as 200", "404", "401", "redirect"],
)
def test_an_error_answer_is_raised_with_the_message_of_the_server(
    answer: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    error, _, _ = error_of(answer)
    assert isinstance(error, BackendRejected)
    assert words in str(error)
    assert KEY not in str(error)


@pytest.mark.parametrize(
    ("top", "words"),
    [(None, "20 log-probabilities were requested for each token, none arrived"), (TOP[:5], "5 arrived")],
    ids=["none", "too few"],
)
@pytest.mark.parametrize("length", [1, 5])
def test_missing_log_probabilities_are_an_error_before_the_first_token(
    top: tuple[float, ...] | None, words: str, length: int
) -> None:
    error, _, _ = error_of(streamed(*[said("x", top=top)] * length, END, usage(length)))
    assert isinstance(error, LogprobsMissing)
    assert words in str(error)
    assert all(option in str(error) for option in ("--max-logprobs 20", "top_logprobs", "n_probs"))


def test_alternatives_that_a_sampler_removed_are_none_where_they_should_be_raw() -> None:
    row = (-0.5, *[-9999.0] * 19)
    masked = streamed(*[said("x", top=row)] * 5, END, usage(5))
    error, _, _ = error_of(masked, server="llamacpp")
    assert isinstance(error, LogprobsMissing)
    assert "1 arrived" in str(error)
    tokens, _ = with_server(masked, question=one)
    assert {token.top_logprobs for token in tokens} == {row}


def test_single_missing_entries_are_tokens_without_log_probabilities() -> None:
    events = [said("a", top=None), said("b"), said("c", top=None), said("d", top=TOP[:3]), said("e"), END, usage(6)]
    tokens, finish = with_server(streamed(*events), question=one)
    assert [(token.text, token.top_logprobs is not None) for token in tokens] == [
        ("a", False), ("b", True), ("c", False), ("d", False), ("e", True),
    ]  # fmt: skip
    assert finish.tokens == 5


def test_surplus_entries_are_cut_to_the_largest() -> None:
    tokens, _ = with_server(streamed(said("a", top=(*TOP, -0.05)), END), question=one)
    assert tokens[0].top_logprobs == (-0.05, *TOP[:19])


def test_closing_a_stream_closes_the_connection_at_once() -> None:
    async def hang_up(backend: OpenAIBackend, sent: Asked) -> None:
        stream = backend.stream(request())
        assert await anext(stream) == Token(text="4", top_logprobs=TOP, logprob=TOP[0])
        assert not sent.hung_up.is_set()
        await stream.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(sent.hung_up.wait(), 30)

    with_server(streamed(said("4")) + HANG, question=hang_up)


def test_cancelling_the_reader_closes_the_connection_too() -> None:
    async def cancel(backend: OpenAIBackend, sent: Asked) -> None:
        reader = asyncio.create_task(heard(backend, request()))
        # The server has the whole request; a fixed time is too short on a busy machine.
        while not sent.heads:
            await asyncio.sleep(0.01)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await asyncio.wait_for(sent.hung_up.wait(), 30)

    with_server(streamed(said("4")) + HANG, question=cancel)


def _closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_a_missing_server_is_an_error_within_ten_seconds() -> None:
    url = f"http://127.0.0.1:{_closed_port()}/v1"
    start = time.monotonic()
    with pytest.raises(BackendUnavailable, match=url):
        open_openai("m", Options(base_url=url))
    with pytest.raises(BackendUnavailable, match="is the server running"):
        asyncio.run(heard(OpenAIBackend("m", base_url=url), request()))
    assert time.monotonic() - start < 10


def test_a_server_that_accepts_no_connection_is_an_error_within_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.backends.http._CONNECT", 0.3)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        # The queue of a listener that never accepts is full after the first.
        with socket.create_connection(deaf.getsockname()), pytest.raises(BackendUnavailable, match="in time"):
            open_openai("m", Options(base_url=url))


def test_without_a_model_the_only_model_is_used_and_the_server_is_recognised(
    llama_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = open_backend("openai:", base_url=llama_server)
    assert backend.model == "justenough-embedded"
    assert backend.prompts.name == "embedded"
    assert backend.signal(temperature=0.5, top_k=20).logits == "raw"
    assert not caplog.messages
    named = open_backend("openai:justenough-embedded", base_url=llama_server, prompts="general", concurrency=3)
    assert (named.model, named.prompts.name, named.concurrency) == ("justenough-embedded", "general", 3)
    assert named.read("Why is the sky blue?") == "Why is the sky blue?"
    assert not caplog.messages


def test_the_backend_has_the_name_of_the_model_that_answers(
    llama_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A threshold is valid for this model. llama.cpp ignores the name in a request; other servers refuse it."""
    backend = open_backend("openai:other", base_url=llama_server)
    assert (backend.model, backend.prompts.name) == ("justenough-embedded", "embedded")
    (message,) = caplog.messages
    assert message == "the server has no model other: justenough-embedded answers, and the traces carry its name"

    async def at_another_server() -> str:
        async with MockUpstream() as mock:
            return (await asyncio.to_thread(open_openai, "other", Options(base_url=mock.url))).model

    assert asyncio.run(at_another_server()) == "other"
    assert caplog.messages == [message]


def test_the_key_goes_into_the_header_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    async def ask(backend: OpenAIBackend, sent: Asked) -> tuple[str, str]:
        await heard(backend, request())
        return sent.heads[0], repr(vars(backend))

    head, message = with_server(GOOD, question=ask)
    assert f"authorization: bearer {KEY}" in head.lower()
    assert KEY not in message
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "authorization" not in with_server(GOOD, question=ask)[0].lower()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host/", "http://", "http://host:port/", ""])
def test_an_invalid_base_url_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="base URL"):
        OpenAIBackend("m", base_url=url)


def test_secrets_in_a_base_url_are_not_shown() -> None:
    url = f"http://user:{KEY}@127.0.0.1:{_closed_port()}"
    with pytest.raises(BackendUnavailable) as failure:
        open_openai("m", Options(base_url=url))
    assert KEY not in str(failure.value)
    assert "/v1" in str(failure.value)


def test_unknown_prompts_are_refused() -> None:
    with pytest.raises(InputError, match="one of general, opened, embedded"):
        OpenAIBackend("m", prompts="other")
