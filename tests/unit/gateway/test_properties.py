"""Whatever comes, and however it is cut up: the same events, or one clear error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import aiohttp
import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.gate import GateSettings
from justenough.gateway.exchange import Refused
from justenough.gateway.request import read_request
from justenough.gateway.stream.edits import with_member, without
from justenough.gateway.stream.events import Payloads, batches, read
from justenough.gateway.stream.watch import Watch
from justenough.signal.signal import Signal
from justenough.wire.lenient import read_chunk
from justenough.wire.logprobs import entries_of, fitted

T = TypeVar("T")
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_WORDS = """choices delta content reasoning logprobs top_logprobs logprob token text finish_reason usage id index error
messages n stream justenough mode threshold max_tokens prompt stream_options include_usage temperature tools type role
response_format prompt_progress"""
KEYS = st.sampled_from(_WORDS.split())
SHAPED: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 30)
    | st.floats(-20, 1)
    | st.sampled_from(["", "a", "<think>", "stop", "\n\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)
"""JSON in the words of the protocol, in all the wrong places."""


def outcome(call: Callable[[], T]) -> T | Refused:
    try:
        return call()
    except Refused as refused:
        return refused


def received(pieces: list[bytes]) -> list[str] | str:
    """Payloads of a body that arrives in pieces, or the code of the error."""

    left = iter([piece for piece in pieces if piece])

    async def readany() -> bytes:
        return next(left, b"")

    async def collect() -> list[str]:
        answer = SimpleNamespace(content=SimpleNamespace(readany=readany))
        found = batches(cast("aiohttp.ClientResponse", answer), Payloads(limit=1 << 20))
        return [payload.decode() async for batch in found for payload in batch]

    try:
        return asyncio.run(collect())
    except Refused as refused:
        return refused.code


@given(
    st.lists(JSON, max_size=4),
    st.sampled_from(["\n\n", "\r\n\r\n", "\r\r"]),
    st.lists(st.integers(0, 400), max_size=12),
)
@settings(deadline=None, max_examples=200)
def test_any_split_of_a_stream_gives_the_same_events(values: list[Any], end: str, cuts: list[int]) -> None:
    payloads = [json.dumps(value, ensure_ascii=False) for value in values]
    body = "".join(f": comment{end}data: {payload}{end}" for payload in payloads).encode()
    places = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    pieces = [body[start:stop] for start, stop in pairwise(places)]
    assert received(pieces) == received([body]) == payloads


@given(st.binary(max_size=300) | SHAPED.map(lambda value: json.dumps(value).encode()), st.sampled_from(["chat/", ""]))
@settings(deadline=None, max_examples=300)
def test_any_request_body_is_read_or_refused(body: bytes, kind: str) -> None:
    path = f"/v1/{kind}completions"
    asked = outcome(lambda: read_request(path, body, []))
    if isinstance(asked, Refused):
        assert asked.status == 400
        assert json.loads(asked.body)["error"]["code"] == "invalid_justenough"
        return
    if asked.relay_reason is None:
        # What is to be gated can be asked for with other members, and keeps all of its own.
        changed = json.loads(asked.with_fields(logprobs=True, top_logprobs=20, max_tokens=None))
        kept = {key: value for key, value in json.loads(body).items() if key not in ("justenough", "max_tokens")}
        assert changed == kept | {"logprobs": True, "top_logprobs": 20}
    elif b"justenough" not in body:
        assert asked.body == body


@given(st.lists(SHAPED, max_size=6))
@settings(deadline=None, max_examples=300)
def test_any_chunks_are_followed_or_refused_and_never_stop_without_log_probabilities(values: list[Any]) -> None:
    watch = Watch(
        GateSettings(threshold=1e6, shape="streaming", signal=Signal(splitter="tokens:1"), decide="every"), cut=True
    )
    for value in values:
        chunk = outcome(partial(read, json.dumps(value)))
        if isinstance(chunk, Refused):
            assert chunk.status == 502
            return
        # The drawn entries are never as many as the signal takes.
        assert watch.take(chunk) is False
    assert watch.thought_tokens <= watch.tokens


@given(SHAPED, st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=200)
def test_a_member_is_cut_out_of_bytes_and_nothing_else(
    value: Any, rest: dict[str, Any], first: bool, spaced: bool
) -> None:
    rest.pop("logprobs", None)
    choice: dict[str, Any] = {"text": '"logprobs":null, "logprobs": {}', "vendor": rest}
    choice = {"logprobs": value, **choice} if first else {**choice, "logprobs": value}
    separators = None if spaced else (",", ":")
    data = json.dumps({"choices": [choice], "id": "x"}, separators=separators).encode()
    raw = msgspec.json.decode(data, type=_Spied).choices[0].logprobs
    out = json.loads(without(data, b"logprobs", raw))
    choice.pop("logprobs")
    assert out == {"choices": [choice], "id": "x"}
    assert json.loads(with_member(data, b"justenough", b"1"))["justenough"] == 1


class _SpiedChoice(msgspec.Struct):
    logprobs: msgspec.Raw


class _Spied(msgspec.Struct):
    choices: list[_SpiedChoice]


@given(st.lists(st.text(max_size=4), min_size=1, max_size=6), st.data())
@settings(deadline=None, max_examples=300)
def test_tokens_always_spell_the_text_of_the_chunk(texts: list[str], data: st.DataObject) -> None:
    shown = data.draw(st.just("".join(texts)) | st.text(max_size=8))
    entries = [{"token": text, "logprob": -0.1, "top_logprobs": [{"logprob": -0.1}]} for text in texts]
    chunk = read_chunk(json.dumps({"choices": [{"delta": {"content": shown}, "logprobs": {"content": entries}}]}))
    assert chunk.choice is not None
    tokens, _ = fitted(shown, entries_of(chunk.choice.logprobs), finish=None)
    assert "".join(token.text for token in tokens) == shown
    assert len(tokens) == len(texts)
