"""A request that the gateway changed and the upstream refuses is repeated as the client sent it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from justenough.gateway.serve.relay import RequestRefused
from justenough.gateway.settings import BudgetSettings
from justenough.gateway.upstream.logprobs import NEEDED
from justenough.testing import MockUpstream
from justenough.testing.completions import Completions
from justenough.testing.connection import Received
from tests.unit.gateway.serve.test_sequential import stepwise
from tests.unit.gateway.test_gating import CHAT, TEXT, events, gated, said

Refuses = Callable[[dict[str, Any]], bool]
PATHS = {"/v1/chat/completions": CHAT, "/v1/completions": TEXT}


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> Callable[[Refuses, int, str], None]:
    """Makes the mock refuse completions with certain members."""
    complete = Completions.complete

    def install(refuses: Refuses, status: int, words: str) -> None:
        async def checked(self: Completions, request: Received) -> None:
            if b"Say OK." not in request.body and refuses(request.json()):
                await self.whole(status, {"error": {"message": words}})
            else:
                await complete(self, request)

        monkeypatch.setattr(Completions, "complete", checked)

    return install


REFUSALS: dict[str, tuple[Refuses, int, str]] = {
    "stream_options": (lambda body: "stream_options" in body, 422, "extra fields not permitted"),
    "stream": (lambda body: bool(body.get("stream")), 400, "streaming is off"),
    **{
        f"logprobs {status}": (lambda body: bool(body.get("logprobs")), status, "probabilities are not available")
        for status in (400, 403, 500, 501, 503)
    },
}


@pytest.mark.parametrize("shape", ["streaming", "sequential"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_of_what_the_gateway_added_gives_the_answer_that_the_client_gets_directly(
    name: str, path: str, shape: str, picky: Callable[..., None]
) -> None:
    picky(*REFUSALS[name])

    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post(path, json=PATHS[path])
        async with httpx.AsyncClient(base_url=mock.url) as straight:
            direct = await straight.post(path, json=PATHS[path])
        assert (answer.status_code, answer.content) == (200, direct.content)
        if shape == "streaming" or path.startswith("/v1/chat"):
            assert answer.headers["x-justenough"] == "relayed; reason=refused"
            assert [request.json() for request in mock.completions[1:]] == [PATHS[path]] * 2

    (gated if shape == "streaming" else stepwise)(scenario, MockUpstream())


@pytest.mark.parametrize("status", [400, 401, 413, 429, 500])
def test_a_request_that_is_wrong_in_itself_gets_the_upstreams_error(status: int, picky: Callable[..., None]) -> None:
    picky(lambda body: True, status, "no")

    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for _ in range(2 * NEEDED):
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert (answer.status_code, answer.json()) == (status, {"error": {"message": "no"}})
        assert len(mock.completions) == 4 * NEEDED
        assert (await client.get("/v1/justenough/status")).json()["without_logprobs"] == {}

    gated(scenario)


def test_a_lasting_refusal_is_remembered_and_a_passing_one_is_not(picky: Callable[..., None]) -> None:
    for status, remembered in ((500, True), (503, False)):
        picky(lambda body: bool(body.get("logprobs")), status, "no")

        async def scenario(
            gateway: Any, mock: MockUpstream, client: httpx.AsyncClient, remembered: bool = remembered
        ) -> None:
            for _ in range(NEEDED + 1):
                assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
            assert gateway.service.logprobs.lacks("mock", "127.0.0.1") is remembered
            assert len(mock.completions) == 2 * NEEDED + (1 if remembered else 2)

        gated(scenario)


def test_a_relayed_stream_under_a_budget_is_repeated_without_the_usage_that_only_the_gateway_wants(
    picky: Callable[..., None],
) -> None:
    picky(lambda body: "stream_options" in body, 422, "extra fields not permitted")

    async def scenario(gateway: Any, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        assert answer.status_code == 200
        assert "42" in said(events(answer.text))
        account = (await client.get("/v1/justenough/status")).json()["budget"]["accounts"]["all"]
        assert account["reserved"] == 0
        assert account["spent"] >= 4

    gated(scenario, mode="off", budget=BudgetSettings(tokens=100_000, per="batch"))


@pytest.mark.parametrize(
    ("status", "body", "names_logprobs", "is_lasting"),
    [
        (400, b'{"error": "LogProbs are off"}', True, True),
        (503, b"logprobs", True, True),
        (400, b"bad", False, True),
        (429, b"busy", False, False),
    ],
)
def test_what_a_refusal_says(status: int, body: bytes, names_logprobs: bool, is_lasting: bool) -> None:
    refused = RequestRefused(status, body)
    assert (refused.names_logprobs, refused.is_lasting) == (names_logprobs, is_lasting)
