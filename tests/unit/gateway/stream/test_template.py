"""A chunk taken apart by comparing bytes says exactly what it says as JSON, and the gate decides alike on it."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Final

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.gate import Gate, GateSettings
from justenough.gateway.stream.edits import fewer, without, without_member
from justenough.gateway.stream.template import Template, View
from justenough.gateway.stream.watch import Watch
from justenough.signal.signal import Signal
from justenough.testing import CONFIDENT, UNSURE, MockUpstream
from justenough.wire.events import event_of, payload_of
from justenough.wire.lenient import read_chunk
from justenough.wire.logprobs import block_of, entries_of
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
ROWS = st.sampled_from([CONFIDENT, UNSURE, CONFIDENT[::-1], (*CONFIDENT[:-1], None), (-800.0,) * 20, CONFIDENT[:3], ()])
TOKENS = st.lists(st.tuples(TEXTS, ROWS), max_size=12) | st.lists(
    st.tuples(st.sampled_from(["a", " b"]), st.sampled_from([CONFIDENT, UNSURE, UNSURE[::-1]])), max_size=150
)
"""Of all kinds, and such as are read many at once."""


def payload(text: str, row: Any, *, field: str = "content", order: str = "first", members: Any = None) -> bytes:
    """A chunk as one kind of server writes it, by where it puts the log-probabilities."""
    top = [{"token": "x", "logprob": value, "bytes": None} for value in row]
    entry = {"token": text, "logprob": -0.1, "bytes": None, "top_logprobs": top}
    said: dict[str, Any] = {"text": text} if field == "text" else {"delta": {field: text}}
    logprobs = {"logprobs": {"content": [entry]}}
    choice = {"index": 0} | (said | logprobs if order == "first" else logprobs | said) | {"finish_reason": None}
    chunk = {"id": "x", "choices": [choice]} | (members or {})
    return json.dumps(chunk, separators=(",", ":"), ensure_ascii=False).encode()


BARE: Final = View(logprobs=False, most=None, usage=False)


def logprobs_of(text: str, row: Any) -> bytes:
    """Those of a chunk."""
    return bytes((read_chunk(payload(text, row)).choices or [])[0].logprobs)


SETTINGS = GateSettings(
    threshold=1.0, shape="streaming", signal=Signal(splitter="paragraph"), decide="every", max_steps=10**9
)


def gate() -> Gate:
    return Gate(SETTINGS)


def watch(field: str) -> Watch:
    followed = Watch(SETTINGS, cut=False)
    followed.take(read_chunk(payload("<think>" if field in ("content", "text") else "So", CONFIDENT, field=field)))
    return followed


def template_of(data: bytes, view: View = BARE) -> Template | None:
    """The template of an event, which is shown as the slow way shows it."""
    chunk, shown = read_chunk(data), data if view.usage else without_member(data, "usage")
    logprobs = chunk.choice.logprobs if chunk.choice is not None else b""
    if not view.logprobs:
        shown = without(shown, b"logprobs", logprobs)
    elif view.most is not None:
        shown = shown.replace(bytes(logprobs), fewer(msgspec.Raw(logprobs), view.most))
    return Template.of(data, chunk, view, shown)


def take(followed: Watch, template: Template | None, data: bytes) -> Template | None:
    """As the gateway does."""
    if (
        template is not None
        and followed.waits(reasoning=template.reasoning)
        and (found := template.read(event_of(data)))
    ):
        text, logprobs, bare, usage = found
        assert usage is None
        whole = json.loads(data)
        choice = whole["choices"][0]
        assert json.loads(logprobs) == choice.pop("logprobs")
        assert json.loads(payload_of(bare)) == whole
        assert bare == event_of(payload_of(bare))
        assert text == choice.get("delta", choice)[field_of(choice)]
        followed.take_later(text, logprobs)
        return template
    chunk = read_chunk(data)
    followed.take(chunk)
    return template_of(data) or template


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


def test_tokens_read_together_are_measured_as_if_each_were_alone() -> None:
    rows = [CONFIDENT, UNSURE[::-1], UNSURE]
    waiting = [(text, logprobs_of(text, row)) for text, row in zip("abc", rows, strict=True)]
    block = block_of(waiting)
    alone = [entries_of(logprobs) for _, logprobs in waiting]
    assert block is not None
    assert [tuple(row) for row in block] == [token.top_logprobs for tokens in alone for token in tokens or ()]
    together, apart = gate(), gate()
    assert together.meter.measure_block(block)
    for tokens in alone:
        apart.meter.measure((tokens or [])[0])
    assert together.end_step() == apart.end_step()


@pytest.mark.parametrize(
    "other",
    [
        ("b", logprobs_of("c", CONFIDENT)),
        ("b", logprobs_of("b", CONFIDENT[:3])),
        ("b", logprobs_of("b", ())),
        ("b", b'{"content":[]}'),
        ("b", b"null"),
        ("b", logprobs_of("b", CONFIDENT) + b"," + logprobs_of("b", CONFIDENT)),
        ("b", logprobs_of("b", CONFIDENT).replace(b"]}]}", b"]},{}]}")),
        ("b", logprobs_of("b", CONFIDENT).replace(b'{"content"', b'{"reasoning_content":[{"token":"b"}],"content"')),
        ("b", logprobs_of("b", CONFIDENT).replace(b"-", b"x", 1)),
    ],
)
def test_what_is_not_alike_is_not_read_together(other: tuple[str, bytes]) -> None:
    plain = ("a", logprobs_of("a", CONFIDENT))
    assert block_of([plain]) is not None
    assert block_of([plain, other]) is None


@pytest.mark.parametrize("values", [[*CONFIDENT[:-1], math.nan], [0.5, *CONFIDENT[1:]], [-800.0] * 20, CONFIDENT[:3]])
def test_a_block_that_cannot_be_measured_leaves_the_gate_as_it_was(values: list[float]) -> None:
    measuring = gate()
    assert not measuring.meter.measure_block(np.array([CONFIDENT, values] if len(values) == 20 else [values]))
    assert measuring.end_step().tokens == 0


def test_the_servers_plain_tokens_take_the_quick_way() -> None:
    first = payload("a", CONFIDENT)
    template = template_of(first)
    assert template is not None
    assert template.read(event_of(payload("b", UNSURE))) is not None


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
    template = template_of(first)
    assert template is not None
    assert template.read(event_of(other)) is None


@pytest.mark.parametrize(
    "data",
    [
        event_of(payload("b", CONFIDENT)) * 2,
        event_of(payload("b", CONFIDENT))[:-1],
        event_of(payload("b", CONFIDENT)) + b"\n",
        b"event: x\n" + event_of(payload("b", CONFIDENT)),
        event_of(payload("b", CONFIDENT).replace(b'"token":"x"', b'"token":\r"x"', 1)),
        event_of(payload("b", CONFIDENT).replace(b'"token":"x"', b'"token":\n"x"', 1)),
        event_of(payload("\x00", CONFIDENT).replace(b"\\u0000", b"\xff")),
    ],
)
def test_what_is_not_one_plain_event_is_read_as_events(data: bytes) -> None:
    first = payload("a", CONFIDENT)
    template = template_of(first)
    assert template is not None
    assert template.read(event_of(payload("b", CONFIDENT))) is not None
    assert template.read(data) is None


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"choices":[]}',
        b'{"choices":[{"delta":{"content":"a"}}]}',
        payload("a", CONFIDENT).replace(b'"finish_reason":null', b'"finish_reason":"stop"'),
        payload("a", CONFIDENT).replace(b'"content":"a"', b'"content":"a","reasoning":"b"'),
        payload("a", CONFIDENT, order="last"),
    ],
)
def test_no_template_is_made_of_a_chunk_that_is_not_one_plain_token(chunk: bytes) -> None:
    assert template_of(chunk) is None


@pytest.mark.parametrize("quick", [True, False])
def test_either_way_a_thought_is_stopped_and_answered_alike(quick: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    later = Watch.take_later

    def take_later(self: Watch, text: str, logprobs: bytes) -> bool:
        taken.append(text)
        return later(self, text, logprobs)

    monkeypatch.setattr(Watch, "take_later", take_later)

    async def scenario() -> tuple[str, dict[str, Any]]:
        mock = MockUpstream(thought=["Let ", "me ", "see", ".\n\n", "So ", "it ", "is", ".\n\n"], engine="llama.cpp")
        async with faulty("streaming", mock) as (_, client):
            # Who wants to know of decisions gets events that are ours.
            asked = CHAT | {"stream": True, "justenough": {"decisions": not quick}}
            events = (await client.post("/v1/chat/completions", json=asked)).text.split("\n\n")
        chunks = [json.loads(event.removeprefix("data: ")) for event in events if event.startswith("data: {")]
        said = "".join([row["delta"].get("content") or "" for chunk in chunks for row in chunk["choices"]])
        return said, chunks[-1]["justenough"]

    said, report = asyncio.run(scenario())
    assert bool(taken) is quick
    assert said.startswith("<think>Let me see.\n\n</think>")
    assert (report["decision"], report["step"], report["tokens"] - report["probe_tokens"]) == ("stopped", 1, 5)
    assert [made["tokens"] for made in report.get("decisions", [])] == ([] if quick else [5])
