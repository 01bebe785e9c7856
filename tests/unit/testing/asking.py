"""A client for `MockUpstream`: one request, its events, and a tolerant reader of broken answers."""

from __future__ import annotations

import json
from typing import cast

import httpx

from justenough.testing import MockUpstream
from justenough.trace import Json

CHAT = "/v1/chat/completions"
MESSAGES: list[Json] = [{"role": "user", "content": "What is 6 times 7?"}]


def body(**fields: Json) -> dict[str, Json]:
    """A chat with these fields."""
    return {"model": "mock", "messages": MESSAGES, **fields}


async def post(
    upstream: MockUpstream, fields: dict[str, Json], *, path: str = CHAT, key: str | None = None
) -> httpx.Response:
    """One POST; the whole answer is read."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=upstream.url, trust_env=False, timeout=10) as client:
        return await client.post(path, json=fields, headers=headers)


async def get(upstream: MockUpstream, path: str) -> httpx.Response:
    """One GET."""
    async with httpx.AsyncClient(base_url=upstream.url, trust_env=False, timeout=10) as client:
        return await client.get(path)


def events(response: httpx.Response) -> list[dict[str, Json]]:
    """The events of a stream, without `[DONE]`."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def choices(response: httpx.Response) -> list[dict[str, Json]]:
    """The first choice of each event that has one."""
    rows = [cast("list[dict[str, Json]]", event["choices"]) for event in events(response)]
    return [row[0] for row in rows if row]


def delta_text(response: httpx.Response, field: str = "content") -> str:
    """The text of a streamed chat in one field of its deltas."""
    deltas = [cast("dict[str, str]", choice["delta"]) for choice in choices(response)]
    return "".join(delta.get(field) or "" for delta in deltas)
