"""Chunks of servers that keep to no type, from public reports about vLLM, SGLang, LiteLLM and others."""

import json

import pytest

from justenough.errors import BackendRejected
from justenough.trace import Json
from justenough.wire.chunks import OddChunk, Progress, Timings, Usage
from justenough.wire.lenient import read_chunk, read_other_protocol, read_strictly
from justenough.wire.logprobs import entries_of


def _odd(value: Json) -> OddChunk:
    chunk = read_chunk(json.dumps(value))
    assert isinstance(chunk, OddChunk)
    return chunk


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": None, "completion_tokens": None}, Usage()),
        ({"prompt_tokens": 3.0, "completion_tokens": 7.0}, Usage(3, 7)),
        ({"prompt_tokens": "3", "completion_tokens": " 7 "}, Usage(3, 7)),
        ({"prompt_tokens": "many", "completion_tokens": 7.5}, Usage()),
        ({"prompt_tokens": -1, "completion_tokens": True}, Usage()),
        ({"prompt_tokens": [3], "completion_tokens": 7}, Usage(None, 7)),
        ("many", None),
        (3, None),
        ([], None),
        (None, None),
    ],
)
def test_usage_of_any_type(usage: Json, expected: Usage | None) -> None:
    chunk = read_strictly(json.dumps({"choices": [{"delta": {"content": "4"}}], "usage": usage}))
    assert chunk.usage == expected
    assert chunk.choice is not None
    assert chunk.choice.content == "4"


@pytest.mark.parametrize(
    "chunk",
    [
        {"id": 17},
        {"id": None},
        {"choices": None},
        {"model": ["m"]},
        {"created": "now"},
        {"prompt_progress": 1},
        {"timings": {"predicted_n": "x"}},
    ],
)
def test_members_of_any_type_are_no_complaint(chunk: Json) -> None:
    read_strictly(json.dumps(chunk))


@pytest.mark.parametrize("index", [None, 1.0, "1", 1, {}])
@pytest.mark.parametrize("finish", [None, "", "null", 3, {}])
def test_index_and_finish_reason_of_any_type(index: Json, finish: Json) -> None:
    row: Json = {"index": index, "delta": {"content": "4"}, "finish_reason": finish}
    choice = read_strictly(json.dumps({"choices": [row]})).choice
    assert choice is not None
    assert (choice.content, choice.finish_reason) == ("4", None)
    assert choice.index in (None, 1)


def test_a_real_finish_reason_survives_an_odd_neighbour() -> None:
    choice = _odd({"choices": [{"index": 0.5, "delta": {"content": "4"}, "finish_reason": "stop"}]}).choice
    assert choice is not None
    assert (choice.index, choice.finish_reason) == (None, "stop")


@pytest.mark.parametrize(
    ("content", "text", "thought"),
    [
        ([{"type": "text", "text": "4"}, {"type": "text", "text": "2"}], "42", ""),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}], "", "hm"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "4"}], "4", "hm"),
        (["4", "2", 3, None], "42", ""),
        ([{"type": "image_url", "image_url": {}}], "", ""),
        ([], "", ""),
    ],
)
def test_a_list_of_parts_is_read_and_marked(content: Json, text: str, thought: str) -> None:
    chunk = _odd({"choices": [{"delta": {"content": content}}]})
    assert (chunk.in_parts, chunk.complaint) == (True, "")
    assert chunk.choice is not None
    assert (chunk.choice.content, chunk.choice.reasoning) == (text, thought)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (None, "Expected `object`"),
        ([], "Expected `object`"),
        ("text", "Expected `object`"),
        ({"choices": {}}, "choices is {}, expected a list"),
        ({"choices": ["x"]}, "choices[0] is 'x', expected an object"),
        ({"choices": [{"delta": 3}]}, "choices[0].delta is 3, expected an object"),
        ({"choices": [{"delta": {"content": 3}}]}, "choices[0].delta.content is 3, expected a text"),
        ({"choices": [{"text": {"a": "b" * 500}}]}, "choices[0].text is {'a': 'b"),
        ({"choices": [{"message": {"reasoning": True}}]}, "choices[0].message.reasoning is True"),
    ],
)
def test_a_text_that_cannot_be_read_is_a_complaint(value: Json, place: str) -> None:
    assert place in _odd(value).complaint
    with pytest.raises(BackendRejected, match="cannot be read") as refusal:
        read_strictly(json.dumps(value))
    assert refusal.value.status == 502
    assert len(str(refusal.value)) < 300


def test_what_fits_is_read_beside_a_complaint() -> None:
    chunk = _odd(
        {
            "choices": [{"delta": {"content": 17, "reasoning": "hm"}, "logprobs": {"content": []}}],
            "usage": {"completion_tokens": 2},
            "prompt_progress": {"total": 9},
            "timings": {"predicted_n": 5},
            "error": {"message": "no"},
        }
    )
    assert chunk.choice is not None
    assert (chunk.choice.reasoning, bytes(chunk.choice.logprobs)) == ("hm", b'{"content": []}')
    assert (chunk.usage, chunk.prompt_progress, chunk.timings) == (Usage(None, 2), Progress(9), Timings(5))
    assert bytes(chunk.error) == b'{"message": "no"}'


def test_minus_infinity_and_nan_among_log_probabilities() -> None:
    entry = b'{"token":"a","logprob":0,"top_logprobs":[{"logprob":0},{"logprob":%b}]}'
    form = b'{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[' + entry + b"]}}]}"
    infinite = read_strictly(form % b"-Infinity").choice
    unknown = read_strictly(form % b"NaN").choice
    assert infinite is not None
    assert unknown is not None
    tokens = entries_of(infinite.logprobs)
    assert tokens is not None
    assert tokens[0].top_logprobs == (0.0, -9999.0)
    # NaN must not count as minus infinity: the token would seem to be surer than it is.
    assert entries_of(unknown.logprobs) is None
    assert unknown.content == "a"


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    choice = read_strictly(rb'{"choices":[{"delta":{"content":"a\ud83d"}}]}').choice
    assert choice is not None
    assert choice.content == "a\ufffd"


@pytest.mark.parametrize(
    "data", ["", "{", '{"choices":[}', "[" * 100_000, b'{"choices":[{"delta":{"content":"\xff"}}]}']
)
def test_what_is_not_json_is_refused(data: str | bytes) -> None:
    with pytest.raises(BackendRejected, match="is not JSON"):
        read_chunk(data)
    assert read_other_protocol(data) is None


def test_events_of_other_protocols_are_counted() -> None:
    delta = read_other_protocol(b'{"type":"response.output_text.delta","delta":"4"}')
    assert delta is not None
    assert (delta.type, bytes(delta.delta)) == ("response.output_text.delta", b'"4"')
    done = read_other_protocol(b'{"type":"response.completed","response":{"usage":{"output_tokens":5}}}')
    assert done is not None
    assert done.response is not None
    assert done.response.usage == Usage(output_tokens=5)
    odd = read_other_protocol(b'{"choices":[{"delta":{"content":17}}],"usage":{"completion_tokens":"5"}}')
    assert odd is not None
    assert odd.usage == Usage(completion_tokens=5)
