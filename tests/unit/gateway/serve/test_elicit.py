"""The request for the answer after a cut, for each kind of upstream, and its pieces."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any, cast

import msgspec
import pytest

from justenough.gateway.exchange import Exchange, Refused
from justenough.gateway.plan import Plan
from justenough.gateway.request import read_request
from justenough.gateway.serve import elicit
from justenough.gateway.serve.elicit import common_members, continuation, piece_of
from justenough.gateway.serve.work import Job
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.capability import Capabilities
from justenough.gateway.upstream.client import Upstream
from justenough.wire.chunks import Usage
from tests.unit.gateway.serving import calibration_of
from tests.unit.gateway.ways import CHAT

TEXT = "<think>Hm.</think>"
PATHS = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}


def job_of(kind: str = "chat", *, chat: Any = "prefill", engine: str = "vllm", **members: Any) -> Job:
    body = {**CHAT, **({"prompt": "What?"} if kind == "completion" else {}), **members}
    scope = {"method": "POST", "path": PATHS[kind], "query_string": b"", "headers": [(b"content-length", b"9")]}
    settings = GatewaySettings(upstream="http://x", calibration=calibration_of(1.0))
    return Job(
        exchange=Exchange(scope, cast("Any", None), cast("Any", None), max_body_bytes=1, timeout_s=1.0),
        request=read_request(PATHS[kind], json.dumps(body).encode(), []),
        plan=Plan(course="gate", gate=settings.gate),
        upstream=Upstream(settings),
        cascade=None,
        settings=settings,
        capabilities=Capabilities(engine=engine, models=("mock",), chat=chat),
    )


def sent(job: Job, *, left: int | None = None, top: int | None = None) -> tuple[str, dict[str, Any], str]:
    request = asyncio.run(continuation(job, TEXT, left=left, top=top))
    return request.target, json.loads(request.body), request.echo


def test_a_completion_continues_its_prompt() -> None:
    target, body, echo = sent(job_of("completion", logprobs=3, max_tokens=50), left=20)
    assert (target, echo) == ("/v1/completions", "")
    assert body["prompt"] == f"What?{TEXT}"
    assert body["max_tokens"] == 20
    assert "logprobs" not in body
    assert sent(job_of("completion"), top=5)[1]["logprobs"] == 5


@pytest.mark.parametrize("chat", ["prefill", "continue_final_message"])
def test_a_chat_continues_an_assistant_message(chat: str) -> None:
    target, body, echo = sent(job_of(chat=chat, logprobs=True, top_logprobs=2))
    assert target == "/v1/chat/completions"
    assert body["messages"] == [*CHAT["messages"], {"role": "assistant", "content": TEXT}]
    assert echo == (TEXT if chat == "prefill" else "")
    assert body.get("continue_final_message", False) is (chat == "continue_final_message")
    assert not {"logprobs", "top_logprobs", "max_tokens"} & set(body)
    assert sent(job_of(chat=chat), top=4)[1]["top_logprobs"] == 4


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
@pytest.mark.parametrize(
    ("prompt", "text"), [("<user>What?", TEXT), ("<user>What?<think>\n", "Hm.</think>")], ids=["closed", "open"]
)
def test_a_rendered_prompt_is_continued_and_never_opens_the_thought_twice(
    engine: str, prompt: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rendered(*_: Any, **__: Any) -> str:
        return prompt

    monkeypatch.setattr(elicit, "rendered", rendered)
    job = job_of(chat="template", engine=engine, max_completion_tokens=90, logprobs=True)
    target, body, echo = sent(job, left=40, top=3)
    assert (target, echo) == ("/v1/completions", "")
    assert body["prompt"] == prompt + text
    assert body["max_tokens"] == 40
    assert body["logprobs"] == 3
    assert not {"messages", "max_completion_tokens", "top_logprobs"} & set(body)
    assert ("add_special_tokens" in body) is (engine == "vllm")


def test_without_the_rendered_prompt_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any, **__: Any) -> None:
        return None

    monkeypatch.setattr(elicit, "rendered", nothing)
    with pytest.raises(Refused) as refused:
        sent(job_of(chat="template"))
    assert refused.value.code == "continuation_failed"


def test_only_the_clients_own_limits_are_replaced() -> None:
    job = job_of(max_tokens=50, n_predict=60)
    assert common_members(job, 7) == {
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "n_predict": 7,
    }
    assert "max_tokens" not in common_members(job, None)
    assert common_members(job_of(min_tokens=40), 7)["min_tokens"] == 7
    assert not {"min_tokens"} & {*common_members(job_of(min_tokens=40), 40), *common_members(job_of(), 7)}
    assert "max_tokens" not in common_members(job_of(), 7)


def test_the_job_has_the_gates_alternatives_and_an_output_for_the_client() -> None:
    job = job_of()
    assert job.top_k == 20
    signal = replace(job.plan.gate.signal, top_k=7)
    plan = replace(job.plan, gate=replace(job.plan.gate, signal=signal))
    assert replace(job, plan=plan).top_k == 7
    assert type(job.output()).__name__ == "WholeOutput"
    assert type(job_of(stream=True).output()).__name__ == "EventOutput"


def chunk(**members: Any) -> bytes:
    return msgspec.json.encode({"choices": [{"index": 0, **members}]})


def test_pieces_of_the_answer() -> None:
    piece = piece_of(chunk(delta={"content": "a", "reasoning_content": "b"}, finish_reason="stop"))
    assert (piece.text, piece.finish, piece.usage) == ("ba", "stop", None)
    assert piece_of(chunk(text="c")).text == "c"
    piece = piece_of(b'{"choices": [], "usage": {"completion_tokens": 4}}')
    assert (piece.text, piece.usage) == ("", Usage(completion_tokens=4))


@pytest.mark.parametrize(("payload", "how"), [(b"{", "not JSON"), (chunk(delta={"content": 1}), "not a chunk")])
def test_an_event_that_cannot_be_read_is_a_piece_that_says_so(payload: bytes, how: str) -> None:
    assert how in piece_of(payload).unreadable


def test_an_event_that_is_an_error_fails_the_answer() -> None:
    with pytest.raises(Refused, match="an error") as refused:
        piece_of(b'{"error": {"message": "x"}}')
    assert (refused.value.status, refused.value.code) == (502, "continuation_failed")


def test_a_piece_without_log_probabilities_may_hold_as_many_tokens_as_bytes() -> None:
    assert piece_of(chunk(delta={"content": "你好"})).unseen == 5
    assert piece_of(chunk(delta={}, finish_reason="stop")).unseen == 0
    exact = piece_of(chunk(delta={"content": "ab"}, logprobs={"content": [{"token": "a", "logprob": -1.0}] * 2}))
    assert (exact.tokens, exact.unseen) == (2, 0)
