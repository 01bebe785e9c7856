import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from justenough.errors import BackendRejected
from justenough.trace import Token
from justenough.wire.events import EventReader, event_of
from justenough.wire.lenient import read_chunk, read_strictly
from justenough.wire.logprobs import aligned, tokens_of

PIECES = st.sampled_from(
    [
        b"data: a",
        b"data: c\n\n",
        b"data:b",
        b"data",
        b": note",
        b"event: e",
        b"\n",
        b"\r",
        b"\r\n",
        b"\xc3",
        b"\xa9",
        b"\xff",
        b" ",
        b"x",
    ]
)
KEYS = st.sampled_from(["choices", "delta", "content", "text", "usage", "index", "error", "logprobs"])
LOGPROBS = st.floats(min_value=-50, max_value=0, allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def _fed(pieces: list[bytes], limit: int) -> list[str] | None:
    """The events, or None where the stream was refused."""
    reader = EventReader(limit=limit)
    out: list[str] = []
    try:
        for piece in pieces:
            out += reader.feed(piece)
    except BackendRejected:
        return None
    return out


@given(st.lists(PIECES, max_size=40), st.lists(st.integers(0, 200), max_size=12), st.sampled_from([12, 1 << 20]))
def test_any_split_of_the_bytes_gives_the_same_events(parts: list[bytes], cuts: list[int], limit: int) -> None:
    stream = b"".join(parts)
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    pieces = [stream[start:end] for start, end in pairwise(places)]
    whole = _fed([stream], limit)
    assert _fed(pieces, limit) == whole
    assert _fed([bytes([byte]) for byte in stream], limit) == whole
    assert _fed([b"", *pieces, b""], limit) == whole
    assert _fed(parts, limit) == whole


@given(st.lists(TEXTS.map(lambda text: text.replace("\r", "").replace("\n", "")), max_size=5))
def test_every_payload_that_is_written_is_read(payloads: list[str]) -> None:
    stream = b"".join(event_of(payload.encode()) for payload in payloads)
    assert EventReader().feed(stream) == payloads


@given(
    st.lists(st.tuples(TEXTS.filter(bool), st.lists(LOGPROBS, min_size=1, max_size=5)), max_size=6),
    TEXTS,
    st.sampled_from([None, "stop", "length"]),
)
def test_tokens_survive_the_wire(rows: list[tuple[str, list[float]]], reasoning: str, finish: str | None) -> None:
    entries = [
        {
            "token": "?",
            "bytes": list(text.encode()),
            "logprob": max(top),
            "top_logprobs": [{"logprob": value} for value in top],
        }
        for text, top in rows
    ]
    text = "".join(text for text, _ in rows)
    delta = {"content": text, "reasoning_content": reasoning}
    chunk = {"choices": [{"delta": delta, "logprobs": {"content": entries}, "finish_reason": finish}]}
    (payload,) = EventReader().feed_bytes(event_of(json.dumps(chunk).encode()))
    choice = read_strictly(payload).choice
    assert choice is not None
    assert (choice.content, choice.reasoning, choice.finish_reason) == (text, reasoning, finish)
    assert tokens_of(choice.logprobs) == [
        Token(text=text, top_logprobs=tuple(sorted(top, reverse=True)), logprob=max(top)) for text, top in rows
    ]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
        max_leaves=12,
    )
)
def test_no_json_value_is_too_odd_to_be_read(value: object) -> None:
    read_chunk(json.dumps(value))


@given(st.lists(TEXTS, min_size=1, max_size=6), TEXTS, st.sampled_from([None, "stop", "length"]))
def test_aligned_texts_join_to_the_text_whatever_the_entries_say(
    texts: list[str], text: str, finish: str | None
) -> None:
    tokens = [Token(text=piece, top_logprobs=(-0.1,)) for piece in texts]
    found = aligned(tokens, text, finish=finish)
    assert "".join(token.text for token in found) == text
    assert len(tokens) - len(found) in ((0, 1) if finish == "stop" else (0,))
    exact = aligned(tokens, "".join(texts), finish=None)
    assert "".join(token.text for token in exact) == "".join(texts)
