"""Formats of thoughts through the whole gateway: each is cut at its step, closed in its own tags, and answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import httpx
import pytest

from justenough.gateway.settings import GatewaySettings
from justenough.prompts import GENERAL, OPENED
from justenough.signal.thought import ANY, FORMATS, THINK, ThoughtFormat, thought_format
from justenough.testing import CONFIDENT, UNSURE, MockUpstream, Received
from tests.unit.gateway.serving import Running, calibration_of, running

CHAT: Final[dict[str, Any]] = {"model": "mock", "messages": [{"role": "user", "content": "What is 6*7?"}]}
TEXT: Final[dict[str, Any]] = {"model": "mock", "prompt": "What is 6*7?"}
PATHS: Final = {"/v1/chat/completions": CHAT, "/v1/completions": TEXT}
THOUGHT: Final = ("Let me think", ".\n\n", "So it is", " 42.\n\n", "Yes", ", 42.\n\n")
CUT: Final = "".join(THOUGHT[:4])
ANSWER: Final = "The answer is 42."
SURE: Final = (UNSURE, UNSURE, UNSURE, CONFIDENT)
"""The model is sure from its second paragraph on."""
FIELDS: Final = ("reasoning_content", "reasoning", "thinking", "reasoning_text", "thought")
SHAPES: Final = [(path, stream) for path in PATHS for stream in (False, True)]


@asynccontextmanager
async def gateway_before(mock: MockUpstream, **settings: Any) -> AsyncIterator[tuple[Running, httpx.AsyncClient]]:
    base = GatewaySettings(upstream=mock.url, calibration=calibration_of(1.0), audit_share=0.0)
    async with (
        running(replace(base, **settings)) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
    ):
        yield gateway, client


class Said:
    """What a client reads: the texts by their field, and the gateway's report."""

    def __init__(self, answer: httpx.Response, *, stream: bool) -> None:
        assert answer.status_code == 200, answer.text
        events = [] if stream else [answer.json()]
        if stream:
            assert answer.text.endswith("data: [DONE]\n\n")
            lines = [line for line in answer.text.split("\n\n") if line and "[DONE]" not in line]
            events = [json.loads(line.removeprefix("data: ")) for line in lines]
        self.texts: dict[str, str] = {}
        self.report: dict[str, Any] = {}
        for event in events:
            for row in event["choices"]:
                part = row.get("delta") or row.get("message") or {"content": row.get("text")}
                for key, text in part.items():
                    text = "".join(map(text_of, text)) if isinstance(text, list) else text
                    self.texts[key] = self.texts.get(key, "") + (text or "")
                self.report = event.get("justenough") or self.report

    @property
    def content(self) -> str:
        return self.texts.get("content", "")


def text_of(part: dict[str, Any]) -> str:
    value = part.get("thinking") or part.get("text") or ""
    return "".join(map(text_of, value)) if isinstance(value, list) else value


async def ask(client: httpx.AsyncClient, path: str, *, stream: bool, mode: str = "gate", **members: Any) -> Said:
    body = {**PATHS[path], "stream": stream, "justenough": {"mode": mode}, **members}
    return Said(await client.post(path, json=body), stream=stream)


def continued(mock: MockUpstream) -> str:
    """The text from which the model went on."""
    body: Any = mock.completions[-1].json()
    text: str = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
    return text


def scripted(
    texts: Sequence[str], *, logprobs: Sequence[Any] = SURE, answer: Sequence[str] = (ANSWER,)
) -> MockUpstream:
    """A server that writes these tokens, and the answer where a thought is continued."""

    def on_request(request: Received) -> None:
        body: Any = request.json() if request.body else {}
        last = (body.get("messages") or [{}])[-1]
        goes_on = last.get("role") == "assistant" or len(body.get("prompt") or "") > len(TEXT["prompt"]) + 20
        mock.answer, mock.logprobs = (answer, (CONFIDENT,)) if goes_on else (texts, logprobs)

    mock = MockUpstream(thought=(), on_request=on_request)
    return mock


@pytest.mark.parametrize("format", ANY, ids=[format.open for format in ANY])
def test_every_format_is_cut_closed_in_its_own_tags_and_answered(format: ThoughtFormat) -> None:
    async def scenario() -> None:
        async with (
            MockUpstream(format=format, thought=THOUGHT, logprobs=SURE) as mock,
            gateway_before(mock) as (_, client),
        ):
            for path, stream in SHAPES:
                for mode in ("off", "observe"):
                    said = await ask(client, path, stream=stream, mode=mode)
                    assert said.content == f"{format.open}{''.join(THOUGHT)}{format.close}{ANSWER}"
                said = await ask(client, path, stream=stream)
                assert (said.report["decision"], said.report["step"]) == ("stopped", 2)
                assert said.content == f"{format.open}{CUT}{format.closing}{ANSWER}"
                assert continued(mock).endswith(f"{format.open}{CUT}{format.closing}")

    asyncio.run(scenario())


@pytest.mark.parametrize("before", [("",), ("\n\n",), ("Okay. ",)])
@pytest.mark.parametrize("opening", [("<think>",), ("<", "thi", "nk>"), ("<|START_", "THINKING|>")])
def test_tags_split_over_tokens_and_behind_a_word(before: tuple[str, ...], opening: tuple[str, ...]) -> None:
    format = next(format for format in ANY if format.open == "".join(opening))
    texts = [*before, *opening, *THOUGHT, format.close, "No."]
    unsure = len(before) + len(opening) + 2

    async def scenario() -> None:
        async with (
            scripted(texts, logprobs=[UNSURE] * unsure + [CONFIDENT]) as mock,
            gateway_before(mock) as (_, client),
        ):
            for path, stream in SHAPES:
                said = await ask(client, path, stream=stream)
                assert said.content == f"{before[0]}{format.open}{CUT}{format.closing}{ANSWER}"

    asyncio.run(scenario())


@pytest.mark.parametrize("engine", ["vllm", "llama.cpp"])
@pytest.mark.parametrize("name", ["think", "mistral", "seed"])
@pytest.mark.parametrize("prefill", [True, False])
def test_a_thought_that_the_chat_template_opens(engine: Any, name: str, prefill: bool) -> None:
    format = replace(FORMATS[name], opened=True)

    async def scenario() -> None:
        mock = MockUpstream(
            format=format, thought=THOUGHT, logprobs=(UNSURE, UNSURE, CONFIDENT), engine=engine, prefill=prefill
        )
        async with mock, gateway_before(mock) as (_, client):
            for stream in (False, True):
                said = await ask(client, "/v1/chat/completions", stream=stream)
                assert (said.report["decision"], said.report["step"]) == ("stopped", 2)
                assert said.content == f"{CUT}{format.closing}{ANSWER}"
                # The tag stands once, whether the message has it or the rendered prompt.
                assert continued(mock).count(format.open) == 1
                assert continued(mock).endswith(f"{CUT}{format.closing}")

    asyncio.run(scenario())


@pytest.mark.parametrize("prefill", [True, False])
def test_a_thought_that_the_template_opens_and_the_server_keeps_apart(prefill: bool) -> None:
    async def scenario() -> None:
        mock = MockUpstream(
            format=replace(THINK, opened=True),
            thought=THOUGHT,
            logprobs=(UNSURE, UNSURE, CONFIDENT),
            reasoning_field="reasoning",
            prefill=prefill,
        )
        async with mock, gateway_before(mock) as (_, client):
            for stream in (False, True):
                said = await ask(client, "/v1/chat/completions", stream=stream)
                assert (said.texts["reasoning"], said.content) == (CUT, ANSWER)
                assert continued(mock).count("<think>") == 1
                assert continued(mock).endswith(f"{CUT}{THINK.closing}")

    asyncio.run(scenario())


@pytest.mark.parametrize("tag", ["<think>\n", "[THINK]", "<reasoning>\n\n"])
def test_a_thought_that_the_clients_prompt_opens(tag: str) -> None:
    format = next(format for format in ANY if format.open == tag.strip())

    async def scenario() -> None:
        mock = MockUpstream(format=format, thought=THOUGHT, logprobs=(UNSURE, UNSURE, CONFIDENT))
        async with mock, gateway_before(mock) as (_, client):
            for stream in (False, True):
                prompt = f"What is 6*7?{tag}"
                said = await ask(client, "/v1/completions", stream=stream, prompt=prompt)
                assert said.report["decision"] == "stopped"
                assert said.content == f"{CUT}{format.closing}{ANSWER}"
                assert continued(mock) == f"{prompt}{CUT}{format.closing}"

    asyncio.run(scenario())


def test_a_prompt_that_does_not_open_the_thought_has_none_whatever_the_calibration_says() -> None:
    calibration = replace(calibration_of(1.0), prompts=OPENED)

    async def scenario() -> None:
        async with (
            scripted(["It is 42.\n\n"] * 20, logprobs=(CONFIDENT,)) as mock,
            gateway_before(mock, calibration=calibration) as (_, client),
        ):
            said = await ask(client, "/v1/completions", stream=False)
            assert (said.report["decision"], said.report["reason"]) == ("finished", "no_thought")

    asyncio.run(scenario())


def test_a_client_that_turns_the_thought_off_gets_its_whole_answer() -> None:
    """The template of the mock opens the thought, except where its client shapes the template."""
    format = replace(THINK, opened=True)

    async def scenario() -> None:
        def on_request(request: Received) -> None:
            shaped = b"chat_template_kwargs" in request.body
            mock.format = replace(format, opened=not shaped)
            mock.thought = () if shaped else THOUGHT

        mock = MockUpstream(format=format, answer=["Yes.\n\n"] * 20, on_request=on_request)
        async with mock, gateway_before(mock) as (_, client):
            for _ in range(2):
                kwargs = {"enable_thinking": False}
                said = await ask(client, "/v1/chat/completions", stream=True, chat_template_kwargs=kwargs)
                assert said.report["reason"] == "no_thought"
                assert said.content == "Yes.\n\n" * 20
            said = await ask(client, "/v1/chat/completions", stream=True)
            assert said.report["decision"] == "stopped"
        # The server is asked once how such a prompt ends.
        assert sum(b"enable_thinking" in each.body for each in mock.requests if "tokenize" in each.target) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "member",
    [
        {"reasoning_effort": "none"},
        {"think": False},
        {"thinking": {"type": "disabled"}},
        {"thinking_budget": 0},
        {"thinking_budget_tokens": 0},
        {"thinking_token_budget": 0},
        {"reasoning_budget": 0},
        {"reasoning_budget_tokens": 0},
        {"reasoning": {"effort": "low", "max_tokens": 0}},
        {"thinking": {"type": "enabled", "budget_tokens": 0.0}},
    ],
)
def test_a_switch_for_the_thought_leaves_an_answer_without_tags_whole(member: dict[str, Any]) -> None:
    async def scenario() -> None:
        mock = MockUpstream(format=replace(THINK, opened=True), answer=["Yes.\n\n"] * 20, logprobs=(CONFIDENT,))
        mock.on_request = lambda request: setattr(mock, "thought", () if b"Say OK" not in request.body else THOUGHT)
        async with mock, gateway_before(mock) as (_, client):
            said = await ask(client, "/v1/chat/completions", stream=False, **member)
            assert (said.report["reason"], said.content) == ("no_thought", "Yes.\n\n" * 20)

    asyncio.run(scenario())


@pytest.mark.parametrize("member", [{"thinking_budget": 10}, {"reasoning": {"max_tokens": 200}}, {"thinking": None}])
def test_a_budget_for_the_thought_does_not_turn_it_off(member: dict[str, Any]) -> None:
    async def scenario() -> None:
        mock = MockUpstream(format=replace(THINK, opened=True), thought=THOUGHT, logprobs=(UNSURE, UNSURE, CONFIDENT))
        async with mock, gateway_before(mock) as (_, client):
            said = await ask(client, "/v1/chat/completions", stream=False, **member)
            assert (said.report["decision"], said.report["step"]) == ("stopped", 2)

    asyncio.run(scenario())


def test_a_tag_among_the_log_probabilities_shows_the_format() -> None:
    """vLLM takes the tag out of the text, but not out of the log-probabilities."""

    def parsed(text: str, thought: bool) -> dict[str, Any]:
        if text in ("<think>", "</think>"):
            return {}
        return {"reasoning" if thought else "content": text}

    async def scenario() -> None:
        mock = MockUpstream(
            format=ThoughtFormat(open="<x>", close="</x>"),
            thought=["<think>", *THOUGHT],
            logprobs=SURE,
            reasoning_field="reasoning",
            delta=parsed,
        )
        async with mock, gateway_before(mock) as (_, client):
            said = await ask(client, "/v1/chat/completions", stream=True)
            assert (said.report["decision"], said.texts["reasoning"]) == ("stopped", CUT)
            assert continued(mock) == f"<think>\n{CUT}\n</think>\n\n"

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["think", "harmony", "mistral"])
@pytest.mark.parametrize("field", FIELDS)
def test_a_thought_in_a_field_is_continued_in_the_tags_that_the_template_shows(field: str, name: str) -> None:
    format = FORMATS[name]

    async def scenario() -> None:
        mock = MockUpstream(format=format, thought=THOUGHT, logprobs=(UNSURE, UNSURE, CONFIDENT), reasoning_field=field)
        async with mock, gateway_before(mock) as (gateway, client):
            assert gateway.service.capabilities is not None
            assert gateway.service.capabilities.thought == format
            for stream in (False, True):
                said = await ask(client, "/v1/chat/completions", stream=stream)
                assert said.report["decision"] == "stopped"
                assert (said.texts[field], said.content) == (CUT, ANSWER)
                assert continued(mock) == f"{format.with_tag(CUT)}{format.closing}"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("settings", "format"),
    [
        ({"thought": FORMATS["kimi"]}, FORMATS["kimi"]),
        ({"thought": thought_format("<a> </a>")}, thought_format("<a> </a>")),
        ({"calibration": replace(calibration_of(1.0), prompts=GENERAL)}, THINK),
        ({}, None),
    ],
    ids=["preset", "own tags", "calibration", "unknown"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_without_known_tags_a_thought_in_a_field_is_not_cut(
    settings: dict[str, Any], format: ThoughtFormat | None, stream: bool
) -> None:
    async def scenario() -> None:
        mock = MockUpstream(
            format=ThoughtFormat(open="<x>", close="</x>"),
            thought=THOUGHT,
            logprobs=(UNSURE, UNSURE, CONFIDENT),
            reasoning_field="reasoning",
        )
        async with mock, gateway_before(mock, **settings) as (_, client):
            said = await ask(client, "/v1/chat/completions", stream=stream)
            if format is not None:
                assert said.report["decision"] == "stopped"
                assert continued(mock).startswith(format.with_tag(CUT) + format.closing)
                return
            assert (said.report["decision"], said.report["notes"]) == ("finished", ["unknown_tags"])
            assert (said.texts["reasoning"], said.content) == ("".join(THOUGHT), ANSWER)
            assert len(mock.completions) == 1
            status = (await client.get("/v1/justenough/status")).json()
            assert status["undecided"] == {"unknown_tags": 1}
            assert "--thought" in status["hints"]["unknown_tags"]
            metrics = (await client.get("/metrics")).text
            assert 'justenough_undecided_total{note="unknown_tags"} 1' in metrics

    asyncio.run(scenario())


def test_a_sequence_does_not_continue_a_thought_with_unknown_tags() -> None:
    calibration = calibration_of(1.0, shape="sequential", splitter="completion")

    async def scenario() -> None:
        mock = MockUpstream(
            format=ThoughtFormat(open="<x>", close="</x>"),
            thought=THOUGHT,
            logprobs=(UNSURE,),
            reasoning_field="reasoning",
        )
        async with mock, gateway_before(mock, calibration=calibration, extend="wait") as (_, client):
            for stream in (False, True):
                said = await ask(client, "/v1/chat/completions", stream=stream)
                assert (said.content, said.report["notes"]) == (ANSWER, ["unknown_tags"])
            status = (await client.get("/v1/justenough/status")).json()
            assert status["undecided"] == {"unknown_tags": 2}
            assert len(mock.completions) == 2

    asyncio.run(scenario())


def test_an_answer_without_a_thought_is_counted_with_a_hint() -> None:
    async def scenario() -> None:
        async with MockUpstream(thought=()) as mock, gateway_before(mock) as (_, client):
            said = await ask(client, "/v1/chat/completions", stream=False)
            assert said.report["reason"] == "no_thought"
            status = (await client.get("/v1/justenough/status")).json()
            assert status["undecided"] == {"no_thought": 1}
            assert "--thought" in status["hints"]["no_thought"]
            assert 'justenough_undecided_total{note="no_thought"} 1' in (await client.get("/metrics")).text

    asyncio.run(scenario())


@pytest.mark.parametrize("opening", [("<think>", "\n\n"), ("<think>\n\n",), ("<think>", "\n", "\n")])
@pytest.mark.parametrize("splitter", ["paragraph", "sentence", "tokens:1", "tokens:2"])
def test_an_empty_thought_is_not_cut(opening: tuple[str, ...], splitter: str) -> None:
    texts = [*opening, "</think>", "\n\n", "It is", " 42.\n\n", "Yes.\n\n"]
    logprobs = [CONFIDENT] * (len(opening) + 1) + [UNSURE]

    async def scenario() -> None:
        calibration = calibration_of(1.0, splitter=splitter)
        async with (
            scripted(texts, logprobs=logprobs) as mock,
            gateway_before(mock, calibration=calibration) as (_, client),
        ):
            for path, stream in SHAPES:
                said = await ask(client, path, stream=stream)
                assert (said.report["decision"], said.content) == ("finished", "".join(texts))
            assert len(mock.completions) == len(SHAPES)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<Think>", ("</think>",)),
        ("<think>", ("</Think>",)),
        ("<think>", ("</think", " >")),
        ("[THINK]", ("[/think]",)),
    ],
)
def test_an_answer_behind_a_closing_tag_in_other_letters_is_not_cut(opening: str, closing: tuple[str, ...]) -> None:
    texts = [opening, "Hm", ".\n\n", *closing, "Yes", ".\n\n", "It is", " 42.\n\n", "Really.\n\n"]

    async def scenario() -> None:
        logprobs = [UNSURE] * (3 + len(closing)) + [CONFIDENT]
        async with scripted(texts, logprobs=logprobs) as mock, gateway_before(mock) as (_, client):
            for path, stream in SHAPES:
                said = await ask(client, path, stream=stream)
                assert (said.report["decision"], said.content) == ("finished", "".join(texts))
            assert len(mock.completions) == len(SHAPES)

    asyncio.run(scenario())


def test_an_empty_thought_in_a_field_is_not_cut() -> None:
    async def scenario() -> None:
        mock = MockUpstream(
            thought=["\n\n"],
            answer=["Yes", ".\n\n"] * 5,
            logprobs=(CONFIDENT, UNSURE),
            reasoning_field="reasoning_content",
        )
        async with mock, gateway_before(mock) as (_, client):
            for stream in (False, True):
                said = await ask(client, "/v1/chat/completions", stream=stream)
                assert (said.report["decision"], said.content) == ("finished", "Yes.\n\n" * 5)
            assert len(mock.completions) == 2

    asyncio.run(scenario())


def test_blank_lines_at_the_beginning_are_no_step() -> None:
    texts = ["<think>", "\n\n", "Hm", ".\n\n", "So", ".\n\n", "</think>", "42"]

    async def scenario() -> None:
        async with (
            scripted(texts, logprobs=[CONFIDENT, CONFIDENT, *[UNSURE] * 6]) as mock,
            gateway_before(mock) as (_, client),
        ):
            for path, stream in SHAPES:
                said = await ask(client, path, stream=stream)
                assert (said.report["decision"], said.content) == ("finished", "".join(texts))

    asyncio.run(scenario())


@pytest.mark.parametrize("cue", ["Answer:", "Final answer:"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_a_thought_without_tags_is_cut_and_answered_with_its_cue(cue: str, calibrated: bool) -> None:
    format = thought_format(f"until:{cue}")
    texts = [*THOUGHT, cue, " 41.\n\n", "Sure.\n\n"]
    settings: dict[str, Any] = {"thought": format}
    if calibrated:
        settings = {"calibration": replace(calibration_of(1.0), prompts=GENERAL.with_thought(format))}

    async def scenario() -> None:
        async with (
            scripted(texts, logprobs=(UNSURE, UNSURE, CONFIDENT), answer=(" 42.",)) as mock,
            gateway_before(mock, **settings) as (_, client),
        ):
            for path, stream in SHAPES:
                said = await ask(client, path, stream=stream)
                assert said.report["decision"] == "stopped"
                assert said.content == f"{CUT}\n\n{cue} 42."
                assert continued(mock).endswith(f"{CUT}\n\n{cue}")
                for mode in ("off", "observe"):
                    assert (await ask(client, path, stream=stream, mode=mode)).content == "".join(texts)

    asyncio.run(scenario())


def test_an_answer_after_its_cue_is_not_cut() -> None:
    texts = ["So", " An", "swer:", " 42.\n\n", "Sure.\n\n", "Yes.\n\n"]

    async def scenario() -> None:
        async with (
            scripted(texts, logprobs=(CONFIDENT,)) as mock,
            gateway_before(mock, thought=thought_format("until:Answer:")) as (_, client),
        ):
            for path, stream in SHAPES:
                said = await ask(client, path, stream=stream)
                assert (said.report["decision"], said.content) == ("finished", "".join(texts))

    asyncio.run(scenario())


def twice(text: str, thought: bool) -> dict[str, Any]:
    return {"reasoning": text, "reasoning_content": text} if thought else {"content": text}


@pytest.mark.parametrize("shape", ["streaming", "sequential"])
def test_a_thought_under_two_names_is_counted_and_sent_once(shape: Any) -> None:
    splitter = "paragraph" if shape == "streaming" else "completion"
    calibration = replace(calibration_of(1.0, shape=shape, splitter=splitter), prompts=GENERAL)

    async def scenario() -> None:
        mock = MockUpstream(
            thought=THOUGHT, logprobs=(UNSURE, UNSURE, CONFIDENT), reasoning_field="reasoning", delta=twice
        )
        async with mock, gateway_before(mock, calibration=calibration) as (_, client):
            for stream in (False, True):
                said = await ask(client, "/v1/chat/completions", stream=stream)
                assert said.report["decision"] == "stopped"
                if shape == "streaming":
                    assert (said.texts["reasoning"], said.texts["reasoning_content"]) == (CUT, CUT)
                    assert said.report["thought_tokens"] == 4
                    assert continued(mock) == f"<think>\n{CUT}{GENERAL.close}{GENERAL.answer}"
                else:
                    assert said.texts["reasoning_content"] == "".join(THOUGHT) + ANSWER

    asyncio.run(scenario())


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("shape", ["streaming", "sequential"])
def test_a_thought_in_its_field_and_again_in_the_content_is_read_once(shape: Any, joined: bool) -> None:
    """llama.cpp's `deepseek-legacy`: the content has the tags."""
    tags = {THOUGHT[0]: f"<think>{THOUGHT[0]}", "The answer": "</think>The answer"} if joined else {}
    texts = [*THOUGHT, "</think>"] if not joined else THOUGHT

    def legacy(text: str, thought: bool) -> dict[str, Any]:
        shown = {"reasoning_content": text} if thought and "think>" not in text else {}
        return {**shown, "content": tags.get(text, text)}

    splitter = "paragraph" if shape == "streaming" else "completion"
    calibration = calibration_of(1.0, shape=shape, splitter=splitter)

    async def scenario() -> None:
        mock = MockUpstream(
            thought=texts if joined else ["<think>", *texts],
            logprobs=(UNSURE,) * (2 if joined or shape == "sequential" else 3) + (CONFIDENT,),
            reasoning_field="reasoning_content",
            delta=legacy,
        )
        async with mock, gateway_before(mock, calibration=calibration) as (_, client):
            for stream in (False, True):
                said = await ask(client, "/v1/chat/completions", stream=stream)
                assert said.report["decision"] == "stopped"
                if shape == "streaming":
                    answer = legacy("The answer", False)["content"] + " is 42."
                    assert said.content == f"<think>{CUT}\n</think>\n\n{answer}"
                    assert continued(mock) == f"<think>{CUT}\n</think>\n\n"
                else:
                    assert said.texts["reasoning_content"] == f"<think>{''.join(THOUGHT)}</think>{ANSWER}"

    asyncio.run(scenario())


def of_mistral(text: str, thought: bool) -> dict[str, Any]:
    inner = [{"type": "text", "text": text}]
    return {"content": [{"type": "thinking", "thinking": inner}] if thought else text}


def of_others(text: str, thought: bool) -> dict[str, Any]:
    return {"content": [{"type": "reasoning" if thought else "text", "text": text}]}


@pytest.mark.parametrize("delta", [of_mistral, of_others])
def test_a_thought_in_parts_of_the_content(delta: Any) -> None:
    async def scenario() -> None:
        mock = MockUpstream(
            format=FORMATS["mistral"],
            thought=THOUGHT,
            logprobs=(UNSURE, UNSURE, CONFIDENT),
            reasoning_field="reasoning",
            delta=delta,
        )
        async with mock, gateway_before(mock) as (_, client):
            for mode in ("off", "observe"):
                said = await ask(client, "/v1/chat/completions", stream=True, mode=mode)
                assert said.content == "".join(THOUGHT) + ANSWER
                assert "notes" not in said.report
            for stream in (False, True):
                said = await ask(client, "/v1/chat/completions", stream=stream)
                assert (said.report["decision"], said.content) == ("stopped", CUT + ANSWER)
                assert continued(mock) == f"[THINK]\n{CUT}\n[/THINK]\n\n"

    asyncio.run(scenario())
