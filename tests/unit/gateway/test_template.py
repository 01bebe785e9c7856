"""A chunk taken apart by comparing bytes says exactly what it says as JSON, and the gate decides alike on it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.gate import GateSettings
from justenough.gateway.chunk import read_chunk
from justenough.gateway.mock import CONFIDENT, UNSURE, MockUpstream
from justenough.gateway.template import Template
from justenough.gateway.watch import Watch
from justenough.signals import Signal
from tests.unit.gateway.ways import CHAT, faulty

TEXTS = st.sampled_from(
    [
        "a",
        " b",
        "<think>",
        "</think>",
        "</",
        "think>",
        "\n\n",
        '"',
        "\\",
        '"},"logprobs":',
        "\x01",
        "ü",
        "😀",
        "",
        "so. ",
    ]
) | st.text(max_size=3)
ROWS = st.sampled_from([CONFIDENT, UNSURE, CONFIDENT[:3], ()])
TOKENS = st.lists(st.tuples(TEXTS, ROWS), max_size=12)


def payload(text: str, row: Any, *, field: str = "content", order: str = "first", members: Any = None) -> bytes:
    """A chunk as one kind of server writes it, by where it puts the log-probabilities."""
    top = [{"token": "x", "logprob": value, "bytes": None} for value in row]
    entry = {"token": text, "logprob": -0.1, "bytes": None, "top_logprobs": top}
    said: dict[str, Any] = {"text": text} if field == "text" else {"delta": {field: text}}
    logprobs = {"logprobs": {"content": [entry]}}
    choice = {"index": 0} | (said | logprobs if order == "first" else logprobs | said) | {"finish_reason": None}
    chunk = {"id": "x", "choices": [choice]} | (members or {})
    return json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode()


def watch(field: str) -> Watch:
    gate = GateSettings(
        threshold=1.0, shape="streaming", signal=Signal(splitter="paragraph"), decide="every", max_steps=10**9
    )
    followed = Watch(gate, cut=False)
    followed.take(read_chunk(payload("<think>" if field in ("content", "text") else "So", CONFIDENT, field=field)))
    return followed


def take(followed: Watch, template: Template | None, data: bytes) -> Template | None:
    """As the gateway does."""
    if template is not None and followed.waits(reasoning=template.reasoning) and (found := template.read(data)):
        text, logprobs, bare = found
        whole = json.loads(data)
        choice = whole["choices"][0]
        assert json.loads(logprobs) == choice.pop("logprobs")
        assert json.loads(bare) == whole
        assert text == choice.get("delta", choice)[field_of(choice)]
        followed.take_later(text, logprobs)
        return template
    chunk = read_chunk(data)
    followed.take(chunk)
    return Template.of(data, chunk) or template


def field_of(choice: dict[str, Any]) -> str:
    return next(iter(choice["delta"])) if "delta" in choice else "text"


@given(
    TOKENS, st.sampled_from(["content", "reasoning_content", "reasoning", "text"]), st.sampled_from(["first", "last"])
)
@settings(max_examples=200)
def test_a_stream_taken_by_its_template_is_followed_as_one_read_as_json(
    tokens: list[tuple[str, Any]], field: str, order: str
) -> None:
    quick, plain = watch(field), watch(field)
    template = None
    for text, row in [*tokens, ("\n\n", CONFIDENT)]:
        data = payload(text, row, field=field, order=order)
        template = take(quick, template, data)
        plain.take(read_chunk(data))
    end = read_chunk(b'{"choices":[{"delta":{},"finish_reason":"stop"}]}')
    quick.take(end)
    plain.take(end)
    for name in ("phase", "tokens", "thought_tokens", "decisions", "stopped_at", "stopped_text", "text", "entries"):
        assert getattr(quick, name) == getattr(plain, name), name
    assert set(quick.notes) == set(plain.notes)


def test_the_servers_plain_tokens_take_the_quick_way() -> None:
    first = payload("a", CONFIDENT)
    template = Template.of(first, read_chunk(first))
    assert template is not None
    assert template.read(payload("b", UNSURE)) is not None


@pytest.mark.parametrize(
    "other",
    [
        payload("a\n", CONFIDENT),
        payload("b", CONFIDENT, members={"usage": {"completion_tokens": 1}}),
        payload("b", CONFIDENT, field="reasoning"),
        payload("b", CONFIDENT).replace(b'"finish_reason":null', b'"finish_reason":"stop"'),
        payload("b", CONFIDENT).replace(b"]}]}", b'],"vendor":1}]}'),
        payload("b", CONFIDENT).replace(b"]}]}", b']}]},"vendor":{"x":1}'),
        payload("b", CONFIDENT).replace(b'{"content":[{', b'{"content":[{"top_logprobs":[]},{'),
    ],
)
def test_what_is_not_like_the_others_is_read_as_json(other: bytes) -> None:
    first = payload("a", CONFIDENT)
    template = Template.of(first, read_chunk(first))
    assert template is not None
    assert template.read(other) is None


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"choices":[]}',
        b'{"choices":[{"delta":{"content":"a"}}]}',
        payload("a", CONFIDENT, members={"usage": {"completion_tokens": 1}}),
        payload("a", CONFIDENT).replace(b'"finish_reason":null', b'"finish_reason":"stop"'),
        payload("a", CONFIDENT).replace(b'"content":"a"', b'"content":"a","reasoning":"b"'),
        payload("a", CONFIDENT, order="last"),
    ],
)
def test_no_template_is_made_of_a_chunk_that_is_not_one_plain_token(chunk: bytes) -> None:
    assert Template.of(chunk, read_chunk(chunk)) is None


@pytest.mark.parametrize("quick", [True, False])
def test_either_way_a_thought_is_stopped_and_answered_alike(quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    later = Watch.take_later

    def take_later(self: Watch, text: str, logprobs: bytes) -> bool:
        taken.append(text)
        return later(self, text, logprobs)

    monkeypatch.setattr(Watch, "take_later", take_later)
    if not quick:
        monkeypatch.setattr(Template, "of", lambda payload, chunk: None)

    async def scenario() -> tuple[str, dict[str, Any]]:
        mock = MockUpstream(thought=["Let ", "me ", "see", ".\n\n", "So ", "it ", "is", ".\n\n"], engine="llama.cpp")
        async with faulty("streaming", mock) as (_, client):
            asked = CHAT | {"stream": True, "justenough": {"decisions": True}}
            events = (await client.post("/v1/chat/completions", json=asked)).text.split("\n\n")
        chunks = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]
        said = "".join([row["delta"].get("content") or "" for chunk in chunks for row in chunk["choices"]])
        return said, chunks[-1]["justenough"]

    said, report = asyncio.run(scenario())
    assert bool(taken) is quick
    assert said.startswith("<think>Let me see.\n\n</think>")
    assert (report["decision"], report["step"], report["tokens"] - report["probe_tokens"]) == ("stopped", 1, 5)
    assert [made["tokens"] for made in report["decisions"]] == [5]
