"""Token budgets: a request's own, the operator's, and what an account has left; nothing lost, nothing counted twice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from justenough.budget import Accounts
from justenough.errors import InputError
from justenough.gateway.request import read_request
from justenough.gateway.serve.underway import Request
from justenough.gateway.settings import LEAST, BudgetSettings, GatewaySettings, Limits
from justenough.testing import CONFIDENT, UNSURE, Fault, MockUpstream
from justenough.testing.chunks import Chunks
from justenough.trace import Json
from tests.unit.gateway.serve.test_sequential import Surer, stepwise
from tests.unit.gateway.serving import Running, calibration_of, running
from tests.unit.gateway.test_gating import CHAT, TEXT, events, gated, said
from tests.unit.gateway.ways import Hold, settled

LONG = tuple(f"thought{at} " for at in range(100))
BATCH = BudgetSettings(tokens=1000, per="batch")
PROBE = 3
"""Tokens that the probe of a vLLM generates."""


def wordy(**more: Any) -> MockUpstream:
    """Thinks for 100 tokens, never sure, and answers in 4."""
    return MockUpstream(**{"thought": LONG, "logprobs": (UNSURE,), **more})


async def standing(client: httpx.AsyncClient) -> dict[str, Any]:
    budget = (await client.get("/v1/justenough/status")).json()["budget"]
    assert isinstance(budget, dict)
    return budget


@pytest.mark.parametrize("by_header", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_thought_is_answered_within_its_requests_budget(path: str, by_header: bool) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        asked = {**(CHAT if "chat" in path else TEXT), "stream": True}
        body = asked if by_header else {**asked, "justenough": {"budget": 40}}
        answer = await client.post(path, json=body, headers={"x-justenough-budget": "40"} if by_header else {})
        chunks = events(answer.text)
        report = chunks[-1]["justenough"]
        assert (report["decision"], report["reason"], report["budget"]) == ("stopped", "budget", 40)
        assert (report["thought_tokens"], report["probe_tokens"], report["tokens"]) == (30, 4, 34)
        assert said(chunks) == f"<think>{''.join(LONG[:29])}</think>The answer is 42."
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        first, second = (request.json() for request in mock.completions)
        assert (first["max_tokens"], second["max_tokens"]) == (40, 10)
        assert gateway.service.metrics.outcomes == {"budget": 1}
        while mock.cancelled != 1:
            await asyncio.sleep(0.005)

    gated(scenario, wordy(thought=LONG * 50, interval_s=0.001), answer_tokens=10)


@pytest.mark.parametrize(
    ("body", "bound", "reason"),
    [
        ({"max_tokens": 20, "justenough": {"budget": 40}}, 20, "no_step"),
        ({"max_tokens": 50, "justenough": {"budget": 40}}, 40, "budget"),
        ({"max_completion_tokens": 50, "justenough": {"budget": 99}}, 50, "no_step"),
        ({"justenough": {"budget": 1000}}, 60, "budget"),
        ({}, 60, "budget"),
    ],
)
def test_the_smallest_bound_holds_and_a_budget_wants_an_answer(body: Any, bound: int, reason: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json={**CHAT, **body})).json()
        assert whole["usage"]["completion_tokens"] <= bound
        assert whole["justenough"]["reason"] == reason
        assert whole["choices"][0]["finish_reason"] == ("stop" if reason == "budget" else "length")
        asked = mock.completions[0].json()
        assert {asked.get("max_tokens"), asked.get("max_completion_tokens")} == {bound, None}

    gated(scenario, wordy(), answer_tokens=10, limits=Limits(max_request_tokens=60))


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_where_nothing_is_stopped_a_budget_is_a_plain_limit(mode: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        asked = {**CHAT, "justenough": {"budget": 40, "mode": mode}}
        whole = (await client.post("/v1/chat/completions", json=asked)).json()
        assert whole["choices"][0]["finish_reason"] == "length"
        assert whole["usage"]["completion_tokens"] == 40
        assert len(mock.completions) == 1

    gated(scenario, wordy())


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "many"])
def test_a_budget_that_is_none_is_refused(wrong: Any) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for answer in (
            await client.post("/v1/chat/completions", json={**CHAT, "justenough": {"budget": wrong}}),
            await client.post("/v1/chat/completions", json=CHAT, headers={"x-justenough-budget": str(wrong)}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_justenough")

    gated(scenario)


def test_an_audited_request_that_its_budget_ends_is_no_audit() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json={**CHAT, "justenough": {"budget": 40}})).json()
        assert whole["justenough"]["reason"] == "budget"
        assert not len(gateway.service.learning.audit)

    gated(scenario, wordy(), audit_share=1.0)


@pytest.mark.parametrize(("kept", "budget", "steps", "taken"), [(6, 16, 2, 10), (1, 12, 3, 12)])
def test_a_sequence_takes_no_step_beyond_its_budget(kept: int, budget: int, steps: int, taken: int) -> None:
    """Of 16 tokens 10 are two steps and 6 are kept for an answer; of 12 the third step gets two, and is no answer."""

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json={**CHAT, "justenough": {"budget": budget}})).json()
        report = whole["justenough"]
        assert (report["decision"], report["reason"]) == ("finished", "budget")
        assert (report["tokens"], report["steps"], report["step"]) == (taken, steps, 2)
        assert whole["usage"]["completion_tokens"] == taken
        assert len(mock.completions) == steps
        assert whole["choices"][0]["message"]["content"] == "Answer 2."
        assert whole["choices"][0]["finish_reason"] == "stop"

    stepwise(scenario, NeverSure(thought=("Hm.",)), answer_tokens=kept)


class NeverSure(Surer):
    unsure = 99


def test_a_spent_minute_is_told_with_the_second_at_which_it_is_over() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        accounts = gateway.service.budgets.accounts
        assert accounts is not None
        accounts._begun, accounts._since, accounts._monotonic, accounts._period = 60_012.5, 0.0, lambda: 0.0, 1000
        first = await client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 100})
        assert first.status_code == 200
        refused = await client.post("/v1/chat/completions", json=CHAT)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "48"
        error = refused.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("tokens", "rate_limit_exceeded", None)
        assert "0 of 100" in error["message"]
        assert len(mock.completions) == 1
        budget = await standing(client)
        assert budget["accounts"] == {"all": {"spent": 100, "reserved": 0, "remaining": 0, "lapsed": 0}}
        assert budget["resets_in_s"] == 47.5
        accounts._monotonic = lambda: 48.0
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        metrics = (await client.get("/metrics")).text
        assert 'justenough_errors_total{code="rate_limit_exceeded"} 1\n' in metrics

    gated(scenario, wordy(), budget=BudgetSettings(tokens=100, per="minute"))


def test_a_spent_batch_is_told_not_to_come_back() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        assert whole["justenough"]["budget"] == 100
        assert whole["justenough"]["reason"] == "budget"
        assert (await standing(client))["accounts"]["all"]["spent"] == whole["usage"]["completion_tokens"] == 94
        refused = await client.post("/v1/chat/completions", json=CHAT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers
        # A request that asks for no more than is left gets it.
        assert (await client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 6})).status_code == 200

    assert LEAST == 16
    gated(scenario, wordy(), budget=BudgetSettings(tokens=100, per="batch"), answer_tokens=10)


def test_each_key_has_its_own_budget_and_none_is_kept_or_shown(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    keys = ("sk-one", "sk-two")
    given: dict[str, Any] = {
        "client_keys": keys,
        "budget": BudgetSettings(tokens=120, per="batch", scope="key", file=path),
        "upstream_key": "sk-upstream",
    }

    def asking(key: str) -> dict[str, str]:
        return {"authorization": f"Bearer {key}"}

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = {**CHAT, "max_tokens": 110}
        for key in keys:
            assert (await client.post("/v1/chat/completions", json=body, headers=asking(key))).status_code == 200
        assert (await client.post("/v1/chat/completions", json=body, headers=asking(keys[0]))).status_code == 429
        shown = (await client.get("/v1/justenough/status")).text + (await client.get("/metrics")).text
        assert "sk-" not in shown
        assert [row["spent"] for row in (await standing(client))["accounts"].values()] == [106, 106]

    gated(scenario, wordy(), **given)
    assert b"sk-" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())

    async def again(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        refused = await client.post("/v1/chat/completions", json=CHAT, headers=asking(keys[1]))
        assert refused.status_code == 429

    gated(again, wordy(), **given)


def test_a_budget_for_each_key_needs_keys() -> None:
    with pytest.raises(InputError, match="needs client keys"):
        GatewaySettings(upstream="http://x", budget=BudgetSettings(tokens=1000, scope="key"))


TOOLS: dict[str, Any] = {**CHAT, "tools": [{"type": "function"}]}


@pytest.mark.parametrize("body", [CHAT, {**CHAT, "stream": True}, TOOLS, {**TOOLS, "stream": True}])
def test_many_at_once_never_spend_more_than_there_is_and_everything_is_counted(body: dict[str, Any]) -> None:
    """Every token that the upstream generated for an answer that arrived stands in the account, and no other."""
    total = 17 * 60

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        async def watch() -> None:
            while True:
                row = gateway.service.budgets.accounts.standing()["all"]  # type: ignore[union-attr]
                assert row.spent + row.reserved <= total
                assert row.remaining >= 0
                await asyncio.sleep(0)

        async def ask(number: int) -> int:
            sent = {**body, "seed": number, "max_tokens": 60}
            if body.get("stream"):
                sent["stream_options"] = {"include_usage": number % 2 == 0}
            answer = await client.post("/v1/chat/completions", json=sent)
            assert answer.status_code in (200, 429)
            return answer.status_code

        await ask(0)
        watching = asyncio.ensure_future(watch())
        codes = await asyncio.gather(*[ask(number) for number in range(1, 40)])
        assert not watching.done()
        watching.cancel()
        assert codes.count(200) >= 15
        assert codes.count(429) >= 1
        row = (await standing(client))["accounts"]["all"]
        assert row["spent"] == mock.generated - PROBE
        assert row["reserved"] == 0
        assert row["spent"] + row["remaining"] == total

    gated(scenario, wordy(interval_s=0.0005), budget=BudgetSettings(tokens=total, per="batch"))


@pytest.mark.parametrize(("body", "counted"), [({**CHAT, "stream": True}, True), ({**TOOLS, "stream": True}, False)])
def test_a_client_that_leaves_pays_for_what_was_generated(body: dict[str, Any], counted: bool) -> None:
    mock = wordy()
    Hold(mock, 20)

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        text = ""
        async with client.stream("POST", "/v1/chat/completions", json={**body, "max_tokens": 90}) as answer:
            async for part in answer.aiter_text():
                text += part
                if text.count("thought") == 19:
                    break
            assert (await standing(client))["accounts"]["all"]["reserved"] == 90
        await settled(gateway)
        budget = await standing(client)
        row = budget["accounts"]["all"]
        assert row["reserved"] == 0
        assert row["spent"] - budget["unseen_tokens"] == 20
        # Without log-probabilities an event may hold more tokens than one: each byte is charged, up to the limit.
        assert (budget["unseen_tokens"] == 0) is counted
        assert row["spent"] <= 90

    gated(scenario, mock, budget=BATCH)


async def left_at_once(client: httpx.AsyncClient, mock: MockUpstream, body: dict[str, Any]) -> None:
    """Leave as soon as the upstream has the request."""
    task = asyncio.ensure_future(client.post("/v1/chat/completions", json=body))
    while not mock.completions:
        await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("body", [{**CHAT, "stream": True}, {**TOOLS, "stream": True}, CHAT])
@pytest.mark.parametrize("limit", [5, 90])
def test_a_client_that_leaves_before_the_first_event_pays_a_minimum(body: dict[str, Any], limit: int) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        sent = {**body, "max_tokens": limit}
        if body.get("stream"):
            async with client.stream("POST", "/v1/chat/completions", json=sent):
                pass
        else:
            await left_at_once(client, mock, sent)
        await settled(gateway)
        budget = await standing(client)
        row = budget["accounts"]["all"]
        assert (row["spent"], row["reserved"]) == (min(limit, LEAST), 0)
        assert budget["unseen_tokens"] == row["spent"]

    gated(scenario, wordy(fault=Fault.STALL_IN_STREAM, fault_at=0), budget=BATCH)


@pytest.mark.parametrize("member", ["n", "max_tokens"])
@pytest.mark.parametrize("value", ["1e99", "-1e99", "1e400", '"50"', "50.5", "true", "NaN", "[]", "1" * 400])
def test_odd_numbers_under_a_budget_end_in_an_answer_and_leave_nothing_reserved(member: str, value: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = json.dumps({**TOOLS, member: "?"}).replace('"?"', value)
        answer = await client.post("/v1/chat/completions", content=body)
        assert answer.status_code in (200, 400)
        if answer.status_code == 400:
            # 400 is the mock's own code.
            assert answer.json()["error"]["code"] in ("unreadable", "invalid_justenough", 400)
        await settled(gateway)
        row = (await standing(client))["accounts"]["all"] if (await standing(client))["accounts"] else {"reserved": 0}
        assert row["reserved"] == 0

    gated(scenario, wordy(), budget=BATCH)


@pytest.mark.parametrize("counted", [1e99, 10**40, True, "many"])
def test_an_upstream_that_counts_nonsense_costs_what_was_seen(counted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(self: Chunks, completion: int) -> dict[str, Json]:
        return {"prompt_tokens": 5, "completion_tokens": counted, "total_tokens": 5}

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(Chunks, "_usage", usage)
        for body in (CHAT, {**CHAT, "stream": True}, {**TOOLS, "stream": True}, TOOLS):
            await client.post("/v1/chat/completions", json={**body, "max_tokens": 90})
        await settled(gateway)
        budget = await standing(client)
        assert budget["accounts"]["all"]["reserved"] == 0
        assert 180 <= budget["accounts"]["all"]["spent"] <= 360
        assert budget["overrun_tokens"] <= 90

    gated(scenario, wordy(), budget=BATCH)


def test_an_answer_in_one_piece_that_nobody_saw_counts_as_its_limit() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await left_at_once(client, mock, {**TOOLS, "max_tokens": 90})
        await settled(gateway)
        budget = await standing(client)
        assert budget["accounts"]["all"] == {"spent": 90, "reserved": 0, "remaining": 910, "lapsed": 0}
        assert budget["unseen_tokens"] == 90

    gated(scenario, wordy(fault=Fault.STALL_BEFORE_HEADERS), budget=BATCH)


@pytest.mark.parametrize("fault", [Fault.TOO_MANY_REQUESTS, Fault.SERVER_ERROR, Fault.REFUSE_LOGPROBS])
@pytest.mark.parametrize("body", [CHAT, TOOLS])
def test_what_the_upstream_refused_costs_nothing(fault: Fault, body: dict[str, Any]) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        status = (await client.post("/v1/chat/completions", json=body)).status_code
        row = (await standing(client))["accounts"]["all"]
        assert row["spent"] == (mock.generated - PROBE if status == 200 else 0)
        assert row["reserved"] == 0

    gated(scenario, wordy(fault=fault), budget=BATCH)


@pytest.mark.parametrize("fault", [Fault.RESET_IN_STREAM, Fault.INVALID_JSON, Fault.END_IN_STREAM])
@pytest.mark.parametrize("body", [{**CHAT, "stream": True}, {**TOOLS, "stream": True}])
def test_a_stream_that_breaks_costs_what_was_received(fault: Fault, body: dict[str, Any]) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        try:
            text = (await client.post("/v1/chat/completions", json=body)).text
        except httpx.HTTPError:
            text = ""
        assert "[DONE]" not in text or fault is not Fault.RESET_IN_STREAM
        await settled(gateway)
        budget = await standing(client)
        row = budget["accounts"]["all"]
        assert 0 < row["spent"] - budget["unseen_tokens"] <= mock.generated - PROBE
        assert row["reserved"] == 0

    gated(scenario, wordy(fault=fault, fault_at=20, interval_s=0.001), budget=BATCH)


def test_what_comes_beyond_the_limit_is_counted_too_as_far_as_there_is_any_left() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for _ in (1, 2):
            await client.post("/v1/chat/completions", json={**TOOLS, "max_tokens": 50})
        budget = await standing(client)
        # 106 and 106 were generated; of the second 44 had still been left.
        assert budget["accounts"]["all"]["spent"] == 150
        assert budget["overrun_tokens"] == 62

    gated(scenario, wordy(limits_kept=False), budget=BudgetSettings(tokens=150, per="batch"))


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_relayed_under_a_budget_keeps_its_bytes(stream: bool) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=mock.url) as straight:
            for usage in (False, True):
                body = {**TOOLS, "stream": stream, "max_tokens": 50}
                if stream:
                    body["stream_options"] = {"include_usage": usage}
                through = await client.post("/v1/chat/completions", json=body)
                direct = await straight.post("/v1/chat/completions", json=body)
                assert through.content == direct.content
                assert through.headers["x-justenough"] == "relayed; reason=tools"
                asked = mock.completions[-2].json()
                assert asked.pop("stream_options", None) == ({"include_usage": True} if stream else None)
                body.pop("stream_options", None)
                assert asked == body
        assert (await standing(client))["accounts"]["all"]["spent"] == 100

    gated(scenario, wordy(), budget=BATCH)


def test_a_request_for_several_answers_is_bounded_in_all() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json={**CHAT, "n": 4, "justenough": {"budget": 40}})
        assert mock.completions[-1].json()["max_tokens"] == 10
        await client.post("/v1/completions", json={**TEXT, "prompt": ["a", "b"], "n": 2, "max_tokens": 100})
        assert mock.completions[-1].json()["max_tokens"] == 100
        await client.post("/v1/completions", json={**TEXT, "prompt": [1, 2, 3], "max_tokens": 1000})
        assert mock.completions[-1].json()["max_tokens"] == 1000 - 10 - 100
        too_many = await client.post("/v1/chat/completions", json={**CHAT, "n": 4, "justenough": {"budget": 3}})
        assert too_many.status_code == 400
        assert (await standing(client))["accounts"]["all"]["reserved"] == 0

    gated(scenario, wordy(), budget=BATCH)


@pytest.mark.parametrize("mode", ["off", "gate"])
def test_where_no_length_is_named_no_more_is_asked_for_than_the_model_holds(mode: str) -> None:
    """vLLM refuses more, and so every request without a length was an error under a budget."""

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for more in ({}, {"n": 2}, {"justenough": {"budget": 300}}):
            answer = await client.post("/v1/chat/completions", json={**CHAT, **more})
            assert answer.status_code == 200
            assert mock.completions[-1].json()["max_tokens"] == 150
        # Who names too much is told so, as without us.
        assert (await client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 151})).status_code == 400

    unsure = MockUpstream(context=150, logprobs=(UNSURE,))
    gated(scenario, unsure, mode=mode, budget=BudgetSettings(tokens=10_000, per="batch"))


def test_no_way_around_a_budget() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for path in ("/completion", "/v1/messages/batches", "/infill", "/v1/fim/completions", "/echo"):
            refused = await client.post(path, json=CHAT)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_counted")
        # A server in Go would read the last of these limits.
        folded = ({"max_tokens": 5, "Max_Tokens": 10_000}, {"n": 1, "N": 9}, {"max_to\u212aens": 10_000})
        for body in (b"{", *(json.dumps({**CHAT, **members}).encode() for members in ({"n": "2"}, *folded))):
            refused = await client.post("/v1/chat/completions", content=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unreadable")
        for body in (b"{", b"[]", b'{"max_output_tokens": "9"}'):
            assert (await client.post("/v1/responses", content=body)).status_code == 400
        options = {"options": {"num_predict": 5}, "Options": {"num_predict": 10_000}}
        assert (await client.post("/api/chat", json={**CHAT, **options})).status_code == 400
        assert (await client.post("/v1/responses", json={"background": True})).status_code == 403
        assert not mock.completions
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.post("/v1/embeddings", json={})).status_code == 404
        # Several lengths, of which the upstream might take the largest.
        lengths = {"max_tokens": 20, "n_predict": 10_000, "max_completion_tokens": 10_000}
        await client.post("/v1/chat/completions", json={**TOOLS, **lengths})
        asked = mock.completions[-1].json()
        assert {key: asked[key] for key in lengths} == {key: min(length, 1000) for key, length in lengths.items()}

    gated(scenario, wordy(), budget=BATCH)


def test_sequential_steps_draw_from_one_budget() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        row = (await standing(client))["accounts"]["all"]
        assert row["spent"] == whole["usage"]["completion_tokens"] == mock.generated - PROBE

    stepwise(scenario, Surer(thought=("Hm.",)), budget=BATCH)


def requests_of(gateway: Running) -> list[Request]:
    """The requests under way."""
    return list(gateway.service.under_way._requests.values())


def test_a_gateway_that_ends_settles_what_is_under_way(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    budget = BudgetSettings(tokens=1000, per="batch", file=path)

    async def main() -> None:
        async with wordy() as mock:
            Hold(mock, 20)
            settings = GatewaySettings(
                upstream=mock.url, calibration=calibration_of(1.0), budget=budget, limits=Limits(grace_s=0.1)
            )
            async with running(settings, drains=True) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                body = {**CHAT, "stream": True, "max_tokens": 500}
                asked = asyncio.ensure_future(client.post("/v1/chat/completions", json=body))
                while not any(each.work and each.work.generated == 20 for each in requests_of(gateway)):
                    await asyncio.sleep(0.005)
                gateway.server.handle_exit(15, None)
                await asyncio.wait_for(gateway.task, 60)
                await asyncio.gather(asked, return_exceptions=True)

    asyncio.run(main())
    with Accounts(1000, per="batch", path=path) as accounts:
        (row,) = accounts.standing().values()
        assert (row.spent, row.reserved, row.lapsed) == (20, 0, 0)


def test_the_operators_bound_of_a_request_leaves_no_other_path() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        others = ("/completion", "/v1/messages/batches", "/api/embeddings/x", "/infill", "/echo")
        for path in others:
            refused = await client.post(path, json={**CHAT, "max_tokens": 100_000})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_counted")
        assert not any(request.target in others for request in mock.requests)
        assert (await client.post("/v1/embeddings", json={})).status_code == 404

    gated(scenario, limits=Limits(max_request_tokens=60))


def test_a_response_of_no_tokens_reserves_one() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        request = read_request("/v1/responses", b'{"input": "x", "max_output_tokens": 0}', [])
        with gateway.service.budgets.allow(request, "all") as allowance:
            assert allowance.limit == 1

    gated(scenario, budget=BATCH)


def test_the_operators_bound_of_a_request_holds_for_responses_too() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for asked, sent in ((None, 60), (20, 20), (100, 60)):
            limit = {"max_output_tokens": asked} if asked else {}
            await client.post("/v1/responses", json={"input": "x", "tools": [{}]} | limit)
            assert mock.requests[-1].json()["max_output_tokens"] == sent
            await client.post("/v1/responses", json={"input": "x"} | limit)
            assert {each.json().get("max_tokens") for each in mock.completions[-2:]} <= {sent, sent - 5}

    gated(scenario, limits=Limits(max_request_tokens=60))


def kept(path: Path, **more: Any) -> BudgetSettings:
    return BudgetSettings(tokens=1000, per="batch", file=path / "ledger.sqlite", **more)


def fill(gateway: Running) -> None:
    """From now on the ledger's file cannot grow, as on a full disk."""
    accounts = gateway.service.budgets.accounts
    assert accounts is not None
    assert accounts._file is not None
    database = accounts._file._db
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.execute("CREATE TRIGGER full_held BEFORE INSERT ON held BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
    database.execute("CREATE TRIGGER full_use BEFORE UPDATE ON held BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
    database.execute("CREATE TRIGGER full_spent BEFORE UPDATE ON account BEGIN SELECT RAISE(FAIL, 'disk is full'); END")


def make_room(gateway: Running) -> None:
    accounts = gateway.service.budgets.accounts
    assert accounts is not None
    assert accounts._file is not None
    for name in ("full_held", "full_use", "full_spent"):
        accounts._file._db.execute(f"DROP TRIGGER {name}")


def test_a_ledger_that_cannot_be_written_refuses_with_503_and_settles_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        hold = Hold(mock, 10)
        under_way = asyncio.ensure_future(client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 104}))
        await hold.reached.wait()
        fill(gateway)
        refused = await client.post("/v1/chat/completions", json=CHAT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
        assert "tokens are left" not in refused.text
        hold.go_on.set()
        assert (await under_way).status_code == 200
        await settled(gateway)
        assert "disk is full" in caplog.text
        assert "Traceback" not in caplog.text
        row = (await standing(client))["accounts"]["all"]
        assert (row["spent"], row["reserved"]) == (0, 104)
        make_room(gateway)
        async with asyncio.timeout(30):
            while (await standing(client))["accounts"]["all"]["reserved"]:
                await asyncio.sleep(0.05)
        assert (await standing(client))["accounts"]["all"]["spent"] == 104
        assert (await client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 20})).status_code == 200

    gated(scenario, wordy(), mode="off", budget=kept(tmp_path))


@pytest.mark.parametrize("counted", [-100, -1, -(2**40)])
def test_an_upstream_that_counts_below_zero_leaves_nothing_reserved(
    counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(self: Chunks, completion: int) -> dict[str, Json]:
        return {"prompt_tokens": 5, "completion_tokens": counted, "total_tokens": 5 + counted}

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(Chunks, "_usage", usage)
        for stream in (True, False):
            answer = await client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 200, "stream": stream})
            assert answer.status_code == 200
        await settled(gateway)
        row = (await standing(client))["accounts"]["all"]
        assert row["reserved"] == 0
        assert 0 < row["spent"] <= 400

    gated(scenario, MockUpstream(thought=("So 42.\n\n",) * 3, logprobs=(CONFIDENT,)), budget=BATCH)


@pytest.mark.parametrize("member", ["max_tokens", "max_completion_tokens"])
def test_no_token_asked_for_stays_no_token(member: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json={**CHAT, member: 0})
        await settled(gateway)
        assert mock.completions[-1].json()[member] == 0
        row = (await standing(client))["accounts"]["all"]
        assert row["reserved"] == 0
        # This upstream takes 0 for "no limit"; what it generated is counted all the same.
        assert row["spent"] >= 100

    gated(scenario, wordy(), mode="off", budget=BATCH)


def test_a_ledger_that_fails_as_the_minute_turns_is_shown_in_the_status_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        accounts = gateway.service.budgets.accounts
        assert accounts is not None
        assert (await client.post("/v1/chat/completions", json={**TOOLS, "max_tokens": 20})).status_code == 200
        assert (await standing(client))["writable"] is True
        database = accounts._file._db if accounts._file is not None else None
        assert database is not None
        database.execute("CREATE TRIGGER full BEFORE DELETE ON account BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
        fill(gateway)
        accounts._since -= 60
        for path in ("/v1/justenough/status", "/metrics"):
            assert (await client.get(path)).status_code == 200
        for _ in range(3):
            refused = await client.post("/v1/chat/completions", json=TOOLS)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
        assert (await standing(client))["writable"] is False
        assert (await client.get("/metrics")).status_code == 200
        await asyncio.sleep(0.3)
        assert caplog.text.count("disk is full") == 1
        database.execute("DROP TRIGGER full")
        make_room(gateway)
        assert (await client.post("/v1/chat/completions", json={**TOOLS, "max_tokens": 20})).status_code == 200
        assert (await standing(client))["writable"] is True
        assert "can be written again" in caplog.text

    settings = BudgetSettings(tokens=1000, per="minute", file=tmp_path / "ledger.sqlite")
    gated(scenario, wordy(), mode="off", budget=settings)


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_an_elicited_answer_with_many_tokens_in_an_event_costs_all_of_them(stream: bool) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        tokens: Counter[int] = Counter()

        async def hold() -> None:
            """Hold the thought after its first event, and the answer after its tenth."""
            number = len(mock.completions)
            if tokens[number] == (10 if number == 1 else 100):
                await asyncio.Event().wait()
            tokens[number] += 1

        mock.before_token = hold
        leaving = asyncio.ensure_future(client.post("/v1/chat/completions", json={**CHAT, "stream": stream}))
        # Ten tokens of the thought, and ten events of the answer.
        while not any(each.work and each.work.generated == 20 for each in requests_of(gateway)):
            await asyncio.sleep(0.005)
        leaving.cancel()
        await settled(gateway)
        assert (await standing(client))["accounts"]["all"]["spent"] == 10 + 100 * len("word ")

    thought, answer = ["Let me think.\n\n"] * 50, ["word "] * 500
    mock = MockUpstream(thought=thought, logprobs=(CONFIDENT,), answer=answer, tokens_per_event=10)
    gated(scenario, mock, budget=BATCH)


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (Fault.INVALID_JSON, "elicited answer"),
        (Fault.NOT_A_CHUNK, "elicited answer"),
    ],
)
def test_an_event_that_cannot_be_read_costs_its_bytes(fault: Fault, where: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        await settled(gateway)
        assert (await standing(client))["unseen_tokens"] >= 15

    sure = CONFIDENT if where == "elicited answer" else UNSURE
    mock = MockUpstream(logprobs=(sure,), fault=fault)
    if where == "step":
        stepwise(scenario, mock, budget=BATCH)
    else:
        gated(scenario, mock, budget=BATCH)
