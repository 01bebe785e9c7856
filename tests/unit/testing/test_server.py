"""`MockUpstream` as a server: its endpoints, its key, its counters."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from justenough.testing import Fault, MockUpstream, Received
from justenough.trace import Json
from tests.unit.testing.asking import CHAT, MESSAGES, body, get, post


def test_it_counts_tokens_requests_and_connections() -> None:
    async def run() -> None:
        async with MockUpstream(thought=["a", "b"], answer=["42"]) as upstream:
            await post(upstream, body(stream=True))
            await post(upstream, body())
            # Thought, answer and the two tags, twice.
            assert upstream.generated == 2 * 5
            assert upstream.cancelled == 0
            assert [request.target for request in upstream.requests] == [CHAT, CHAT]
            assert upstream.under_way == 0
            for _ in range(100):
                if not upstream.connections:
                    break
                await asyncio.sleep(0.01)
            assert upstream.connections == 0

    asyncio.run(run())


def test_a_client_that_disconnects_is_counted_and_stops_the_generation() -> None:
    async def run() -> None:
        async with MockUpstream(fault=Fault.ENDLESS, interval_s=0.002) as upstream:
            async with (
                httpx.AsyncClient(base_url=upstream.url, trust_env=False) as client,
                client.stream("POST", CHAT, json=body(stream=True)) as response,
            ):
                await anext(response.aiter_bytes())
                assert upstream.under_way == 1
            for _ in range(200):
                if upstream.cancelled:
                    break
                await asyncio.sleep(0.01)
            generated = upstream.generated
            await asyncio.sleep(0.05)
            assert (upstream.cancelled, upstream.under_way) == (1, 0)
            assert upstream.generated == generated

    asyncio.run(run())


def test_requests_of_the_gateways_probe_are_no_completions() -> None:
    async def run() -> None:
        async with MockUpstream(fault=Fault.SERVER_ERROR) as upstream:
            probe = await post(upstream, body(messages=[{"role": "user", "content": "Say OK."}]))
            assert probe.status_code == 200
            assert upstream.completions == []
            assert (await post(upstream, body())).status_code == 500
            assert len(upstream.requests) == 2
            (completion,) = upstream.completions
            assert completion.json()["messages"] == MESSAGES

    asyncio.run(run())


def test_a_key_is_required_where_one_is_set() -> None:
    async def run() -> None:
        async with MockUpstream(key="sk-1") as upstream:
            assert (await post(upstream, body())).status_code == 401
            assert (await post(upstream, body(), key="sk-2")).status_code == 401
            assert (await post(upstream, body(), key="sk-1")).status_code == 200
            assert (await get(upstream, "/v1/models")).status_code == 401
            assert upstream.generated == 9
        async with MockUpstream(key="sk-1", engine="llama.cpp") as upstream:
            assert (await get(upstream, "/v1/models")).status_code == 200

    asyncio.run(run())


def test_a_loading_server_answers_503_to_everything() -> None:
    async def run() -> None:
        async with MockUpstream(loading=True, key="sk-1") as upstream:
            for response in (await get(upstream, "/v1/models"), await post(upstream, body()), await get(upstream, "/")):
                assert response.status_code == 503
                assert response.json()["error"]["message"] == "Loading model"
            upstream.loading = False
            assert (await post(upstream, body(), key="sk-1")).status_code == 200

    asyncio.run(run())


@pytest.mark.parametrize(("context", "expected"), [(None, {}), (128, {"max_model_len": 128})])
def test_the_model_is_listed_with_its_context(context: int | None, expected: dict[str, Json]) -> None:
    async def run() -> Json:
        async with MockUpstream(model="m", context=context) as upstream:
            answer: Json = (await get(upstream, "/v1/models")).json()
            return answer

    assert asyncio.run(run()) == {"object": "list", "data": [{"id": "m", "object": "model", **expected}]}


@pytest.mark.parametrize(
    ("engine", "served", "missing"),
    [
        ("vllm", ("/version",), ("/props",)),
        ("llama.cpp", ("/props",), ("/version",)),
        ("plain", (), ("/version", "/props", "/metrics", "/v1/nothing")),
    ],
)
def test_each_engine_has_its_own_endpoints(engine: str, served: tuple[str, ...], missing: tuple[str, ...]) -> None:
    async def run() -> None:
        async with MockUpstream(engine=engine) as upstream:  # type: ignore[arg-type]
            for path in served:
                assert (await get(upstream, path)).status_code == 200, path
            for path in missing:
                assert (await get(upstream, path)).status_code == 404, path

    asyncio.run(run())


def test_both_engines_show_the_prompt_of_a_chat() -> None:
    expected = "<|user|>What is 6 times 7?<|assistant|>"

    async def run() -> None:
        async with MockUpstream(engine="llama.cpp") as upstream:
            assert (await post(upstream, body(), path="/apply-template")).json() == {"prompt": expected}
        async with MockUpstream(engine="vllm") as upstream:
            tokens = (await post(upstream, body(), path="/tokenize")).json()["tokens"]
            assert (await post(upstream, {"tokens": tokens}, path="/detokenize")).json() == {"prompt": expected}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("engine", "name"),
    [("vllm", 'vllm:generation_tokens_total{engine="0"}'), ("llama.cpp", "llamacpp:tokens_predicted_total")],
)
def test_metrics_give_the_generated_tokens(engine: str, name: str) -> None:
    async def run() -> str:
        async with MockUpstream(engine=engine, metrics=True, thought=[], answer=["4", "2"]) as upstream:  # type: ignore[arg-type]
            await post(upstream, body())
            return (await get(upstream, "/metrics")).text

    assert asyncio.run(run()).splitlines()[-1] == f"{name} 2.0"


def test_invalid_requests_and_methods_are_refused_and_generate_nothing() -> None:
    async def run() -> None:
        async with MockUpstream() as upstream:
            assert (await post(upstream, {"model": "mock"})).status_code == 400
            response = await get(upstream, CHAT)
            assert (response.status_code, response.headers["allow"]) == (405, "POST")
            assert upstream.generated == 0

    asyncio.run(run())


@pytest.mark.parametrize(("path", "status"), [("/v1/models", 200), (CHAT, 405), ("/unknown", 404)])
def test_the_answer_to_head_has_the_head_of_the_other_one_and_no_body(path: str, status: int) -> None:
    async def run() -> None:
        async with MockUpstream() as upstream:
            port = int(upstream.url.rsplit(":", 1)[1])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"HEAD {path} HTTP/1.1\r\n\r\nGET {path} HTTP/1.1\r\n\r\n".encode())
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                # What follows is the next answer.
                assert await reader.readuntil(b"\r\n\r\n") == head
            assert head.startswith(b"HTTP/1.1 %d " % status)
            writer.close()

    asyncio.run(run())


def test_the_echo_shows_what_arrived() -> None:
    async def run() -> httpx.Response:
        async with MockUpstream() as upstream:
            return await post(upstream, {"a": 1}, path="/echo?x=1", key="k")

    response = asyncio.run(run())
    result = response.json()
    assert (response.status_code, response.headers["x-mock-list"]) == (201, "a, b")
    assert (result["method"], result["target"]) == ("POST", "/echo?x=1")
    assert result["headers"]["authorization"] == "Bearer k"
    assert result["body"].replace(" ", "") == '{"a":1}'


def test_a_callback_sees_every_request_before_its_answer() -> None:
    received: list[tuple[str, int]] = []

    async def run() -> None:
        upstream = MockUpstream()

        def note(request: Received) -> None:
            received.append((request.target, upstream.generated))

        upstream.on_request = note
        async with upstream:
            await post(upstream, body())
            await get(upstream, "/v1/models")

    asyncio.run(run())
    assert received == [(CHAT, 0), ("/v1/models", 9)]


@pytest.mark.parametrize("stream", [True, False])
def test_a_stream_can_be_held_before_each_token_but_no_probe(stream: bool) -> None:
    async def run() -> None:
        upstream = MockUpstream(thought=(), answer=["4", "2", "."])
        go_on, held = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            if upstream.generated == 2:
                held.set()
                await go_on.wait()

        upstream.before_token = hold
        async with upstream:
            upstream.generated = 2
            await post(upstream, body(messages=[{"role": "user", "content": "Say OK."}]))
            upstream.generated = 0
            task = asyncio.ensure_future(post(upstream, body(stream=stream)))
            await held.wait()
            assert (upstream.generated, task.done()) == (2, False)
            go_on.set()
            assert (await task).status_code == 200
            assert upstream.generated == 3

    asyncio.run(run())
