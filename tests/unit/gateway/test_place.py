"""The paths that people use reach the right handler, and go to the operator's path."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest

from justenough.gateway.place import Place, place_of
from justenough.gateway.settings import BudgetSettings, GatewaySettings
from justenough.testing import CONFIDENT, MockUpstream
from tests.unit.gateway.serving import calibration_of, running
from tests.unit.gateway.test_gating import SURE_AT_STEP_2
from tests.unit.gateway.ways import CHAT, THOUGHT

TEXT = {"model": "mock", "prompt": "What is 6*7?"}
CHATS = (
    "/v1/chat/completions",
    "/chat/completions",
    "/v1/chat/completions/",
    "//v1/chat/completions",
    "/v1//chat/completions",
    "/v1/chat%2Fcompletions",
    "/openai/deployments/mock/chat/completions?api-version=2025-01-01",
    "/openai/v1/chat/completions",
    "/api/v1/chat/completions",
    "/v1beta/openai/chat/completions",
)
TEXTS = (
    "/v1/completions",
    "/v1//completions/",
    "/openai/deployments/mock/completions?api-version=2025-01-01",
    "/openai/completions",
)
OTHERS = ("/v1/embeddings", "/v1/fim/completions", "/completion", "/v1/models", "/chat", "/", "/v1/completions/1", "")


@pytest.mark.parametrize("path", CHATS)
def test_a_path_of_a_chat_is_recognised(path: str) -> None:
    place = place_of(path.partition("?")[0].replace("%2F", "/"), path)
    assert place is not None
    assert place.kind == "chat"
    assert "//" not in place.target()
    assert place.target().startswith(f"{place.root}/chat/completions")
    assert place.target("completion") == place.target().replace("chat/", "")


@pytest.mark.parametrize("path", TEXTS)
def test_a_path_of_a_text_is_recognised(path: str) -> None:
    place = place_of(path.partition("?")[0], path)
    assert place is not None
    assert (place.kind, place.usual.root) == ("completion", "/v1")


@pytest.mark.parametrize("path", OTHERS)
def test_any_other_path_is_none_of_the_protocols(path: str) -> None:
    assert place_of(path, path) is None


def test_a_deployment_names_the_model() -> None:
    target = "/openai/deployments/gpt%205/chat/completions?api-version=1"
    place = place_of("/openai/deployments/gpt 5/chat/completions", target)
    expected = Place(kind="chat", root="/openai/deployments/gpt%205", query="?api-version=1", deployment="gpt 5")
    assert place == expected
    assert expected.target() == target


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("path", [*CHATS, *TEXTS])
def test_every_form_of_the_path_is_gated(path: str, engine: Any) -> None:
    async def main() -> None:
        async with MockUpstream(thought=THOUGHT, logprobs=SURE_AT_STEP_2, engine=engine) as mock:
            settings = GatewaySettings(upstream=mock.url, calibration=calibration_of(1.0), audit_share=0.0)
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                body = CHAT if path in CHATS else TEXT
                if "deployments" in path:
                    body = {key: value for key, value in body.items() if key != "model"}
                answer = await client.post(httpx.URL(gateway.url + path), json=body)
                assert answer.json()["justenough"]["decision"] == "stopped"
                assert mock.completions[0].json()["model"] == "mock"

    asyncio.run(main())


@pytest.mark.parametrize("root", ["/api/v3", "/v1beta/openai", "/openai/deployments/mock"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "{root}/chat/completions"])
def test_an_upstream_with_a_path_of_its_own_is_gated_there(path: str, root: str) -> None:
    async def main() -> None:
        async with MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,), engine="plain", root=root) as mock:
            settings = GatewaySettings(
                upstream=f"{mock.url}{root}", calibration=calibration_of(1.0), audit_share=0.0, default_temperature=1.0
            )
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                answer = await client.post(path.format(root=root), json=CHAT)
                assert answer.json()["choices"][0]["message"]["content"].endswith("42.")
                assert answer.headers["x-justenough"].startswith("observed; reason=cannot_continue")
                models = await client.get("/v1/models")
                assert models.json()["data"][0]["id"] == "mock"
            assert {request.target for request in mock.completions} == {f"{root}/chat/completions"}

    asyncio.run(main())


def test_llama_cpps_own_path_for_texts_keeps_its_own_form() -> None:
    async def main() -> None:
        async with MockUpstream(engine="llama.cpp") as mock:
            settings = GatewaySettings(upstream=mock.url, calibration=calibration_of(1.0))
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                answer = await client.post("/completions", json=TEXT)
                assert answer.headers["x-justenough"] == "relayed; reason=path"
            assert [request.target for request in mock.completions] == ["/completions"]

    asyncio.run(main())


@pytest.mark.parametrize("path", ["//v1/chat/completions", "/v1/responses/", "/responses", "/chat/completions/"])
def test_no_form_of_the_path_goes_around_a_token_budget(path: str) -> None:
    async def main() -> None:
        async with MockUpstream() as mock:
            settings = replace(GatewaySettings(upstream=mock.url, mode="off"), budget=BudgetSettings(tokens=100))
            async with running(settings) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                await client.post(httpx.URL(gateway.url + path), json=CHAT)
            sent = [request.json() for request in mock.requests if request.method == "POST"]
            # The gateway's own probe asks other questions.
            own = [body for body in sent if "6*7" in str(body)]
            limits = [body.get("max_tokens") or body.get("max_output_tokens") for body in own]
            # A server that does not know the path is asked again, within the same budget.
            assert set(limits) == {100}

    asyncio.run(main())
