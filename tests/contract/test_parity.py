"""One stream, three ways: the runner, the gateway and replay take the same steps and decisions and give one answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from justenough.backends.openai import OpenAIBackend
from justenough.backends.protocol import Backend, Request
from justenough.backends.replay import ReplayBackend
from justenough.gate import Decision, GateSettings, replay
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.stream.events import read
from justenough.gateway.stream.record import Steps
from justenough.gateway.stream.watch import Watch
from justenough.grading import Exact, Problem
from justenough.prompts import GENERAL, Prompts
from justenough.runner import Run, Runner, RunSettings
from justenough.signal.entropy import entropy_of
from justenough.signal.signal import Signal
from justenough.signal.thought import FORMATS, THINK, Phase, ThoughtFormat, thought_format
from justenough.testing import CONFIDENT, UNSURE, MockUpstream, Received
from tests.fakes import ScriptedBackend
from tests.unit.gateway.serving import calibration_of, running

PROBLEM: Final = Problem(id="p", problem="What is 6*7?", target="42", task="t")
BODY: Final[dict[str, Any]] = {
    "model": "mock",
    "messages": [{"role": "user", "content": "What is 6*7?"}],
    "justenough": {"decisions": True},
}
ELICITED: Final = ("Answer", ": 41")
"""What the model says where its thought was stopped."""
ELICITED_BY_CUE: Final = (" 41", ".")
"""The same after the cue, which begins the answer."""
THRESHOLD: Final = 1.0


@dataclass(frozen=True)
class Recorded:
    """A stream: each token with whether the model is sure of it."""

    tokens: Sequence[tuple[str, bool]]
    thought: ThoughtFormat = THINK
    field: str | None = None
    own: int = 0
    """Tokens that come in the field of the thought."""
    answer: str | None = "42"
    decided: int | None = None
    """Decisions inside the thought; None: not stated."""

    @property
    def prompts(self) -> Prompts:
        if self.thought.cue:
            return replace(GENERAL.with_thought(self.thought), name="test")
        return replace(GENERAL, name="test", close=f"\n{self.thought.close}\n", answer="", thought=self.thought)

    @property
    def elicited(self) -> Sequence[str]:
        return ELICITED_BY_CUE if self.thought.cue else ELICITED

    @property
    def gate(self) -> GateSettings:
        signal = Signal(logits="raw", temperature=0.8, splitter="paragraph")
        return GateSettings(threshold=THRESHOLD, signal=signal, shape="streaming", decide="every")


def unsure(*texts: str) -> list[tuple[str, bool]]:
    return [(text, False) for text in texts]


def sure(*texts: str) -> list[tuple[str, bool]]:
    return [(text, True) for text in texts]


THOUGHT: Final = unsure("So", " it", ".\n\n", "Hm", ".")
LONG_ANSWER: Final = sure("Well.\n\n", "I", " mean.\n\n", "Answer", ": 42", ".")
"""An answer of several paragraphs that the model is sure of: a gate that did not know its place would stop here."""

STREAMS: Final = {
    "tags": Recorded([*unsure("<think>"), *THOUGHT, *unsure("</think>"), *LONG_ANSWER], decided=1),
    "a sure step": Recorded(
        sure("<think>", "So.\n\n", "Hm.\n\n", *[text for text, _ in LONG_ANSWER]), answer="41", decided=1
    ),
    "split tags": Recorded(
        [*unsure("<", "thi", "nk>"), *THOUGHT, *unsure("</", "think", ">\n"), *LONG_ANSWER], decided=1
    ),
    "answer in the token of the tag": Recorded(
        [*unsure("<think>So", ".\n\n"), *unsure("Hm.</think>Well."), *LONG_ANSWER], decided=1
    ),
    "tag in the token of a boundary": Recorded([*unsure("<think>So.\n\n</think>"), *LONG_ANSWER], decided=0),
    "the thought ends at a boundary": Recorded(
        [*unsure("<think>", "So.\n\n", "Hm.\n\n", "</think>"), *LONG_ANSWER], decided=2
    ),
    "no thought": Recorded(LONG_ANSWER, decided=0),
    "an empty thought": Recorded([*sure("<think>", "\n\n", "</think>", "\n\n"), *LONG_ANSWER], decided=0),
    "a thought without an end": Recorded([*unsure("<think>"), *THOUGHT], answer=None, decided=1),
    "open in the prompt": Recorded(
        [*THOUGHT, *unsure("</think>"), *LONG_ANSWER], thought=FORMATS["think-opened"], decided=1
    ),
    "open in the prompt, and said again": Recorded(
        [*unsure("<think>"), *THOUGHT, *unsure("</think>"), *LONG_ANSWER], thought=FORMATS["think-opened"], decided=1
    ),
    "mistral": Recorded(
        [*unsure("[TH", "INK]"), *THOUGHT, *unsure("[/THINK]"), *LONG_ANSWER], thought=FORMATS["mistral"], decided=1
    ),
    "mistral, a sure step": Recorded(
        [*sure("[THINK]", "So.\n\n", "Hm"), *LONG_ANSWER], thought=FORMATS["mistral"], answer="41", decided=1
    ),
    "until a cue": Recorded(
        [*THOUGHT, *unsure(" Ans", "wer:"), *sure(" 42", "\n\n", "Yes.\n\n")],
        thought=thought_format("until:Answer:"),
        decided=1,
    ),
    "until a cue, a sure step": Recorded(
        [*sure("So.\n\n", "Hm"), *unsure(" Ans", "wer:"), *sure(" 42", "\n\n")],
        thought=thought_format("until:Answer:"),
        answer="41",
        decided=1,
    ),
    "until a cue of two words": Recorded(
        [*sure("So", " the fi", "nal.\n\n", "Hm ", "The final", " answer", " is 42.")],
        thought=thought_format("until:The final answer"),
        answer="41",
        decided=1,
    ),
    "behind a word": Recorded(
        [*unsure("Sure", "! <th", "ink>"), *THOUGHT, *unsure("</think>"), *LONG_ANSWER], decided=1
    ),
    "own tags": Recorded(
        [*unsure("<", "a>"), *THOUGHT, *unsure("</", "a>"), *LONG_ANSWER], thought=thought_format("<a> </a>"), decided=1
    ),
    "harmony, a sure step": Recorded(
        [*sure("<|channel|>", "analysis", "<|message|>", "So.\n\n", "Hm"), *LONG_ANSWER],
        thought=FORMATS["harmony"],
        answer="41",
        decided=1,
    ),
    "blank lines first": Recorded([*sure("<think>", "\n\n"), *THOUGHT, *unsure("</think>"), *LONG_ANSWER], decided=1),
    "a field of its own": Recorded([*THOUGHT, *LONG_ANSWER], field="reasoning_content", own=5, decided=1),
    "a sure step in a field of its own": Recorded(
        [*sure("So.\n\n", "Hm"), *LONG_ANSWER], field="reasoning", own=2, answer="41", decided=1
    ),
}


def mock_of(recorded: Recorded) -> MockUpstream:
    """An upstream that says the stream, and the elicited answer where a thought is continued."""
    texts = [text for text, _ in recorded.tokens]
    rows = [CONFIDENT if sure else UNSURE for _, sure in recorded.tokens]

    def on_request(request: Received) -> None:
        asked = request.json() if request.body else {}
        messages: Any = asked.get("messages") or [{}]
        continued = messages[-1].get("role") == "assistant"
        mock.thought = () if continued else texts[: recorded.own]
        mock.answer = recorded.elicited if continued else texts[recorded.own :]
        mock.logprobs = (CONFIDENT,) if continued else rows

    mock = MockUpstream(reasoning_field=recorded.field, on_request=on_request)
    return mock


@dataclass
class Taken:
    """What one way made of a stream."""

    decisions: list[tuple[int, str, float | None, int]] = field(default_factory=list)
    answer: str | None = None
    asked: list[str] = field(default_factory=list)
    """The closed thoughts that the model was sent."""


def row(decision: Decision) -> tuple[int, str, float | None, int]:
    return decision.step, decision.reason.value, decision.entropy, decision.tokens


def continued(mock: MockUpstream) -> list[str]:
    messages: list[Any] = [request.json()["messages"] for request in mock.completions]
    return [rows[-1]["content"] for rows in messages if rows[-1]["role"] == "assistant"]


async def through_gateway(recorded: Recorded) -> Taken:
    calibration = replace(calibration_of(THRESHOLD), prompts=recorded.prompts)
    async with mock_of(recorded) as mock:
        config = GatewaySettings(upstream=mock.url, calibration=calibration, audit_share=0.0)
        async with running(config) as gateway, httpx.AsyncClient(base_url=gateway.url, timeout=10) as client:
            whole = (await client.post("/v1/chat/completions", json=BODY)).json()
        content = whole["choices"][0]["message"]["content"]
        decisions = [
            (each["step"], each["reason"], each["entropy"], each["tokens"]) for each in whole["justenough"]["decisions"]
        ]
        return Taken(decisions, final_answer(recorded, content), continued(mock))


def final_answer(recorded: Recorded, content: str) -> str | None:
    """The answer that a client reads; a thought without an end has none."""
    format = recorded.thought
    if recorded.field is None and format.open and format.open in content and format.close not in content:
        return None
    return Exact().extract(format.answer_of(content))


async def run_on(backend: Backend, gate: GateSettings | None) -> Run:
    config = RunSettings(shape="streaming", max_steps=50)
    return await Runner(backend, config, grader=Exact(), gate=gate).run(PROBLEM)


async def through_runner(recorded: Recorded, gate: GateSettings | None) -> tuple[Run, Taken]:
    async with mock_of(recorded) as mock:
        backend = OpenAIBackend("mock", base_url=f"{mock.url}/v1", server="vllm")
        backend.prompts = recorded.prompts
        try:
            run = await run_on(backend, gate)
        finally:
            await backend.close()
        taken = Taken(list(map(row, run.decisions)), run.trace.steps[-1].answer, continued(mock))
    return run, taken


@pytest.mark.parametrize("name", STREAMS)
def test_runner_gateway_and_replay_agree(name: str) -> None:
    recorded = STREAMS[name]

    async def all_ways() -> None:
        gateway = await through_gateway(recorded)
        live, runner = await through_runner(recorded, recorded.gate)
        recording, _ = await through_runner(recorded, None)
        replayed = await run_on(ReplayBackend([recording.trace]), recorded.gate)
        assert len(gateway.decisions) == recorded.decided
        agree(gateway.decisions, live, replayed, recording, recorded.gate)
        assert gateway.answer == runner.answer == replayed.trace.steps[-1].answer == recorded.answer
        # Both send the same closed thought, in which its end stands once.
        assert all(text.count(recorded.thought.close) == 1 for text in (*gateway.asked, *runner.asked))
        assert [bare(text) for text in gateway.asked] == [bare(text) for text in runner.asked]
        assert len(runner.asked) == (recorded.answer == "41")

    asyncio.run(all_ways())


def bare(text: str) -> str:
    """Without the tag that a server took away, and that each way puts back with a line break or without."""
    return text.removeprefix("<think>").lstrip("\n")


def agree(
    gateway: Sequence[tuple[int, str, float | None, int]],
    live: Run,
    replayed: Run,
    recording: Run,
    gate: GateSettings,
) -> None:
    """The same decisions inside the thought, and the same steps live and replayed."""
    decisions = list(map(row, live.decisions))
    # The runner also decides on the rest of a thought that ended by itself; there the gateway has nothing to cut.
    assert decisions[: len(gateway)] == list(gateway)
    assert len(decisions) - len(gateway) in (0, 1)
    assert list(map(row, replayed.decisions)) == decisions
    assert [row(decision) for decision in replay(live.trace, gate)] == decisions
    assert [row(decision) for decision in replay(recording.trace, gate)] == decisions
    assert [(step.text, step.entropies, step.tokens) for step in live.trace.steps] == [
        (step.text, step.entropies, step.tokens) for step in replayed.trace.steps
    ]


def chunk(text: str, *, sure: bool, finish: str | None = None) -> Any:
    logprobs = [{"logprob": value} for value in (CONFIDENT if sure else UNSURE)]
    entry = {"token": text, "logprob": -0.1, "top_logprobs": logprobs}
    choice = {"delta": {"content": text}, "logprobs": {"content": [entry] if text else []}, "finish_reason": finish}
    return read(json.dumps({"choices": [choice]}))


def through_watch(recorded: Recorded) -> tuple[Watch, Steps]:
    """The gateway's decisions, and the steps that it records, of a stream that is not cut."""
    steps = Steps(recorded.gate)
    watch = Watch(recorded.gate, cut=False, thought=recorded.thought, record=steps)
    for text, is_sure in recorded.tokens:
        watch.take(chunk(text, sure=is_sure))
    watch.take(chunk("", sure=True, finish="stop"))
    return watch, steps


def scripted(recorded: Recorded) -> ScriptedBackend:
    def script(request: Request) -> list[tuple[str, float]]:
        if request.key[0].endswith("#answer"):
            return [(text, 0.0) for text in recorded.elicited]
        return [(text, entropy_of(CONFIDENT if is_sure else UNSURE)) for text, is_sure in recorded.tokens]

    backend = ScriptedBackend(script)
    backend.prompts = recorded.prompts
    return backend


words = st.sampled_from(["So", " it", ".", "\n\n", "\n", " <", "</", "/", "think", "[", ".\n\n", "Hm", " 42"])
formats = st.sampled_from([*FORMATS.values(), thought_format("until:Answer:")])


@st.composite
def streams(draw: st.DrawFn) -> Recorded:
    """A thought and an answer in one of the formats, split into tokens anywhere."""
    format = draw(formats)
    thought = "".join(draw(st.lists(words, max_size=10)))
    opening = "" if format.opened else draw(st.sampled_from(["", format.open, "\n" + format.open]))
    closing = draw(st.sampled_from(["", format.close, format.close]))
    text = f"{opening}{thought}{closing} It is.\n\nAnswer: 42.\n\n"
    cuts = sorted(draw(st.sets(st.integers(1, len(text) - 1), min_size=1, max_size=20)))
    texts = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return Recorded([(piece, draw(st.booleans())) for piece in texts], thought=format)


@settings(max_examples=150, deadline=None)
@given(streams())
@example(Recorded(sure("<think>So.\n\n</think>Answer: 42.\n\n")))
def test_the_ways_agree_however_a_text_is_split_into_tokens(recorded: Recorded) -> None:
    async def both() -> tuple[Run, Run, Run, list[str]]:
        backend = scripted(recorded)
        live = await run_on(backend, recorded.gate)
        asked = [request.messages[-1].content for request in backend.requests if request.continue_final]
        recording = await run_on(scripted(recorded), None)
        return live, recording, await run_on(ReplayBackend([recording.trace]), recorded.gate), asked

    live, recording, replayed, asked = asyncio.run(both())
    watch, steps = through_watch(recorded)
    agree(list(map(row, watch.decisions)), live, replayed, recording, recorded.gate)
    # After the last step a recording holds the model's own answer, in place of the one that a stop would elicit.
    if len(live.trace.steps) < len(recording.trace.steps):
        assert replayed.trace.steps[-1].answer == live.trace.steps[-1].answer
    assert all(text.count(recorded.thought.close) == 1 for text in asked)
    if watch.stopped is not None:
        assert live.trace.steps[-1].answer == "41"
    elif watch.phase is Phase.ANSWERING:
        assert live.trace.steps[-1].answer == "42"
    text = "".join(text for text, _ in recorded.tokens)
    words = text.lstrip().removeprefix(recorded.thought.open).partition(recorded.thought.close)[0]
    if watch.thought and words.strip():
        steps.finish()
        # The gateway records the same steps of a whole thought as the runner.
        assert [(step.tokens, step.entropies) for step in steps.done] == [
            (step.tokens, step.entropies) for step in recording.trace.steps
        ]
