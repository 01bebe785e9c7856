"""HTTP of the OpenAI backend: addresses, keys, retries, and the errors of a server."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from justenough.backends import http
from justenough.backends.http import TRIES, Patience, Site, models_of, rejected, unreachable
from justenough.errors import BackendError, BackendRejected, BackendUnavailable, ContextExceeded, InputError

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def answer(status: int, text: str = "", kind: str = "application/json") -> bytes:
    """A whole HTTP answer."""
    data = text.encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n"
    return head.encode() + b"Location: http://elsewhere/v1\r\n\r\n" + data


@contextmanager
def serving(*answers: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server in a thread that gives these answers in turn, the last one repeatedly; and the heads it received."""
    heads: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                heads.append(connection.recv(65536).decode())
                connection.sendall(answers[min(len(heads), len(answers)) - 1])

    thread = threading.Thread(target=serve)
    thread.start()
    host, port = listener.getsockname()
    try:
        yield f"http://{host}:{port}", heads
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_FIRST_PAUSE", 0.001)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/", "http://host:8000/v1"),
        (" http://host:8000/v1/ ", "http://host:8000/v1"),
        ("https://host/openai/v2?x=1#y", "https://host/openai/v2"),
        ("http://user:secret@host/v1", "http://host/v1"),
    ],
)
def test_a_base_url_is_completed_and_shown_without_secrets(text: str, url: str) -> None:
    assert str(Site(text)) == url


@pytest.mark.parametrize("key", ["sk-\N{EM DASH}", "sk-\nx", "sk-\x7f"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(InputError, match="OPENAI_API_KEY contains characters") as error:
        Site("http://host")
    assert key not in str(error.value)


def test_a_key_is_stripped_and_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Site("http://host").redact("no key, no change") == "no key, no change"
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    assert Site("http://host").redact(f"the key {KEY} is wrong") == "the key [key] is wrong"


def test_only_the_server_of_openai_is_openai() -> None:
    assert Site("https://api.openai.com/v1").is_openai
    assert not Site("https://api.openai.com.example.org/v1").is_openai


def response(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_an_error_of_the_request_is_not_tried_again(status: int) -> None:
    assert Patience().pause(response(status)) is None


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_tried_with_growing_pauses(status: int) -> None:
    patience = Patience()
    assert [patience.pause(response(status)) for _ in range(TRIES)] == [0.25, 0.5, None]


@pytest.mark.parametrize(
    ("header", "pause"),
    [("2", 2.0), ("0.1", 0.25), ("-5", 0.25), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.25), ("nan", 0.25)],
)
def test_the_server_may_ask_for_a_longer_pause(header: str, pause: float) -> None:
    assert Patience().pause(response(429, retry_after=header)) == pause


def test_a_pause_beyond_the_deadline_is_no_pause() -> None:
    assert Patience().pause(response(429, retry_after="60")) is None


def test_a_closed_idle_connection_is_replaced_at_once_and_a_second_one_later() -> None:
    patience = Patience()
    assert patience.pause(httpx.RemoteProtocolError("closed")) == 0.0
    assert patience.pause(httpx.ReadError("closed")) == 0.5


def test_a_server_that_is_connected_and_silent_is_not_tried_again() -> None:
    assert Patience().pause(httpx.ReadTimeout("silent")) is None
    assert Patience().pause(httpx.ConnectTimeout("silent")) == 0.25


def test_models_are_listed_with_their_owners_and_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    rows = '{"data": [{"id": "a", "owned_by": "vllm"}, {"id": "b"}, {"id": 3}, "c", {"id": "d", "owned_by": null}]}'
    with serving(answer(200, rows)) as (url, heads):
        assert models_of(Site(url), optional=False) == {"a": "vllm", "b": "unknown", "d": "unknown"}
    assert heads[0].startswith("GET /v1/models ")
    assert f"authorization: bearer {KEY}" in heads[0].lower()


@pytest.mark.parametrize("text", ["", "<html>", '{"data": '])
def test_a_list_that_is_not_readable_is_an_error_unless_it_is_optional(text: str) -> None:
    with serving(answer(200, text)) as (url, _):
        assert models_of(Site(url), optional=True) == {}
        with pytest.raises(BackendRejected, match=rf"{url}/v1: the server's reply cannot be read: .* \(is it OpenAI"):
            models_of(Site(url), optional=False)


@pytest.mark.usefixtures("quick")
def test_a_failing_list_is_tried_again_unless_it_is_optional() -> None:
    good = answer(200, '{"data": [{"id": "a"}]}')
    with serving(answer(503, "busy"), answer(503, "busy"), good) as (url, heads):
        assert models_of(Site(url), optional=False) == {"a": "unknown"}
        assert len(heads) == 3
    with serving(answer(503, "busy")) as (url, heads):
        assert models_of(Site(url), optional=True) == {}
        assert len(heads) == 1
        with pytest.raises(BackendRejected, match="503: busy") as error:
            models_of(Site(url), optional=False)
        assert error.value.retryable
        assert len(heads) == 1 + TRIES


def refusal(status: int, content: bytes, kind: str = "application/json") -> str:
    """The message for an answer that is not a stream."""

    async def run() -> str:
        headers = {"content-type": kind, "location": "http://elsewhere/v1"}
        error = await rejected(httpx.Response(status, headers=headers, content=content), Site("http://host"))
        assert isinstance(error, BackendRejected)
        assert error.status == status
        return str(error)

    return asyncio.run(run())


def test_the_message_of_the_server_is_shown() -> None:
    assert refusal(400, b'{"error": {"message": "top_logprobs is too large"}}').startswith(
        "http://host/v1 answered 400: top_logprobs is too large"
    )
    assert "answered 502: Bad gateway" in refusal(502, b" Bad \n gateway ")
    assert "answered 500: (no text)" in refusal(500, b"")


def test_a_long_or_binary_message_is_cut() -> None:
    assert len(refusal(500, b"x" * 200_000)) < 400
    assert "\N{REPLACEMENT CHARACTER}" in refusal(500, b"\xff\xfe")


def test_an_answer_without_a_stream_names_its_content_type() -> None:
    assert "answered 200: it answered with text/html instead of a stream" in refusal(200, b"<html>", "text/html")


@pytest.mark.parametrize(
    ("status", "hint"),
    [(301, "final address"), (401, "set OPENAI_API_KEY"), (404, "ends in /v1"), (429, "lower --concurrency")],
)
def test_known_statuses_have_a_hint(status: int, hint: str) -> None:
    assert hint in refusal(status, b"")


def test_a_refusal_of_log_probabilities_has_a_hint_with_any_status() -> None:
    body = b'{"error": {"message": "Logprobs are not supported with this model"}}'
    assert "lower --top-k" in refusal(400, body)
    assert "lower --top-k" in refusal(422, body)


def test_a_redirect_is_not_followed_and_its_target_is_named() -> None:
    assert "it redirects to http://elsewhere/v1, and redirects are not followed" in refusal(307, b"")


def test_a_repeated_key_is_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert KEY not in refusal(401, f"the key {KEY} is unknown".encode())
    error = unreachable(httpx.ConnectError(f"no route for {KEY}"), Site("http://host"))
    assert "no route for [key]" in str(error)


def test_an_unreachable_server_is_named_with_the_reason() -> None:
    site = Site("http://host")
    assert "http://host/v1 cannot be reached: refused" in str(unreachable(httpx.ConnectError("refused"), site))
    assert "http://host/v1 did not answer in time: ReadTimeout" in str(unreachable(httpx.ReadTimeout(""), site))
    assert isinstance(unreachable(httpx.ReadTimeout(""), site), BackendUnavailable)


def test_a_server_that_loads_its_model_is_waited_for_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http, "_LOADING_PAUSE", 0.01)
    loading = answer(503, '{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}')
    good = answer(200, '{"data": [{"id": "m", "owned_by": "llamacpp"}]}')
    for optional in (False, True):
        with serving(*[loading] * 5, good) as (url, heads):
            assert models_of(Site(url), optional=optional) == {"m": "llamacpp"}
            assert len(heads) == 6
    assert [record.message for record in caplog.records] == ["the server is loading its model: waiting up to 600 s"] * 2


def test_a_server_that_never_finishes_loading_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    patience, loading = Patience(), httpx.Response(503)
    for second in range(600):
        now[0] = float(second)
        assert patience.pause(loading, reason="Loading model") == 1.0
    now[0] = 600.0
    assert patience.pause(loading, reason="Loading model") is None


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "This model's maximum context length is 640 tokens. However, you requested 700 tokens.", ContextExceeded),
        (
            400,
            "request (700 tokens) exceeds the available context size (640 tokens), try increasing it",
            ContextExceeded,
        ),
        (400, "The input (700 tokens) is longer than the model's context length (640 tokens).", ContextExceeded),
        (400, '{"error": {"message": "too long", "code": "context_length_exceeded"}}', ContextExceeded),
        (400, "unknown field top_logprobs", BackendRejected),
        (500, "the context length is not known", BackendRejected),
    ],
)
def test_a_conversation_longer_than_the_context_is_an_error_of_its_own(
    status: int, text: str, kind: type[BackendError]
) -> None:
    error = asyncio.run(rejected(httpx.Response(status, content=text.encode()), Site("http://127.0.0.1:1")))
    assert type(error) is kind
