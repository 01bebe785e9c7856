"""Responses and Messages before vLLM: it turns them into chats itself, so both chats must have the same answer."""

from __future__ import annotations

from typing import Any, Final

import httpx
import pytest

from tests.e2e.gateway.through import CHAT, MODEL, through
from tests.unit.gateway.apis.others import seen
from tests.unit.gateway.serving import Running

pytestmark = pytest.mark.vllm

BODIES: Final[dict[str, dict[str, Any]]] = {
    "/v1/responses": {"model": MODEL, "input": "47*36", "max_output_tokens": 400, "temperature": 0},
    "/v1/messages": {"model": MODEL, "messages": CHAT["messages"], "max_tokens": 400, "temperature": 0},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", BODIES)
def test_other_apis_are_cut_or_answered_as_without_us(vllm_server: str, path: str, stream: bool) -> None:
    body = {**BODIES[path], "stream": stream}

    async def scenario(gateway: Running, client: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=vllm_server, timeout=120) as straight:
            direct = seen(path, await straight.post(path, json=body))
        uncut = seen(path, await client.post(path, json={**body, "justenough": {"threshold": 0}}))
        assert uncut.report["decision"] == "finished"
        assert uncut._replace(report=None) == direct
        cut = seen(path, await client.post(path, json=body))
        assert (cut.report["decision"], cut.report["step"]) == ("stopped", 1)
        assert (cut.status, cut.finish, cut.prompt) == (direct.status, direct.finish, direct.prompt)
        assert cut.text.endswith("Answer: 1692")
        assert 0 < (cut.tokens or 0) < (direct.tokens or 0)
        # The tags of a thought in the text are closed by the gateway.
        begin = cut.thought or cut.text.partition("</think>")[0]
        assert (direct.thought or direct.text).startswith(begin)

    through(vllm_server, scenario, temperature=0.0)
