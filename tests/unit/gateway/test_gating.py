"""The streaming gate against the mock upstream: what is asked, cut, continued, told, and left alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from justenough.calibration.calibration import calibrate
from justenough.gateway.learn.drift import REPEATS, WINDOW
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.logprobs import NEEDED
from justenough.testing import CONFIDENT, UNSURE, Fault, MockUpstream
from justenough.trace.files import read_traces
from tests.unit.gateway.serving import Running, calibration_of, running

CHAT: dict[str, Any] = {"model": "mock", "messages": [{"role": "user", "content": "What is 6*7?"}]}
TEXT: dict[str, Any] = {"model": "mock", "prompt": "What is 6*7?"}
THOUGHT = ("Let me think", ".\n\n", "So it is", " 42.\n\n", "Yes", ", 42.\n\n")
ANSWER = "The answer is 42."
SURE_AT_STEP_2 = (UNSURE, UNSURE, UNSURE, CONFIDENT)
"""`<think>` and the first paragraph unsure, all later ones confident."""
PATHS = {"/v1/chat/completions": CHAT, "/v1/completions": TEXT}

Scenario = Callable[[Running, MockUpstream, httpx.AsyncClient], Coroutine[None, None, None]]


def gated(scenario: Scenario, upstream: MockUpstream | None = None, **settings: object) -> None:
    async def main() -> None:
        async with upstream or MockUpstream(thought=THOUGHT, logprobs=SURE_AT_STEP_2) as mock:
            base = GatewaySettings(
                upstream=mock.url, calibration=calibration_of(1.0), audit_share=0.0, close="</think>"
            )
            configured = replace(base, **settings)  # type: ignore[arg-type]
            async with running(configured) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
                await scenario(gateway, mock, client)

    asyncio.run(main())


def events(text: str) -> list[dict[str, Any]]:
    """The events of a stream that must end well."""
    assert text.endswith("data: [DONE]\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line and "[DONE]" not in line]


def said(chunks: list[dict[str, Any]], key: str = "content") -> str:
    rows = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    return "".join((row["delta"].get(key) if "delta" in row else row["text"]) or "" for row in rows)


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("path", PATHS)
def test_a_confident_thought_is_cut_and_answered_in_the_same_stream(path: str, engine: Any) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        asked = {**PATHS[path], "stream": True, "stream_options": {"include_usage": True}}
        answer = await client.post(path, json=asked)
        assert answer.headers["x-justenough"] == "gating; threshold=1"
        chunks = events(answer.text)
        assert said(chunks) == "<think>Let me think.\n\nSo it is 42.\n\n</think>The answer is 42."
        assert {chunk["id"] for chunk in chunks} == {"mock-1"}
        assert "logprobs" not in answer.text
        finishes = [chunk for chunk in chunks if chunk["choices"] and chunk["choices"][0]["finish_reason"]]
        assert [chunk["choices"][0]["finish_reason"] for chunk in finishes] == ["stop"]
        report = finishes[0]["justenough"]
        assert (report["decision"], report["reason"], report["step"]) == ("stopped", "confident", 2)
        assert (report["tokens"], report["thought_tokens"], report["probe_tokens"]) == (9, 5, 4)
        assert report["entropy"] < report["threshold"] == 1.0
        assert report["usage_source"] == "received"
        assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == [chunks[-1]["usage"]]
        usage = chunks[-1]["usage"]
        assert usage["completion_tokens"] == 9
        assert usage["total_tokens"] == usage["prompt_tokens"] + 9
        assert usage["completion_tokens_details"]["reasoning_tokens"] == 5
        assert mock.cancelled == 1
        assert gateway.service.metrics.outcomes == {"stopped": 1}

    thought = [*THOUGHT, *["more\n\n"] * 100]
    gated(scenario, MockUpstream(thought=thought, logprobs=SURE_AT_STEP_2, engine=engine, interval_s=0.005))


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_does_not_stream_gets_one_whole_answer(path: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post(path, json=PATHS[path])
        whole = answer.json()
        choice = whole["choices"][0]
        text = "<think>Let me think.\n\nSo it is 42.\n\n</think>The answer is 42."
        if path == "/v1/completions":
            assert choice["text"] == text
            assert whole["object"] == "text_completion"
        else:
            assert choice["message"] == {"role": "assistant", "content": text}
            assert whole["object"] == "chat.completion"
        assert choice["finish_reason"] == "stop"
        assert "logprobs" not in choice
        assert whole["usage"]["completion_tokens"] == 9
        assert whole["justenough"]["decision"] == "stopped"
        assert answer.headers["x-justenough"].startswith("stopped; reason=confident; step=2; entropy=0.00")
        assert answer.headers["x-justenough"].endswith("threshold=1; tokens=9; probe_tokens=4")

    gated(scenario)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_thought_in_a_field_of_its_own_stays_there(field: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        chunks = events((await client.post("/v1/chat/completions", json={**CHAT, "stream": True})).text)
        assert said(chunks, field) == "Let me think.\n\nSo it is 42.\n\n"
        assert said(chunks) == "The answer is 42."
        last = mock.completions[-1].json()
        assert last["messages"][-1]["content"] == "<think>\nLet me think.\n\nSo it is 42.\n\n</think>"  # type: ignore[index,call-overload]
        message = (await client.post("/v1/chat/completions", json=CHAT)).json()["choices"][0]["message"]
        assert message[field] == "Let me think.\n\nSo it is 42.\n\n"
        assert message["content"] == "The answer is 42."

    gated(scenario, MockUpstream(thought=THOUGHT, logprobs=(UNSURE, UNSURE, CONFIDENT), reasoning_field=field))


@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_of_the_thought_may_stand_apart(stream: bool) -> None:
    """As DeepSeek's: without them there was no stop."""

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        asked = {**CHAT, "stream": stream, "logprobs": True, "top_logprobs": 2}
        answer = await client.post("/v1/chat/completions", json=asked)
        chunks = events(answer.text) if stream else [answer.json()]
        report = chunks[-1]["justenough"]
        assert (report["decision"], report["step"], "notes" in report) == ("stopped", 2, False)
        given = [row["logprobs"] for chunk in chunks for row in chunk["choices"] if row.get("logprobs")]
        thought = [entry for each in given for entry in each.get("reasoning_content") or ()]
        assert "".join(entry["token"] for entry in thought) == "Let me think.\n\nSo it is 42.\n\n"
        assert {len(entry["top_logprobs"]) for entry in thought} == {2}
        answered = [entry for each in given for entry in each["content"] or ()]
        assert "".join(entry["token"] for entry in answered) == "The answer is 42."

    mock = MockUpstream(
        thought=THOUGHT,
        logprobs=(UNSURE, UNSURE, CONFIDENT),
        reasoning_field="reasoning_content",
        logprobs_apart=True,
    )
    gated(scenario, mock)


CHATS, COMPLETIONS = PATHS


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "field"), [(CHATS, None), (CHATS, "reasoning"), (COMPLETIONS, None)])
def test_a_cut_within_an_event_leaves_out_what_came_after_it(path: str, field: str | None, stream: bool) -> None:
    """As a busy vLLM sends them: the thought once went on with a few tokens that nobody had decided on."""

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        wants = {"logprobs": True, "top_logprobs": 20} if path == CHATS else {"logprobs": 20}
        answer = await client.post(path, json={**PATHS[path], "stream": stream, **wants})
        chunks = events(answer.text) if stream else [answer.json()]
        rows = [chunk["choices"][0] for chunk in chunks]
        parts = [row.get("delta") or row.get("message") or {"content": row.get("text")} for row in rows]
        thought, text = ("".join([part.get(key) or "" for part in parts]) for key in ("reasoning", "content"))
        shown = "Let me think.\n\nSo it is 42.\n\n"
        assert (thought, text) == ((shown, ANSWER) if field else ("", f"<think>{shown}</think>{ANSWER}"))
        given = [row["logprobs"] for row in rows if row.get("logprobs")]
        tokens = [entry["token"] for each in given for entry in each.get("content", ())]
        tokens += [token for each in given for token in each.get("tokens", ())]
        assert "".join(tokens).removeprefix("<think>") == shown + ANSWER
        asked = mock.completions[-1].json()
        prompt = str(asked.get("prompt") or asked["messages"])
        assert prompt.replace("\\n", "\n").partition("</think>")[0].endswith(shown)
        report = chunks[-1]["justenough"]
        # What came was generated all the same.
        assert (report["decision"], report["tokens"]) == ("stopped", 6 + 4)

    # The tag of a thought in the text is a token too.
    logprobs = SURE_AT_STEP_2[field is not None :]
    mock = MockUpstream(thought=THOUGHT, logprobs=logprobs, tokens_per_event=3, reasoning_field=field)
    gated(scenario, mock)


@pytest.mark.parametrize("field", [None, "reasoning"])
def test_a_thought_that_ends_in_the_event_of_its_cut_is_left_alone(field: str | None) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        report = whole["justenough"]
        assert (report["decision"], report["would_stop_at"], report["probe_tokens"]) == (
            "finished",
            12 - 2 * bool(field),
            0,
        )
        assert report["thought_tokens"] == 6 + 2 * (field is None)
        assert whole["choices"][0]["message"]["content"].endswith(ANSWER)
        assert (mock.cancelled, len(mock.completions)) == (0, 1)

    gated(scenario, MockUpstream(thought=THOUGHT, tokens_per_event=100, reasoning_field=field))


def test_token_counts_that_the_client_wants_in_each_event_reach_it() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        options = {"include_usage": True, "continuous_usage_stats": True}
        asked = {**CHAT, "stream": True, "stream_options": options}
        async with httpx.AsyncClient(base_url=mock.url) as straight:
            direct = events((await straight.post("/v1/chat/completions", json=asked)).text)
        chunks = events((await client.post("/v1/chat/completions", json=asked)).text)
        assert [chunk.get("usage") for chunk in chunks] == [chunk.get("usage") for chunk in direct]

    gated(scenario, calibration=calibration_of(0.0))


def test_what_the_upstream_is_asked() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        asked = {
            **CHAT,
            "seed": 7,
            "vendor": {"x": [1]},
            "max_tokens": 50,
            "stream": True,
            "justenough": {"mode": "gate"},
        }
        await client.post("/v1/chat/completions?a=1", json=asked, headers={"authorization": "Bearer k"})
        first, second = mock.completions
        kept = {**CHAT, "seed": 7, "vendor": {"x": [1]}, "stream": True}
        usage = {"include_usage": True, "continuous_usage_stats": True}
        assert first.json() == {
            **kept, "max_tokens": 50, "logprobs": True, "top_logprobs": 20, "stream_options": usage,
        }  # fmt: skip
        messages = [
            *CHAT["messages"],
            {"role": "assistant", "content": "<think>Let me think.\n\nSo it is 42.\n\n</think>"},
        ]
        assert second.json() == {
            **kept, "max_tokens": 45, "messages": messages, "stream_options": {"include_usage": True},
            "continue_final_message": True, "add_generation_prompt": False,
        }  # fmt: skip
        assert first.target == "/v1/chat/completions?a=1"
        assert first.headers["authorization"] == second.headers["authorization"] == "Bearer k"

    gated(scenario)


def test_log_probabilities_that_the_client_wants_are_given_as_it_wants_them() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json={**CHAT, "logprobs": True, "top_logprobs": 2})).json()
        entries = whole["choices"][0]["logprobs"]["content"]
        text = "".join(entry["token"] for entry in entries)
        assert text == "<think>Let me think.\n\nSo it is 42.\n\nThe answer is 42."
        assert {len(entry["top_logprobs"]) for entry in entries} == {2}

    gated(scenario)


@pytest.mark.parametrize("usage", [False, True])
def test_an_unsure_thought_runs_to_its_end_and_keeps_every_field(usage: bool) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=mock.url) as straight:
            for stream in (True, False):
                asked: dict[str, Any] = {**CHAT, "stream": stream}
                if usage and stream:
                    asked["stream_options"] = {"include_usage": True}
                through = await client.post("/v1/chat/completions", json=asked)
                direct = await straight.post("/v1/chat/completions", json=asked)
                if stream:
                    chunks = events(through.text)
                    report = chunks[-1 - usage].pop("justenough")
                    assert chunks == events(direct.text)
                else:
                    whole = through.json()
                    report = whole.pop("justenough")
                    vendor = whole["choices"][0].pop("vendor")
                    assert vendor == {"kept": 1}
                    assert whole == direct.json()
                    assert through.headers["x-justenough"].startswith("finished; reason=uncertain; step=3")
                assert (report["decision"], report["usage_source"]) == ("finished", "upstream")
        assert mock.cancelled == 0

    gated(scenario, MockUpstream(thought=THOUGHT, logprobs=(UNSURE,)))


@pytest.mark.parametrize("engine", ["llama.cpp", "vllm"])
def test_continues_by_the_template_where_chat_cannot(engine: Any) -> None:
    """As where a template takes thoughts out of earlier answers, DeepSeek-R1's among them."""
    mock = MockUpstream(thought=THOUGHT, logprobs=SURE_AT_STEP_2, engine=engine, prefill=False)

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        chunks = events((await client.post("/v1/chat/completions", json={**CHAT, "stream": True})).text)
        assert said(chunks) == "<think>Let me think.\n\nSo it is 42.\n\n</think>The answer is 42."
        assert mock.completions[-1].json()["prompt"] == (
            "<|user|>What is 6*7?<|assistant|><think>Let me think.\n\nSo it is 42.\n\n</think>"
        )
        # The prompt begins as the template has it, not once more.
        assert mock.completions[-1].json().get("add_special_tokens") is (False if engine == "vllm" else None)
        status = (await client.get("/v1/justenough/status")).json()
        assert status["upstream"]["continues_by"] == "template"

    gated(scenario, mock)


def test_an_upstream_that_cannot_continue_is_only_observed() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", json=CHAT)
        report = answer.json()["justenough"]
        assert (report["decision"], report["reason"]) == ("observed", "cannot_continue")
        assert report["would_stop_at"] == 5
        # A text completion is continued by its own prompt, which every server can.
        assert (await client.post("/v1/completions", json=TEXT)).json()["justenough"]["decision"] == "stopped"

    gated(scenario, MockUpstream(thought=THOUGHT, logprobs=SURE_AT_STEP_2, engine="plain"))


RELAYED: dict[str, dict[str, Any]] = {
    "n": {"n": 2},
    "tools": {"tools": [{"type": "function"}]},
    "json_mode": {"response_format": {"type": "json_object"}},
    "structured": {"guided_regex": "a+"},
    "media": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    "audio": {"modalities": ["text", "audio"]},
    "prefill": {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
    "model": {"model": "another"},
    "off": {"justenough": {"mode": "off"}},
    "unreadable": {"n": "two"},
    "no_messages": {"messages": []},
    "n,n_cmpl": {"n_cmpl": 3},
    "tools,functions": {"functions": [{"name": "f"}], "function_call": "auto"},
    "json_mode,schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
    "structured,grammar": {"grammar": "root ::= [a-z]"},
    "structured,schema": {"json_schema": {"type": "object"}},
    "structured,regex": {"regex": "[0-9]+"},
    "structured,ebnf": {"ebnf": "root ::= [a-z]"},
    "structured,tag": {"structural_tag": "{}"},
    "beam_search": {"use_beam_search": True},
    "media,audio": {
        "messages": [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}
        ]
    },
    "audio,voice": {"audio": {"voice": "alloy", "format": "wav"}},
    "prefill,continued": {"continue_final_message": True},
    "top_logprobs": {"logprobs": True, "top_logprobs": -1},
    "top_logprobs,alone": {"top_logprobs": -1},
}
RELAYED_TEXT: dict[str, dict[str, Any]] = {
    "n": {"best_of": 2},
    "prompt": {"prompt": ["a", "b"]},
    "prompt,tokens": {"prompt": [1, 2]},
    "echo": {"echo": True},
    "echo,suffix": {"suffix": "."},
    "structured": {"guided_json": {"type": "object"}},
    "structured,regex": {"regex": "[0-9]+"},
    "json_mode": {"response_format": {"type": "json_object"}},
    "top_logprobs": {"logprobs": -1},
}


@pytest.mark.parametrize(
    ("path", "case"),
    [("/v1/chat/completions", case) for case in RELAYED] + [("/v1/completions", case) for case in RELAYED_TEXT],
)
def test_what_is_not_for_a_gate_is_relayed_untouched_and_says_why(path: str, case: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        asked = {**CHAT, **RELAYED[case]} if "chat" in path else {**TEXT, **RELAYED_TEXT[case]}
        answer = await client.post(path, json=asked)
        assert answer.headers["x-justenough"] == f"relayed; reason={case.partition(',')[0]}"
        asked.pop("justenough", None)
        assert mock.completions[-1].json() == asked
        assert "justenough" not in answer.json()

    gated(scenario)


@pytest.mark.parametrize(
    ("asked", "decision", "step"),
    [
        ({"justenough": {"mode": "observe"}}, "observed", 2),
        ({"justenough": {"threshold": 0.0001}}, "finished", 3),
        ({"justenough": {"threshold": 9.0}}, "stopped", 2),
        ({"justenough": {"max_steps": 1}}, "stopped", 1),
        ({}, "stopped", 2),
    ],
)
@pytest.mark.parametrize("by_header", [False, True])
def test_a_request_moves_within_the_operators_limits(
    asked: dict[str, Any], decision: str, step: int, by_header: bool
) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        control = asked.get("justenough", {})
        headers = {f"x-justenough-{key.replace('_', '-')}": str(value) for key, value in control.items()}
        body = CHAT if by_header else {**CHAT, **asked}
        answer = await client.post("/v1/chat/completions", json=body, headers=headers if by_header else {})
        report = answer.json()["justenough"]
        assert (report["decision"], report["step"]) == (decision, step)
        # 9 bits was asked for, but a client cannot be laxer than the calibration.
        assert report["threshold"] <= 1.0
        named = {key for key in mock.completions[0].headers if key.startswith("x-justenough")}
        assert named == {"x-justenough-via"}

    gated(scenario)


@pytest.mark.parametrize(
    ("calibrated", "asked", "default", "reason"),
    [
        (0.6, 0.6, None, None),
        (0.6, 0.7, None, "temperature"),
        (0.6, None, None, "temperature_unknown"),
        (0.6, None, 0.6, None),
        (0.6, None, 1.0, "temperature"),
        (None, 0.3, None, None),
    ],
)
def test_a_threshold_is_only_used_at_its_own_temperature(
    calibrated: float | None, asked: float | None, default: float | None, reason: str | None
) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        body = CHAT if asked is None else {**CHAT, "temperature": asked}
        report = (await client.post("/v1/chat/completions", json=body)).json()["justenough"]
        assert report["decision"] == ("stopped" if reason is None else "observed")
        assert report["reason"] == (reason or "confident")
        status = (await client.get("/v1/justenough/status")).json()
        assert status["observed"] == ({} if reason is None else {reason: 1})
        assert list(status["hints"]) == list(status["observed"])
        shown = f'justenough_observed_total{{reason="{reason}"}} 1\n'
        assert (shown in (await client.get("/metrics")).text) is (reason is not None)

    gated(scenario, calibration=calibration_of(1.0, temperature=calibrated), default_temperature=default)


def test_llama_cpps_own_temperature_is_known_from_its_properties() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        assert (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]["decision"] == "stopped"

    upstream = MockUpstream(thought=THOUGHT, logprobs=SURE_AT_STEP_2, engine="llama.cpp")
    gated(scenario, upstream, calibration=calibration_of(1.0, temperature=0.8))


@pytest.mark.parametrize(
    ("fault", "note"), [(Fault.NO_LOGPROBS, "missing_logprobs"), (Fault.SHORT_LOGPROBS, "short_logprobs")]
)
def test_missing_or_short_log_probabilities_never_stop(fault: Fault, note: str) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        report = (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]
        assert (report["decision"], report["reason"]) == ("finished", "no_signal")
        assert report["notes"] == [note]
        for _ in range(NEEDED - 1):
            await client.post("/v1/chat/completions", json=CHAT)
        again = await client.post("/v1/chat/completions", json=CHAT)
        relayed = again.headers["x-justenough"] == "relayed; reason=no_logprobs"
        assert relayed is (fault is Fault.NO_LOGPROBS)
        hint = (await client.get("/v1/justenough/status")).json()["hints"][note]
        assert ("--top-k" if fault is Fault.SHORT_LOGPROBS else "--rule") in hint

    gated(scenario, MockUpstream(thought=THOUGHT, logprobs=(CONFIDENT,), fault=fault))


def test_an_upstream_that_refuses_log_probabilities_is_relayed() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for request in range(1, NEEDED + 3):
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert answer.status_code == 200
            assert answer.headers["x-justenough"] == "relayed; reason=no_logprobs"
            # Each of the first requests is refused once, and sent again without log-probabilities.
            assert len(mock.completions) == request + min(request, NEEDED)
        status = (await client.get("/v1/justenough/status")).json()
        assert status["without_logprobs"] == {"mock": "refused"}

    gated(scenario, MockUpstream(thought=THOUGHT, fault=Fault.REFUSE_LOGPROBS))


def test_a_text_without_a_thought_is_never_cut() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        assert whole["choices"][0]["message"]["content"] == "One.\n\nTwo.\n\nThree.\n\n"
        assert whole["justenough"]["reason"] == "no_thought"

    gated(scenario, MockUpstream(thought=(), answer=("One.\n\n", "Two.\n\n", "Three.\n\n"), logprobs=(CONFIDENT,)))


def test_an_answer_that_has_begun_is_never_cut() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        assert whole["choices"][0]["message"]["content"] == "<think>Hm.</think>One.\n\nTwo.\n\n"
        assert whole["justenough"]["decision"] == "finished"

    gated(scenario, MockUpstream(thought=("Hm.",), answer=("One.\n\n", "Two.\n\n"), logprobs=(CONFIDENT,)))


def test_no_cut_where_no_token_is_left_for_the_answer() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json={**CHAT, "max_tokens": 5})).json()
        assert whole["choices"][0]["finish_reason"] == "length"
        assert whole["usage"]["completion_tokens"] == 5
        assert len(mock.completions) == 1

    gated(scenario)


def test_without_a_calibration_it_measures_and_stops_nothing() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        report = (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]
        assert (report["decision"], report["reason"], report["threshold"]) == ("observed", "no_threshold", None)
        assert report["entropy"] is not None

    gated(scenario, calibration=None)


def test_the_audited_share_runs_to_its_end_and_measures_saving_and_agreement() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert answer.json()["choices"][0]["message"]["content"].endswith("Yes, 42.\n\n</think>The answer is 42.")
        assert answer.headers["x-justenough"].startswith("audited; reason=confident; step=2")
        while not len(gateway.service.learning.audit):
            await asyncio.sleep(0.01)
        audit = (await client.get("/v1/justenough/status")).json()["audit"]
        # 12 tokens in full; gated: 5 thought and 4 of the answer.
        assert audit["requests"] == 1
        assert audit["saving"]["value"] == pytest.approx(1 - 9 / 12)
        assert audit["agreement"]["value"] == 1.0
        assert audit["agreement"]["low"] < 0.3
        # The answers at the stop, for savings, and after the first step, for recalibration.
        assert audit["probe_tokens"] == 8
        assert audit["saving_is"].startswith("an upper bound")
        assert audit["overshoot_bound"] == 3
        metrics = (await client.get("/metrics")).text
        assert "justenough_audited_saving_value 0.25\n" in metrics
        assert 'justenough_outcomes_total{outcome="audited"} 1\n' in metrics

    gated(scenario, audit_share=1.0)


def test_drift_switches_to_observe_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        # All but the first and the last requests of the windows are added directly.
        for number in range(2):
            answer = await client.post("/v1/chat/completions", json=CHAT)
            assert answer.json()["justenough"]["decision"] == "stopped"
            if not number:
                for _ in range(REPEATS * WINDOW - 2):
                    gateway.service.learning.drift.add(4.3, "127.0.0.1")
        report = (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]
        assert (report["decision"], report["reason"]) == ("observed", "drift")
        status = (await client.get("/v1/justenough/status")).json()
        assert (status["mode"], status["configured_mode"]) == ("observe", "gate")
        assert status["drift"]["drifted"] is True
        assert status["drift"]["advice"].startswith("calibrate again")
        assert "nothing is stopped until it comes back" in caplog.text
        assert "justenough_drifted 1\n" in (await client.get("/metrics")).text
        # Ordinary requests bring the gate back.
        for _ in range(WINDOW - 1):
            gateway.service.learning.drift.add(0.5, "127.0.0.1")
        assert gateway.service.learning.drift.drifted is False
        assert (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]["decision"] == "stopped"

    # The live first steps have 4.3 bits, the calibration's 0.5.
    gated(scenario, calibration=calibration_of(1.0, mean=0.5, sd=0.2))


def test_audited_requests_are_recorded_so_that_calibrate_can_read_them(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for number in range(12):
            mock.logprobs = (CONFIDENT,) if number % 2 else (UNSURE,)
            mock.answer = (f"Answer: {number}",)
            asked = {**CHAT, "messages": [{"role": "user", "content": f"{number}?"}], "temperature": 0.5}
            await client.post("/v1/chat/completions", json=asked)
            while gateway.service.learning.recorder.traces == number:  # type: ignore[union-attr]
                await asyncio.sleep(0.005)

    upstream = MockUpstream(thought=THOUGHT)
    gated(scenario, upstream, calibration=None, audit_share=1.0, record=path)
    assert path.stat().st_mode & 0o777 == 0o600
    traces = read_traces(path).traces
    assert [(len(trace.steps), trace.problem, trace.shape) for trace in traces[:2]] == [
        (3, "0?", "streaming"),
        (3, "1?", "streaming"),
    ]
    first = traces[0].steps[0]
    assert (first.text, first.answer, first.tokens) == ("<think>Let me think.\n\n", "0", 3)
    assert traces[0].steps[-1].answer == "0"
    assert traces[0].signal.temperature == 0.5
    fitted = calibrate(traces, labels="agreement", force=True)
    assert (fitted.model, fitted.shape, fitted.n) == ("mock", "streaming", 12)


def test_a_record_without_text_holds_none_and_stays_within_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"

    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for number in range(6):
            asked = {**CHAT, "messages": [{"role": "user", "content": f"What is 6*{number}?"}]}
            await client.post("/v1/chat/completions", json=asked)
        while len(gateway.service.learning.audit) < 6:
            await asyncio.sleep(0.005)
        record = (await client.get("/v1/justenough/status")).json()["record"]
        assert record["full"] is True
        assert 0 < record["traces"] < 6

    gated(scenario, audit_share=1.0, record=path, record_text=False, record_bytes=4000)
    text = path.read_text()
    assert len(text) <= 4000
    for word in ("Let me think", "is 42", "What"):
        assert word not in text


def test_feedback_is_counted_beside_what_was_done_and_applies_nothing() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        for correct in (False, True):
            given = {"id": whole["id"], "correct": correct}
            taken = (await client.post("/v1/justenough/feedback", json=given)).json()
            assert (taken["labels"], taken["right"]) == (1, correct)
            assert taken["right_by_outcome"]["stopped"]["value"] == float(correct)
        unknown = await client.post("/v1/justenough/feedback", json={"id": "x", "correct": True})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_answer")
        bad: list[Any] = [{"id": whole["id"]}, {"id": whole["id"], "correct": 1}, [], None]
        for wrong in bad:
            refused = await client.post("/v1/justenough/feedback", json=wrong)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_feedback")
        status = (await client.get("/v1/justenough/status")).json()
        assert status["calibration"]["threshold"] == 1.0

    gated(scenario)


@pytest.mark.parametrize(
    ("calibrated", "step"), [({}, 2), ({"patience": 2}, 3), ({"min_tokens": 6}, 3), ({"splitter": "tokens:2"}, 2)]
)
def test_splitter_patience_and_minimum_are_the_calibrations(calibrated: dict[str, Any], step: int) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        report = (await client.post("/v1/chat/completions", json=CHAT)).json()["justenough"]
        assert (report["decision"], report["step"]) == ("stopped", step)
        assert report["thought_tokens"] == 2 * step + 1

    thought = (*THOUGHT, *["more\n\n"] * 50)
    upstream = MockUpstream(
        thought=thought, logprobs=SURE_AT_STEP_2 if "splitter" not in calibrated else SURE_AT_STEP_2[1:]
    )
    gated(scenario, upstream, calibration=calibration_of(1.0, **calibrated))


def test_a_thought_in_which_no_step_ends_runs_on_and_says_so() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        whole = (await client.post("/v1/chat/completions", json=CHAT)).json()
        report = whole["justenough"]
        assert (report["decision"], report["reason"], report["notes"]) == ("finished", "no_step", ["no_step"])
        assert whole["choices"][0]["message"]["content"].endswith("</think>The answer is 42.")
        assert (await client.get("/v1/justenough/status")).json()["undecided"] == {"no_step": 1}
        assert 'justenough_undecided_total{note="no_step"} 1\n' in (await client.get("/metrics")).text

    gated(scenario, MockUpstream(thought=("all", " in", " one", " breath"), logprobs=(CONFIDENT,)))


def test_a_client_that_repeats_an_audited_request_is_not_audited_more_often() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        courses = []
        for _ in range(100):
            answer = await client.post("/v1/chat/completions", json=CHAT)
            courses.append(answer.json()["justenough"]["decision"])
        # 50 are expected, with a standard deviation of 5: beyond these limits fewer than once in a million runs.
        assert 25 <= courses.count("audited") <= 75

    gated(scenario, audit_share=0.5)


def test_other_paths_are_relayed_and_say_so_while_chats_are_gated() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for path in ("/v1/responses", "/v1/embeddings", "/v1/audio/speech", "/echo"):
            answer = await client.post(path, json={"model": "mock", "input": "x", "vendor": {"kept": 1}})
            reason = "members" if path == "/v1/responses" else "path"
            assert answer.headers["x-justenough"] == f"relayed; reason={reason}"
            assert mock.requests[-1].json() == {"model": "mock", "input": "x", "vendor": {"kept": 1}}
        models = await client.get("/v1/models")
        assert models.json()["data"][0]["id"] == "mock"
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert (await client.get("/ready")).status_code == 200

    gated(scenario)


@pytest.mark.parametrize("member", [{"logit_bias": {}}, {"mirostat": 2}, {"justenough": {"mode": "observe"}}])
def test_requests_that_a_client_shaped_do_not_move_the_alarm_for_drift(member: dict[str, Any]) -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        for _ in range(3):
            assert (await client.post("/v1/chat/completions", json={**CHAT, **member})).status_code == 200
        assert gateway.service.learning.drift.summary()["in_window"] == 0
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        assert gateway.service.learning.drift.summary()["in_window"] == 1

    gated(scenario)


def test_an_odd_client_keeps_the_gate_off_for_itself_only() -> None:
    async def scenario(gateway: Running, mock: MockUpstream, client: httpx.AsyncClient) -> None:
        decisions = {}
        for _ in range(REPEATS * WINDOW + 1):
            for key in ("odd", "other"):
                # The log-probabilities make the first step as unsure as the odd client wishes.
                mock.logprobs = (UNSURE,) if key == "odd" else (CONFIDENT,)
                headers = {"authorization": f"Bearer {key}"}
                answer = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
                decisions[key] = answer.json()["justenough"]
        assert (decisions["odd"]["decision"], decisions["odd"]["reason"]) == ("observed", "drift")
        assert (decisions["other"]["decision"], decisions["other"]["reason"]) == ("stopped", "confident")
        status = (await client.get("/v1/justenough/status")).json()
        assert (status["mode"], status["drift"]["drifted"], status["drift"]["drifted_clients"]) == ("gate", False, 1)

    # The other client's first steps have 0.03 bits.
    gated(scenario, calibration=calibration_of(5.0, mean=0.1, sd=0.2), client_keys=("odd", "other"))
