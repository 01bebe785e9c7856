"""A client sees its requests under way, and ends a thought of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from typing import Any

import httpx
import pytest

from justenough.gateway.serve.streaming import _LONGEST_REST
from justenough.gateway.settings import GatewaySettings
from justenough.testing import UNSURE, MockUpstream
from tests.unit.gateway.serving import Running, calibration_of, running
from tests.unit.gateway.ways import CHAT, Hold

DESCRIBED = json.loads(files("justenough").joinpath("gateway", "openapi.json").read_text())["components"]["schemas"][
    "UnderWay"
]
LIST = "/v1/justenough/requests"
LONG = tuple(["Let me", " think.\n\n"] * 500)
TEXT = {"model": "mock", "prompt": "What is 6*7?"}


@asynccontextmanager
async def unsure(mock: MockUpstream, **changes: Any) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    """A gateway before a model that is never sure."""
    mock.logprobs, mock.interval_s = (UNSURE,), 0.001
    async with mock:
        base = GatewaySettings(upstream=mock.url, calibration=calibration_of(1.0), audit_share=0.0, close="</think>")
        async with (
            running(replace(base, **changes)) as gateway,
            asyncio.timeout(120),
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            yield gateway, client


async def first(client: httpx.AsyncClient, *, tokens: int = 1, key: str | None = None) -> dict[str, Any]:
    """The first request under way, once it has so many tokens."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    while True:
        rows = (await client.get(LIST, headers=headers)).json()["requests"]
        if rows and (rows[0]["tokens"] or 0) >= tokens:
            return dict(rows[0])
        await asyncio.sleep(0.005)


async def ended(client: httpx.AsyncClient, name: str, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return await client.post(f"{LIST}/{name}/answer", headers=headers)


COURSES: dict[str, dict[str, Any]] = {"gate": {}, "observe": {"mode": "observe"}, "audit": {"audit_share": 1.0}}


@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_ends_its_thought_where_a_step_ends(stream: bool, path: str, course: str) -> None:
    async def main() -> None:
        mock = MockUpstream(thought=LONG)
        hold = Hold(mock, 5)
        async with unsure(mock, **COURSES[course]) as (gateway, client):
            body = {**(CHAT if "chat" in path else TEXT), "stream": stream}
            task = asyncio.ensure_future(client.post(path, json=body))
            row = await first(client, tokens=5)
            assert set(row) == set(DESCRIBED["required"]) == set(DESCRIBED["properties"])
            assert (row["path"], row["course"], row["phase"], row["can_answer"]) == (path, course, "thinking", True)
            assert (await ended(client, row["id"])).status_code == 202
            hold.go_on.set()
            answer = await task
            assert answer.headers["x-justenough-request"] == row["id"]
            events = [line[6:] for line in answer.text.split("\n\n") if 'finish_reason":"stop' in line]
            report = json.loads(events[0] if stream else answer.text)["justenough"]
            assert (report["decision"], report["reason"]) == ("stopped", "answer_now")
            if not stream:
                choice = answer.json()["choices"][0]
                text = choice["message"]["content"] if "chat" in path else choice["text"]
                assert text.endswith(" think.\n\n</think>The answer is 42.")
            assert gateway.service.metrics.outcomes == {"answer_now": 1}
            assert len(gateway.service.learning.audit) == 0
            assert (await client.get(LIST)).json() == {"requests": []}
        assert mock.generated < 200

    asyncio.run(main())


def test_a_step_that_does_not_end_is_cut_after_some_tokens() -> None:
    async def main() -> None:
        mock = MockUpstream(thought=("on",) * 2000)
        hold = Hold(mock, 5)
        async with unsure(mock) as (_, client):
            task = asyncio.ensure_future(client.post("/v1/chat/completions", json=CHAT))
            row = await first(client, tokens=5)
            await ended(client, row["id"])
            hold.go_on.set()
            report = (await task).json()["justenough"]
            assert (report["reason"], report["step"]) == ("answer_now", 0)
            assert report["thought_tokens"] == 5 + _LONGEST_REST + 1

    asyncio.run(main())


def test_the_last_whole_step_is_the_answer_of_a_sequential_request() -> None:
    async def main() -> None:
        calibration = calibration_of(1.0, shape="sequential", splitter="completion")
        mock = MockUpstream(thought=LONG[:40])
        # The first step has 46 tokens.
        hold = Hold(mock, 60)
        async with unsure(mock, calibration=calibration) as (_, client):
            task = asyncio.ensure_future(client.post("/v1/chat/completions", json=CHAT))
            row = await first(client, tokens=60)
            await ended(client, row["id"])
            hold.go_on.set()
            whole = (await task).json()
            assert (whole["justenough"]["reason"], whole["justenough"]["steps"]) == ("answer_now", 1)
            assert whole["choices"][0]["message"]["content"] == "The answer is 42."
            assert whole["usage"]["completion_tokens"] >= 60

    asyncio.run(main())


def test_during_the_first_step_of_a_sequential_request_no_second_step_follows() -> None:
    async def main() -> None:
        calibration = calibration_of(1.0, shape="sequential", splitter="completion")
        mock = MockUpstream(thought=LONG[:40])
        hold = Hold(mock, 5)
        async with unsure(mock, calibration=calibration) as (_, client):
            task = asyncio.ensure_future(client.post("/v1/chat/completions", json=CHAT))
            row = await first(client, tokens=5)
            await ended(client, row["id"])
            hold.go_on.set()
            report = (await task).json()["justenough"]
            assert (report["reason"], report["steps"]) == ("answer_now", 1)

    asyncio.run(main())


@pytest.mark.parametrize("client_keys", [("sk-a", "sk-b"), ()])
def test_nobody_ends_the_thought_of_another_client(client_keys: tuple[str, ...]) -> None:
    async def main() -> None:
        mock = MockUpstream(thought=LONG)
        hold = Hold(mock, 5)
        async with unsure(mock, client_keys=client_keys) as (_, client):
            mine = {"authorization": "Bearer sk-a"}
            task = asyncio.ensure_future(client.post("/v1/chat/completions", json=CHAT, headers=mine))
            row = await first(client, tokens=5, key="sk-a")
            assert "think" not in json.dumps(row | {"phase": ""})
            for key in ("sk-b", "sk-", None):
                answer = await ended(client, row["id"], key)
                expected = 401 if client_keys and key != "sk-b" else 404
                assert answer.status_code == expected, key
            other = await client.get(LIST, headers={"authorization": "Bearer sk-b"})
            assert len(other.json()["requests"]) == (0 if client_keys else 1)
            assert not task.done()
            assert (await ended(client, row["id"], "sk-a")).status_code == 202
            hold.go_on.set()
            assert (await task).json()["justenough"]["reason"] == "answer_now"

    asyncio.run(main())


def test_a_request_without_a_thought_to_end_says_so() -> None:
    async def main() -> None:
        mock = MockUpstream(thought=(), answer=("word ",) * 100)
        async with unsure(mock) as (_, client):
            for body in (CHAT, {**CHAT, "tools": [{}]}):
                hold = Hold(mock, 30)
                task = asyncio.ensure_future(client.post("/v1/chat/completions", json=body))
                row = await first(client, tokens=30 if body is CHAT else 0)
                assert (row["can_answer"], row["course"]) == (False, "gate" if body is CHAT else "relay")
                answer = await ended(client, row["id"])
                assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_thought")
                hold.go_on.set()
                assert (await task).status_code == 200
            answer = await ended(client, "unknown")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_request")

    asyncio.run(main())
