"""The sequential shape: whole completions until the gate is content."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from justenough.errors import InputError
from justenough.gateway.settings import CascadeSettings, GatewaySettings
from justenough.gateway.upstream.logprobs import NEEDED
from justenough.testing import CONFIDENT, UNSURE, Fault, MockUpstream
from tests.unit.gateway.serving import Running, calibration_of, running
from tests.unit.gateway.test_gating import CHAT, TEXT, Scenario, events, gated, said


def stepwise(scenario: Scenario, upstream: MockUpstream, *, decide: Any = "every", **settings: object) -> None:
    calibration = calibration_of(1.0, splitter="completion", shape="sequential", decide=decide)
    gated(scenario, upstream, calibration=calibration, **settings)


class Surer(MockUpstream):
    """Unsure in its first `unsure` completions, and says which one it is."""

    unsure = 1

    async def __aenter__(self) -> Surer:
        self.on_request = self._listen
        await super().__aenter__()
        return self

    def _listen(self, request: Any) -> None:
        number = len(self.completions)
        self.logprobs = (UNSURE,) if number <= self.unsure else (CONFIDENT,)
        self.answer = ("Answer ", f"{number}.")


def test_a_confident_first_step_is_the_answer() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        message = whole["choices"][0]["message"]
        assert message["content"] == "The answer is 42."
        assert message["reasoning_content"] == "<think>Hm.</think>The answer is 42."
        report = whole["justenough"]
        assert (report["decision"], report["step"], report["steps"]) == ("stopped", 1, 1)
        assert report["tokens"] == 7 == whole["usage"]["completion_tokens"]
        assert len(mock.completions) == 1

    stepwise(scenario, MockUpstream(thought=("Hm.",), logprobs=(CONFIDENT,)))


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_of_a_tool_in_a_step_reaches_the_client_and_ends_the_request(stream: bool) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    def delta(text: str, thought: bool) -> Any:
        return {"content": text} if thought else {"tool_calls": [call]}

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        assert '"name":"f"' in answer.text
        assert "tool_calls" in answer.text.partition('"notes":')[2]
        assert len(mock.completions) == 1

    stepwise(scenario, MockUpstream(thought=("Hm.",), logprobs=(UNSURE,), reasoning_field="reasoning", delta=delta))


IMAGES = {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("members", [{"refusal": "No."}, IMAGES, {"audio": {"id": "a", "transcript": "Yes."}}])
def test_an_answer_without_text_is_accepted_and_reaches_the_client(members: Any, stream: bool) -> None:
    tags = {"Hm.": "<think>Hm.", "So.": "So.</think>"}

    def delta(text: str, thought: bool) -> Any:
        return {"content": tags[text]} if thought else members

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        rows = (
            [row for chunk in events(answer.text) for row in chunk["choices"]] if stream else answer.json()["choices"]
        )
        parts = [row.get("message") or row["delta"] for row in rows]
        (name,) = members
        assert [part[name] for part in parts if name in part] == [members[name]]
        assert len(mock.completions) == 1

    mock = MockUpstream(thought=("Hm.", "So."), answer=("!",), logprobs=(UNSURE,), reasoning_field="x", delta=delta)
    stepwise(scenario, mock)


def test_an_empty_answer_with_members_that_are_none_is_asked_about() -> None:
    def delta(text: str, thought: bool) -> Any:
        return {"reasoning": text, "reasoning_details": [{"text": text}]}

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json=CHAT)
        assert len(mock.completions) > 1

    stepwise(
        scenario,
        MockUpstream(thought=("Hm.",), answer=("",), logprobs=(UNSURE,), reasoning_field="reasoning", delta=delta),
    )


@pytest.mark.parametrize("stream", [True, False])
def test_only_the_accepted_step_gives_what_its_message_has_beside_text(stream: bool) -> None:
    asked: list[int] = []

    def delta(text: str, thought: bool) -> Any:
        return {"content": text, "annotations": [{"step": len(asked)}]}

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        mock.on_request = lambda request: asked.append(1) if "completions" in request.target else None
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        rows = (
            [row for chunk in events(answer.text) for row in chunk["choices"]] if stream else answer.json()["choices"]
        )
        parts = [row.get("message") or row["delta"] for row in rows]
        assert len(asked) > 1
        assert [part["annotations"] for part in parts if "annotations" in part] == [[{"step": len(asked)}]]

    stepwise(scenario, MockUpstream(thought=(), answer=("42",), logprobs=(UNSURE,), reasoning_field="x", delta=delta))


def test_what_the_gate_lacked_is_counted() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        assert whole["justenough"]["notes"] == ["missing_logprobs"]
        async with asyncio.timeout(30):
            while gateway.service.active:
                await asyncio.sleep(0.005)
        assert gateway.service.metrics.undecided == {"missing_logprobs": 1}

    stepwise(scenario, MockUpstream(thought=("Hm.",), fault=Fault.NO_LOGPROBS))


@pytest.mark.parametrize("stream", [True, False])
def test_an_unsure_step_is_extended_and_nothing_of_it_is_the_answer(stream: bool) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        asked = {**CHAT, "stream": stream, "max_tokens": 100}
        if stream:
            asked["stream_options"] = {"include_usage": True}
        answer = await client.post("/v1/chat/completions", json=asked)
        if stream:
            chunks = events(answer.text)
            content, reasoning = said(chunks), said(chunks, "reasoning_content")
            usage, report = chunks[-1]["usage"], chunks[-2]["justenough"]
            assert "logprobs" not in answer.text
        else:
            whole = answer.json()
            content = whole["choices"][0]["message"]["content"]
            reasoning = whole["choices"][0]["message"]["reasoning_content"]
            usage, report = whole["usage"], whole["justenough"]
        assert content == "Answer 2."
        assert reasoning == "<think>Hm.</think>Answer 1.<think>Hm.</think>Answer 2."
        assert (report["decision"], report["step"], report["tokens"]) == ("stopped", 2, 10)
        assert usage["completion_tokens"] == 10
        assert usage["completion_tokens_details"]["reasoning_tokens"] == 5
        first, second = (request.json() for request in mock.completions)
        assert second["messages"][:-1] == [  # type: ignore[index]
            *first["messages"],  # type: ignore[misc]
            {"role": "assistant", "content": "<think>Hm.</think>Answer 1."},
        ]
        assert "Re-examine" in str(second["messages"][-1])  # type: ignore[index]
        assert (first["max_tokens"], second["max_tokens"]) == (100, 95)

    stepwise(scenario, Surer(thought=("Hm.",)))


def test_a_model_that_stays_unsure_takes_all_steps_and_no_more_than_allowed() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for allowed, taken in ((None, 4), (2, 2), (99, 4)):
            before = len(mock.completions)
            asked = CHAT if allowed is None else {**CHAT, "justenough": {"max_steps": allowed}}
            report = (await client.post("/v1/chat/completions", json=asked)).json()["justenough"]
            assert (report["decision"], report["reason"], report["steps"]) == ("finished", "max_steps", taken)
            assert len(mock.completions) - before == taken

    stepwise(scenario, MockUpstream(thought=(), logprobs=(UNSURE,)))


def test_effort_asks_again_with_more_of_it() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json=CHAT)
        asked = [request.json() for request in mock.completions]
        assert [body["reasoning_effort"] for body in asked] == ["low", "medium"]
        assert asked[0]["messages"] == asked[1]["messages"]

    stepwise(scenario, Surer(thought=()), extend="effort")


def test_the_clients_token_limit_holds_over_all_steps() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 6})).json()
        assert whole["usage"]["completion_tokens"] == 6
        assert whole["choices"][0]["finish_reason"] == "length"
        assert len(mock.completions) == 2

    stepwise(scenario, MockUpstream(thought=(), logprobs=(UNSURE,)))


def test_observed_it_is_one_completion_as_ever() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json={**CHAT, "justenough": {"mode": "observe"}})).json()
        assert whole["choices"][0]["message"] == {"role": "assistant", "content": "The answer is 42."}
        report = whole["justenough"]
        assert (report["decision"], report["reason"], report["would_stop_at"]) == ("observed", "confident", 4)
        text = await client.post("/v1/completions", json=TEXT)
        assert text.headers["x-justenough"] == "relayed; reason=shape"

    stepwise(scenario, MockUpstream(thought=(), logprobs=(CONFIDENT,)))


def test_an_audited_request_takes_all_steps() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        assert whole["justenough"]["decision"] == "audited"
        assert whole["justenough"]["would_stop_at"] == 4
        audit = (await client.get("/v1/justenough/status")).json()["audit"]
        assert audit["saving"]["value"] == pytest.approx(1 - 4 / 8)
        # The answer at the stop was 2, the last one 4.
        assert audit["agreement"]["value"] == 0.0

    stepwise(scenario, Surer(thought=()), audit_share=1.0)


def test_missing_log_probabilities_never_stop() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        report = (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]
        assert (report["decision"], report["steps"]) == ("finished", 4)
        assert report["notes"] == ["missing_logprobs"]
        for _ in range(NEEDED):
            again = await client.post("/v1/chat/completions", json=CHAT)
        assert again.headers["x-justenough"] == "relayed; reason=no_logprobs"

    stepwise(scenario, MockUpstream(thought=(), fault=Fault.NO_LOGPROBS))


LATER_FAULTS = [
    Fault.RESET_IN_STREAM,
    Fault.END_IN_STREAM,
    Fault.INVALID_JSON,
    Fault.ERROR_EVENT,
    Fault.SERVER_ERROR,
    Fault.TOO_MANY_REQUESTS,
    Fault.RESET_BEFORE_HEADERS,
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", LATER_FAULTS)
def test_after_a_later_step_that_fails_the_last_whole_answer_is_returned(
    fault: Fault, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: Any) -> None:
        mock.answer = (f"Answer {len(mock.completions)}", ".")
        mock.fault = fault if len(mock.completions) >= 3 else Fault.NONE

    mock = MockUpstream(thought=(), logprobs=(UNSURE,), on_request=fail, fault_at=1)

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        assert answer.status_code == 200
        if stream:
            chunks = events(answer.text)
            content, report = said(chunks), chunks[-1]["justenough"]
        else:
            whole = answer.json()
            content, report = whole["choices"][0]["message"]["content"], whole["justenough"]
            assert whole["choices"][0]["finish_reason"] == "stop"
            assert whole["usage"]["completion_tokens"] == report["tokens"]
        assert content == "Answer 2."
        assert (report["decision"], report["reason"], report["steps"]) == ("finished", "step_failed", 2)
        assert report["failure"] in caplog.text
        assert report["failure"].startswith("the upstream")
        assert gateway.service.upstream.open_requests == 0

    stepwise(scenario, mock)


def test_a_later_step_that_does_not_fit_the_context_costs_no_answer() -> None:
    """The server counts the prompt's messages as its context and refuses the third step."""

    class Small(MockUpstream):
        async def __aenter__(self) -> MockUpstream:
            self.on_request = self._listen
            return await super().__aenter__()

        def _listen(self, request: Any) -> None:
            messages = request.json().get("messages", []) if request.body else []
            self.fault = Fault.REFUSE_LOGPROBS if len(messages) > 3 else Fault.NONE

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        assert whole["choices"][0]["message"]["content"] == "The answer is 42."
        assert whole["justenough"]["failure"] == "the upstream answered a later step with status 400"
        assert whole["justenough"]["steps"] == 2

    stepwise(scenario, Small(thought=(), logprobs=(UNSURE,)))


def test_an_audited_request_with_a_failed_step_is_not_audited() -> None:
    def fail(request: Any) -> None:
        mock.fault = Fault.SERVER_ERROR if len(mock.completions) == 2 else Fault.NONE

    mock = MockUpstream(thought=(), logprobs=(CONFIDENT,), on_request=fail)

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        assert whole["justenough"]["reason"] == "step_failed"
        assert (await client.get("/v1/justenough/status")).json()["audit"]["requests"] == 0

    stepwise(scenario, mock, audit_share=1.0)


def test_a_first_step_that_fails_is_an_error() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert (answer.status_code, answer.json()["error"]["type"]) == (502, "upstream_error")

    stepwise(scenario, MockUpstream(thought=(), logprobs=(UNSURE,), fault=Fault.RESET_IN_STREAM))


@pytest.mark.parametrize("field", [None, "reasoning_content"])
@pytest.mark.parametrize(
    ("engine", "prefill"),
    [("vllm", True), ("llama.cpp", True), ("llama.cpp", False), ("vllm", False)],
    ids=["vllm", "echo", "template", "tokens"],
)
def test_wait_continues_the_thought_as_the_probe_found(engine: Any, prefill: bool, field: str | None) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        asked = {**CHAT, "stream": True, "max_tokens": 100, "stream_options": {"include_usage": True}}
        chunks = events((await client.post("/v1/chat/completions", json=asked)).text)
        assert said(chunks) == "Answer 2."
        opened = "<think>Hm." if field is None else "Hm."
        closed = "</think>" if field is None else ""
        assert said(chunks, "reasoning_content") == f"{opened}{closed}Answer 1.\n\nWait,Hm.</think>Answer 2."
        report, usage = chunks[-2]["justenough"], chunks[-1]["usage"]
        assert (report["decision"], report["step"]) == ("stopped", 2)
        assert gateway.service.capabilities is not None
        probed = gateway.service.capabilities.probe_tokens
        assert report["tokens"] == usage["completion_tokens"] == mock.generated - probed
        second: Any = mock.completions[-1].json()
        continued = "<think>Hm.\n\nWait," if field is None else "<think>\nHm.\n\nWait,"
        if prefill:
            assert second["messages"][-1] == {"role": "assistant", "content": continued}
            assert (second["logprobs"], second["top_logprobs"]) == (True, 20)
        else:
            assert str(second["prompt"]).endswith(f"<|assistant|>{continued}")
            assert second["logprobs"] == 20
        assert second["max_tokens"] == 100 - (5 if field is None else 3)

    stepwise(scenario, Surer(thought=("Hm.",), engine=engine, prefill=prefill, reasoning_field=field), extend="wait")


def test_every_wait_stands_in_the_thought_that_is_continued() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        await client.post("/v1/chat/completions", json=CHAT)
        last: Any = mock.completions[-1].json()
        assert last["messages"][-1]["content"] == "<think>Hm.\n\nWait,Hm.\n\nWait,Hm.\n\nWait,"

    stepwise(scenario, MockUpstream(thought=("Hm.",), logprobs=(UNSURE,)), extend="wait")


def test_where_no_thought_can_be_continued_wait_only_observes() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        report = (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]
        assert (report["decision"], report["reason"]) == ("observed", "cannot_continue")

    stepwise(scenario, MockUpstream(thought=("Hm.",), engine="plain"), extend="wait")


def cascading(scenario: Any, *, logprobs: Any, strong: MockUpstream, **settings: Any) -> None:
    async def both() -> None:
        async with strong:
            cascade = CascadeSettings(upstream=strong.url, model="strong", key="sk-strong")
            base: dict[str, Any] = {"extend": "cascade", "cascade": cascade, "audit_share": 0.0}
            calibration = calibration_of(1.0, splitter="completion", shape="sequential", decide="every")
            async with MockUpstream(thought=(), logprobs=logprobs) as weak:
                configured = GatewaySettings(upstream=weak.url, calibration=calibration, **(base | settings))
                async with running(configured) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
                    await scenario(gateway, weak, client)

    asyncio.run(both())


@pytest.mark.parametrize("stream", [False, True])
def test_a_cascade_asks_the_second_model_once_and_counts_it_apart(stream: bool) -> None:
    strong = MockUpstream(thought=(), answer=("Strong", " 43", "."), model="strong", fault=Fault.NO_LOGPROBS)

    async def scenario(gateway: Running, weak: MockUpstream, client: httpx.AsyncClient) -> None:
        asked = {**CHAT, "stream": stream, "seed": 3}
        headers = {"authorization": "Bearer sk-client", "x-private": "mine"}
        answer = await client.post("/v1/chat/completions", json=asked, headers=headers)
        if stream:
            chunks = events(answer.text)
            assert said(chunks) == "Strong 43."
            assert {chunk["id"] for chunk in chunks} == {"mock-1"}
            assert chunks[-1]["model"] == "strong"
            report = chunks[-1]["justenough"]
        else:
            whole = answer.json()
            assert whole["choices"][0]["message"]["content"] == "Strong 43."
            report = whole["justenough"]
            assert whole["usage"]["completion_tokens"] == 7
            assert "tokens=4+3" in answer.headers["x-justenough"]
        assert report["tokens_by_model"] == [{"model": "mock", "tokens": 4}, {"model": "strong", "tokens": 3}]
        assert (report["decision"], report["reason"], report["step"]) == ("finished", "max_steps", 2)
        assert (len(weak.completions), len(strong.completions)) == (1, 1)
        request = strong.completions[0]
        sent = {**CHAT, "seed": 3, "model": "strong", "stream": True, "stream_options": {"include_usage": True}}
        assert request.json() == sent
        assert request.headers["authorization"] == "Bearer sk-strong"
        assert "sk-client" not in str(request.headers)
        assert "x-private" not in request.headers
        metrics = (await client.get("/metrics")).text
        assert "justenough_tokens_total 4\n" in metrics
        assert "justenough_cascade_tokens_total 3\n" in metrics
        status = (await client.get("/v1/justenough/status")).json()
        assert (status["extends_by"], status["cascade"]) == ("cascade", {"model": "strong"})

    cascading(scenario, logprobs=(UNSURE,), strong=strong)


def test_a_cascade_leaves_a_confident_first_step_alone() -> None:
    strong = MockUpstream(thought=())

    async def scenario(gateway: Running, weak: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        assert whole["justenough"]["tokens_by_model"] == [{"model": "mock", "tokens": 4}]
        assert not strong.completions

    cascading(scenario, logprobs=(CONFIDENT,), strong=strong)


def test_a_cascade_of_one_model_or_of_segments_is_refused() -> None:
    given: dict[str, Any] = {"upstream": "http://x"}
    with pytest.raises(InputError, match="second model"):
        GatewaySettings(**given, extend="cascade")
    with pytest.raises(InputError, match="second model"):
        GatewaySettings(**given, cascade=CascadeSettings(upstream="http://y", model="m"))
    with pytest.raises(InputError, match="whole steps"):
        GatewaySettings(**given, extend="wait", calibration=calibration_of(1.0))


@pytest.mark.parametrize("stream", [False, True])
def test_if_the_second_model_fails_the_first_models_answer_is_returned(stream: bool) -> None:
    strong = MockUpstream(thought=(), fault=Fault.SERVER_ERROR)

    async def scenario(gateway: Running, weak: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
        report = events(answer.text)[-1]["justenough"] if stream else answer.json()["justenough"]
        content = said(events(answer.text)) if stream else answer.json()["choices"][0]["message"]["content"]
        assert content == "The answer is 42."
        assert (report["reason"], report["failure"]) == (
            "step_failed",
            "the upstream answered a later step with status 500",
        )
        assert report["tokens_by_model"] == [{"model": "mock", "tokens": 4}]

    cascading(scenario, logprobs=(UNSURE,), strong=strong)
