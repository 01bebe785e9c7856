"""Responses, Messages and Ollama's API through the gateway: cut, observed, relayed, charged, and their errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final, cast

import aiohttp
import httpx
import pytest

from justenough.gateway.apis.ollama import _Chunks
from justenough.gateway.settings import BudgetSettings, GatewaySettings
from justenough.signal.thought import THINK
from justenough.testing import CONFIDENT, UNSURE, Fault, MockUpstream
from tests.unit.gateway.apis.others import MESSAGES, REQUESTS, is_ollama, seen, values_of
from tests.unit.gateway.serving import Running, calibration_of, running
from tests.unit.gateway.ways import settled
from tests.unit.gateway.wild import Reply, Scripted, before

THOUGHT: Final = ("Let me think", ".\n\n", "So it is", " 42.\n\n", "Yes", ", 42.\n\n")
SURE_AT_STEP_2: Final = (UNSURE, UNSURE, CONFIDENT)
ANSWER: Final = "The answer is 42."
FINISHES: Final = {"/v1/responses": "completed", "/v1/messages": "end_turn"}
Scenario = Callable[[Running, MockUpstream, httpx.AsyncClient], Coroutine[None, None, None]]


def upstream_for(path: str, *, field: str | None = "reasoning_content", **settings: Any) -> MockUpstream:
    """A server that has this API, with a thought of three paragraphs, of which the second one is sure."""
    own: dict[str, Any] = {"engine": "ollama" if is_ollama(path) else "vllm", "logprobs": SURE_AT_STEP_2}
    return MockUpstream(thought=THOUGHT, reasoning_field=field, **{**own, **settings})


def gated(scenario: Scenario, mock: MockUpstream, **settings: Any) -> None:
    async def main() -> None:
        async with mock:
            base = GatewaySettings(
                upstream=mock.url, calibration=calibration_of(1.0), audit_share=0.0, close="</think>", thought=THINK
            )
            async with (
                running(replace(base, **settings)) as gateway,
                httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
            ):
                await scenario(gateway, mock, client)

    asyncio.run(main())


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", REQUESTS)
def test_a_confident_thought_is_cut_and_answered(path: str, stream: bool, engine: Any) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post(path, json={**REQUESTS[path], "stream": stream})
        thought = "Let me think.\n\nSo it is 42.\n\n"
        view = seen(path, answer)
        assert view[:4] == (200, thought, ANSWER, FINISHES.get(path, "stop"))
        assert (view.report["decision"], view.report["step"]) == ("stopped", 2)
        assert view.tokens == view.report["tokens"] == 4 + 4
        if engine == "vllm" and not is_ollama(path):
            # The others tell it only with their last event, which does not come after a cut.
            assert view.prompt == 5
        assert len(mock.completions) == 2
        assert "logprobs" not in answer.text.replace('"logprobs":[]', "")
        expected = "gating" if stream else "stopped"
        assert answer.headers["x-justenough"].startswith(expected)

    gated(scenario, upstream_for(path, **({} if is_ollama(path) else {"engine": engine})))


@pytest.mark.parametrize("path", REQUESTS)
def test_a_thought_between_tags_is_cut_in_the_text(path: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for stream in (True, False):
            view = seen(path, await client.post(path, json={**REQUESTS[path], "stream": stream}))
            assert view.text == f"<think>Let me think.\n\nSo it is 42.\n\n</think>{ANSWER}"
            assert view.report["decision"] == "stopped"

    gated(scenario, upstream_for(path, field=None, logprobs=(UNSURE, *SURE_AT_STEP_2)))


@pytest.mark.parametrize("path", REQUESTS)
def test_the_sequential_shape_shows_its_steps_as_thoughts(path: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for stream in (True, False):
            view = seen(path, await client.post(path, json={**REQUESTS[path], "stream": stream}))
            assert (view.text, view.report["decision"]) == (ANSWER, "stopped")
            assert ANSWER in view.thought

    gated(scenario, upstream_for(path, logprobs=(CONFIDENT,)), calibration=calibration_of(1.0, shape="sequential"))


@pytest.mark.parametrize("mode", ["off", "observe", "gate"])
@pytest.mark.parametrize("path", REQUESTS)
def test_an_answer_that_is_not_cut_is_the_servers_own(path: str, mode: Any) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for stream in (True, False):
            body = {**REQUESTS[path], "stream": stream}
            through, direct = await client.post(path, json=body), await client.post(mock.url + path, json=body)
            assert seen(path, through)._replace(report=None) == seen(path, direct)
            if mode == "off" or (mode == "observe" and not is_ollama(path)):
                assert through.content == direct.content
                assert through.headers["x-justenough"] == f"relayed; reason={mode}"
            elif is_ollama(path):
                *lines, last = values_of(path, through)
                last.pop("justenough")
                assert [*lines, last] == values_of(path, direct)

    gated(scenario, upstream_for(path, logprobs=(UNSURE,)), mode=mode)


@pytest.mark.parametrize("path", REQUESTS)
def test_the_clients_limit_holds(path: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for stream in (True, False):
            limits = {"/v1/responses": {"max_output_tokens": 3}, "/v1/messages": {"max_tokens": 3}}
            limit: dict[str, Any] = limits.get(path, {"options": {"num_predict": 3}})
            view = seen(path, await client.post(path, json={**REQUESTS[path], **limit, "stream": stream}))
            assert view.tokens == 3
            assert view.finish == {"/v1/responses": "incomplete", "/v1/messages": "max_tokens"}.get(path, "length")

    gated(scenario, upstream_for(path, logprobs=(UNSURE,)))


def test_what_the_chat_needs_is_translated() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        said = {"role": "assistant", "content": [{"type": "output_text", "text": "Hi.", "annotations": []}]}
        asked = {"role": "user", "content": [{"type": "input_text", "text": "6*7?"}]}
        body = {"model": "mock", "instructions": "Be brief.", "input": [*MESSAGES, said, asked], "top_p": 0.9}
        await client.post("/v1/responses", json=body | {"max_output_tokens": 50, "reasoning": {"effort": "low"}})
        sent = mock.completions[0].json()
        assert sent["messages"] == [
            {"role": "system", "content": "Be brief."},
            *MESSAGES,
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": [{"type": "text", "text": "6*7?"}]},
        ]
        assert (sent["max_tokens"], sent["top_p"], sent["reasoning_effort"]) == (50, 0.9, "low")
        mock.requests.clear()
        parts = [{"type": "text", "text": "6*7?", "cache_control": {"type": "ephemeral"}}]
        body = {"model": "mock", "system": [{"type": "text", "text": "Be brief."}], "top_k": 5, "max_tokens": 50}
        thought = {"type": "thinking", "thinking": "Easy.", "signature": ""}
        said = {"role": "assistant", "content": [thought, {"type": "text", "text": "Hi."}]}
        body |= {"messages": [*MESSAGES, said, {"role": "user", "content": parts}], "metadata": {"user_id": "x"}}
        await client.post("/v1/messages", json=body | {"thinking": {"type": "enabled", "budget_tokens": 40}})
        sent = mock.completions[0].json()
        assert sent["messages"] == [
            {"role": "system", "content": "Be brief."},
            *MESSAGES,
            {
                "role": "assistant",
                "reasoning": "Easy.",
                "reasoning_content": "Easy.",
                "content": [{"type": "text", "text": "Hi."}],
            },
            {"role": "user", "content": [{"type": "text", "text": "6*7?"}]},
        ]
        assert (sent["max_tokens"], sent["top_k"], sent["thinking_budget_tokens"]) == (50, 5, 40)
        assert "metadata" not in sent

    gated(scenario, upstream_for("/v1/responses"))


def test_ollama_gets_all_members_of_the_client_in_both_requests() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        options = {"num_ctx": 4096, "num_predict": 60, "top_k": 3, "seed": 1}
        own = {"options": options, "keep_alive": "5m", "think": True}
        await client.post("/api/generate", json={**REQUESTS["/api/generate"], "system": "Be brief.", **own})
        first, second = mock.completions
        assert (first.target, second.target) == ("/api/generate", "/api/chat")
        sent: Any = first.json()
        assert (sent["logprobs"], sent["top_logprobs"], sent["stream"]) == (True, 20, True)
        assert {key: sent[key] for key in own} == own
        sent = second.json()
        assert sent["messages"][:2] == [{"role": "system", "content": "Be brief."}, *MESSAGES]
        assert sent["messages"][2]["role"] == "assistant"
        assert {key: sent[key] for key in own} == {**own, "options": {**options, "num_predict": 56}}
        assert "prompt" not in sent
        assert "logprobs" not in sent

    gated(scenario, upstream_for("/api/generate"))


RELAYED: Final[list[tuple[str, dict[str, Any], str]]] = [
    ("/v1/responses", {"tools": [{"type": "web_search"}]}, "tools"),
    ("/v1/responses", {"previous_response_id": "resp_1"}, "stored"),
    ("/v1/responses", {"store": True}, "stored"),
    ("/v1/responses", {"background": True}, "stored"),
    ("/v1/responses", {"include": ["message.output_text.logprobs"]}, "include"),
    ("/v1/responses", {"text": {"format": {"type": "json_object"}}}, "structured"),
    ("/v1/responses", {"text": {"verbosity": "low"}}, "members"),
    ("/v1/responses", {"truncation": "auto"}, "members"),
    ("/v1/responses", {"reasoning": {"summary": "long"}}, "members"),
    ("/v1/responses", {"new_member": 1}, "members"),
    ("/v1/responses", {"instructions": ""}, "content"),
    ("/v1/responses", {"input": [{"type": "reasoning", "summary": []}]}, "content"),
    ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "content"),
    ("/v1/responses", {"input": [{"role": "assistant", "content": "The"}]}, "prefill"),
    ("/v1/responses", {"input": 5}, "content"),
    ("/v1/messages", {"tools": [{"name": "x"}]}, "tools"),
    ("/v1/messages", {"stop_sequences": ["x"]}, "stop"),
    ("/v1/messages", {"output_config": {"effort": "low"}}, "structured"),
    ("/v1/messages", {"new_member": 1}, "members"),
    ("/v1/messages", {"system": ""}, "content"),
    ("/v1/messages", {"system": "x-anthropic-billing-header: 1"}, "content"),
    ("/v1/messages", {"max_tokens": None}, "members"),
    ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "content"),
    ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "content"),
    ("/v1/messages", {"messages": [{"role": "system", "content": "x"}]}, "content"),
    ("/v1/messages", {"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}, *MESSAGES]}, "content"),
    ("/v1/messages", {"messages": [*MESSAGES, {"role": "assistant", "content": "The"}]}, "prefill"),
    ("/v1/messages", {"messages": "x"}, "unreadable"),
    ("/api/chat", {"tools": [{"type": "function"}]}, "tools"),
    ("/api/chat", {"format": "json"}, "json_mode"),
    ("/api/chat", {"logprobs": True}, "logprobs"),
    ("/api/chat", {"messages": [{"role": "user", "content": "?", "images": ["x"]}]}, "content"),
    ("/api/chat", {"messages": []}, "no_messages"),
    ("/api/chat", {"new_member": 1}, "members"),
    ("/api/generate", {"raw": True}, "prompt"),
    ("/api/generate", {"context": [1, 2]}, "prompt"),
    ("/api/generate", {"suffix": "x"}, "prompt"),
    ("/api/generate", {"images": ["x"]}, "media"),
    ("/api/generate", {"prompt": ""}, "prompt"),
    ("/api/generate", {"prompt": 5}, "unreadable"),
]


def test_what_is_not_a_plain_conversation_is_relayed_as_it_came() -> None:
    for is_own in (True, False):

        async def scenario(
            gateway: Running, mock: MockUpstream, client: httpx.AsyncClient, is_own: bool = is_own
        ) -> None:
            for path, members, reason in RELAYED:
                if is_ollama(path) is not is_own:
                    continue
                body = {**REQUESTS[path], **members}
                answer = await client.post(path, json=body)
                assert answer.headers["x-justenough"] == f"relayed; reason={reason}", (path, members)
                assert (mock.requests[-1].target, mock.requests[-1].json()) == (path, body)

        gated(scenario, upstream_for("/api/chat" if is_own else "/v1/messages"))


def test_members_without_a_value_hinder_nothing() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for path, members in (
            ("/v1/responses", {"tools": [], "store": False, "include": None, "text": {"format": {"type": "text"}}}),
            ("/v1/responses", {"reasoning": {"effort": "low", "summary": "auto"}}),
            ("/v1/responses", {"truncation": "disabled", "tool_choice": "auto", "new_member": None, "user": "u"}),
            ("/v1/messages", {"tools": [], "stop_sequences": [], "system": None, "thinking": {"type": "disabled"}}),
        ):
            answer = await client.post(path, json={**REQUESTS[path], **members})
            assert answer.headers["x-justenough"].startswith("stopped"), (path, members)

    gated(scenario, upstream_for("/v1/messages"))


def test_a_server_that_stores_answers_is_asked_for_them() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for body, reason in ((REQUESTS["/v1/responses"], "relayed; reason=stored"), ({"store": False}, "stopped")):
            answer = await client.post("/v1/responses", json={**REQUESTS["/v1/responses"], **body})
            assert answer.headers["x-justenough"].startswith(reason)

    gated(scenario, upstream_for("/v1/responses", stores=True))


def test_an_unknown_server_may_have_other_defaults_in_each_api() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        complete = {"temperature": 0.5, "top_p": 1.0}
        for path, members, reason in (
            ("/v1/messages", {}, "relayed; reason=defaults"),
            ("/v1/messages", complete, "stopped"),
            ("/v1/messages", {**complete, "thinking": {"type": "enabled"}}, "relayed; reason=defaults"),
            ("/v1/responses", complete, "relayed; reason=defaults"),
            ("/v1/responses", {**complete, "store": False}, "stopped"),
            (
                "/v1/responses",
                {**complete, "store": False, "reasoning": {"summary": "auto"}},
                "relayed; reason=defaults",
            ),
        ):
            answer = await client.post(path, json={**REQUESTS[path], **members})
            assert answer.headers["x-justenough"].startswith(reason), (path, members)

    gated(scenario, upstream_for("/v1/messages", engine="ollama"))


@pytest.mark.parametrize("path", REQUESTS)
def test_another_model_is_relayed(path: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post(path, json={**REQUESTS[path], "model": "other"})
        assert answer.headers["x-justenough"] == "relayed; reason=model"

    gated(scenario, upstream_for(path))


@pytest.mark.parametrize("path", REQUESTS)
def test_a_refused_chat_is_repeated_as_the_client_sent_it(path: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for stream in (True, False):
            body = {**REQUESTS[path], "stream": stream}
            answer = await client.post(path, json=body)
            assert answer.headers["x-justenough"].startswith("relayed; reason=")
            assert (mock.requests[-1].target, mock.requests[-1].json()) == (path, body)
            assert seen(path, answer).text == ANSWER

    gated(scenario, upstream_for(path, fault=Fault.REFUSE_LOGPROBS))


@pytest.mark.parametrize("form", ["/{path}", "{path}/", "//{path}//", "{path}?x=1"])
@pytest.mark.parametrize("path", REQUESTS)
def test_every_form_of_the_path_is_gated(path: str, form: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        url = httpx.URL(gateway.url + form.format(path=path))
        answer = await client.post(url, json={**REQUESTS[path], "stream": False})
        assert seen(path, answer).report["decision"] == "stopped"
        assert len(mock.completions) == 2

    gated(scenario, upstream_for(path))


@pytest.mark.parametrize("path", [path for path in REQUESTS if is_ollama(path)])
def test_ollamas_lines_under_another_content_type_are_gated(path: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for stream in (True, False):
            answer = await client.post(path, json={**REQUESTS[path], "stream": stream})
            assert answer.headers["content-type"] == ("text/html" if stream else "application/json")
            whole = httpx.Response(200, headers={"content-type": "application/x-ndjson"}, content=answer.content)
            view = seen(path, whole)
            assert view[:4] == (200, "Let me think.\n\nSo it is 42.\n\n", ANSWER, "stop")
            assert view.report["decision"] == "stopped"

    gated(scenario, upstream_for(path, fault=Fault.WRONG_CONTENT_TYPE))


NO_LINES: Final = (
    b"",
    b"<html>{}</html>",
    b"[1]\n",
    b'"message"\n',
    b'{\n "message": {"content": "a"},\n "done": true}',
    b'{"choices":[{"message":{"content":"a"}}]}',
    b'data: {"message":{"content":"a"},"done":true}\n\n',
)


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
@pytest.mark.parametrize("body", NO_LINES)
def test_what_is_not_ollamas_lines_is_asked_for_again_and_passes(body: bytes, kind: str) -> None:
    server = Scripted(refuse=lambda _: Reply(200, kind, body))

    async def main() -> None:
        async with (
            before(server, "gate") as (gateway, _),
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            for stream in (True, False):
                sent = {**REQUESTS["/api/chat"], "model": "m", "stream": stream}
                answer = await client.post("/api/chat", json=sent)
                assert (answer.status_code, answer.content) == (200, body)

    asyncio.run(main())


@pytest.mark.parametrize("path", REQUESTS)
def test_an_error_of_the_upstream_is_relayed_in_its_own_form(path: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post(path, json=REQUESTS[path])
        assert seen(path, answer)[:1] + seen(path, answer)[6:7] == (500, "out of memory")

    gated(scenario, upstream_for(path, fault=Fault.SERVER_ERROR))


@pytest.mark.parametrize("path", REQUESTS)
def test_an_error_in_a_stream_follows_its_text_in_the_form_of_the_api(path: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post(path, json={**REQUESTS[path], "stream": True})
        assert seen(path, answer).error == "out of memory"
        assert "Let me think" in answer.text

    gated(scenario, upstream_for(path, fault=Fault.ERROR_EVENT, logprobs=(UNSURE,)))


ERRORS: Final[dict[str, Callable[[Any], bool]]] = {
    "/v1/responses": lambda value: value["error"]["code"] == "invalid_api_key",
    "/v1/messages": lambda value: (value["type"], value["error"]["type"]) == ("error", "authentication_error"),
    "/api/chat": lambda value: isinstance(value["error"], str),
    "/api/generate": lambda value: isinstance(value["error"], str),
}


@pytest.mark.parametrize("path", REQUESTS)
def test_the_gateways_own_errors_have_the_form_of_the_api(path: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        refused = await client.post(path, json=REQUESTS[path])
        assert refused.status_code == 401
        assert ERRORS[path](refused.json())
        headers = {"x-api-key": "secret"} if path == "/v1/messages" else {"authorization": "Bearer secret"}
        body = {**REQUESTS[path], "justenough": {"mode": "fast"}}
        refused = await client.post(path, json=body, headers=headers)
        assert refused.status_code == 400
        assert "justenough" in seen(path, refused).error  # type: ignore[operator]
        assert (await client.post(path, json=REQUESTS[path], headers=headers)).status_code == 200

    gated(scenario, upstream_for(path), client_keys=("secret",))


@pytest.mark.parametrize("path", REQUESTS)
def test_the_justenough_object_is_for_the_gateway(path: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = {**REQUESTS[path], "stream": False, "justenough": {"mode": "off"}}
        answer = await client.post(path, json=body)
        assert answer.headers["x-justenough"] == "relayed; reason=off"
        assert "justenough" not in mock.requests[-1].json()
        body["justenough"] = {"threshold": 0.0, "decisions": True}
        report = seen(path, await client.post(path, json=body)).report
        assert (report["decision"], len(report["decisions"])) == ("finished", 3)

    gated(scenario, upstream_for(path))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("threshold", [1.0, 0.0])
@pytest.mark.parametrize("members", [{}, {"tools": [{}]}])
@pytest.mark.parametrize("path", REQUESTS)
def test_a_budget_is_charged_with_all_tokens(
    path: str, members: dict[str, Any], threshold: float, stream: bool
) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        view = seen(path, await client.post(path, json={**REQUESTS[path], **members, "stream": stream}))
        await settled(gateway)
        accounts = gateway.service.budgets.accounts
        assert accounts is not None
        assert accounts.standing()["all"].spent == view.tokens

    budget = BudgetSettings(tokens=1000, per="batch")
    gated(scenario, upstream_for(path), budget=budget, calibration=calibration_of(threshold))


@pytest.mark.parametrize("path", REQUESTS)
def test_a_client_that_leaves_ends_the_generation(path: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        async with client.stream("POST", path, json={**REQUESTS[path], "stream": True}) as answer:
            async for _ in answer.aiter_bytes():
                break
        while mock.under_way or gateway.service.active:
            await asyncio.sleep(0.01)
        assert mock.cancelled == 1

    gated(scenario, upstream_for(path, fault=Fault.ENDLESS, fault_at=-1, logprobs=(UNSURE,), interval_s=0.001))


def test_a_gated_answer_can_be_labelled_by_the_id_that_the_client_saw() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for path in ("/v1/responses", "/v1/messages"):
            answer = (await client.post(path, json=REQUESTS[path])).json()
            label = {"id": answer["id"], "correct": True}
            assert (await client.post("/v1/justenough/feedback", json=label)).status_code == 200

    gated(scenario, upstream_for("/v1/messages"))


def test_the_last_line_of_ollama_needs_no_end() -> None:
    parts = [b'{"message":{"content":"a"},"done":false}\n{"do', b'ne":true,"eval_count":3}', b"", b""]

    async def readany() -> bytes:
        return parts.pop(0)

    async def main() -> list[bytes]:
        answer = SimpleNamespace(status=200, headers={}, raw_headers=[], content=SimpleNamespace(readany=readany))
        read = _Chunks(cast("aiohttp.ClientResponse", answer))
        return [await read.readany(), await read.readany(), await read.readany()]

    first, last, end = asyncio.run(main())
    assert (b'"content":"a"' in first, b'"completion_tokens":3' in last, end) == (True, True, b"")


def test_a_failed_answer_is_made_anew() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        view = seen(
            "/v1/messages", await client.post("/v1/messages", json={**REQUESTS["/v1/messages"], "stream": True})
        )
        assert view.text == ANSWER
        assert view.report["failure"]

    gated(scenario, upstream_for("/v1/messages", fault=Fault.CONTINUATION_FAILS))
