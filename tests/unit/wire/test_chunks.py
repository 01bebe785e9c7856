import json

import msgspec
import pytest

from justenough.trace import Json
from justenough.wire.chunks import (
    THOUGHT_FIELDS,
    Choice,
    Chunk,
    Message,
    OddChunk,
    Progress,
    Timings,
    Usage,
    error_message,
    error_of,
    is_empty,
)
from justenough.wire.lenient import read_chunk


def _read(value: Json) -> Chunk:
    """A chunk that fits its type."""
    chunk = read_chunk(json.dumps(value))
    assert not isinstance(chunk, OddChunk)
    return chunk


def _choice(choice: dict[str, Json]) -> Choice:
    chosen = _read({"choices": [choice]}).choice
    assert chosen is not None
    return chosen


def test_a_chat_chunk_gives_text_and_finish() -> None:
    choice = _choice({"index": 1, "delta": {"role": "assistant", "content": " 4"}, "finish_reason": "length"})
    assert (choice.index, choice.content, choice.reasoning, choice.finish_reason) == (1, " 4", "", "length")
    assert choice.has_output


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("holder", ["delta", "message"])
def test_reasoning_is_read_under_both_names(key: str, holder: str) -> None:
    choice = _choice({"index": 0, holder: {key: "hm", "content": None}})
    assert (choice.reasoning, choice.content, choice.has_output) == ("hm", "", True)


def test_reasoning_under_both_names_at_once_is_not_doubled() -> None:
    assert _choice({"delta": {"reasoning_content": "hm", "reasoning": "hm"}}).reasoning == "hm"


@pytest.mark.parametrize(
    ("holder", "thought", "content", "is_again"),
    [
        ("message", "6*7=42", "<think>6*7=42</think>42", True),
        ("message", "6*7=42", "6*7=42</think>\n\n42", True),
        ("message", "6*7=42", "[THINK]\n6*7=42[/THINK]42", True),
        ("delta", "Okay", "\n\nOkay", True),
        ("delta", "Okay", "<think>Okay", True),
        ("delta", "Okay", "Okay</think>42", True),
        # The answer contains the words of a short thought, or is the same.
        ("message", "42", "The answer is 42.", False),
        ("message", " 42", " 42", False),
        ("delta", "42", "Answer: 42", False),
        ("message", "6*7=42", "42", False),
    ],
)
def test_a_thought_that_is_in_the_content_again_is_read_once(
    holder: str, thought: str, content: str, is_again: bool
) -> None:
    choice = _choice({holder: {"reasoning_content": thought, "content": content}})
    assert choice.texts(apart=False) == ("" if is_again else thought, content)
    assert choice.texts(apart=True) == (thought, content)


def test_a_text_completion_has_its_text_beside_the_other_members() -> None:
    choice = _choice({"index": 0, "text": "4", "finish_reason": None})
    assert (choice.content, choice.delta, choice.message) == ("4", None, None)


@pytest.mark.parametrize("reason", [None, "", "null"])
def test_an_empty_reason_is_no_end(reason: str | None) -> None:
    choice = _choice({"delta": {"content": ""}, "finish_reason": reason})
    assert choice.finish_reason is None
    assert not choice.has_output


@pytest.mark.parametrize(
    ("delta", "has_output"),
    [({"tool_calls": [{"index": 0}]}, True), ({"tool_calls": []}, False), ({"tool_calls": None}, False), ({}, False)],
)
def test_a_call_of_a_tool_is_output(delta: Json, has_output: bool) -> None:
    assert _choice({"delta": delta}).has_output is has_output


def test_log_probabilities_stay_raw() -> None:
    raw = b'{"content":[{"token":"4","logprob":-0.5,"top_logprobs":[]}]}'
    chunk = read_chunk(b'{"choices":[{"delta":{"content":"4"},"logprobs":%b}]}' % raw)
    assert chunk.choice is not None
    assert bytes(chunk.choice.logprobs) == raw


def test_a_chunk_with_usage_alone_has_no_choice() -> None:
    chunk = _read({"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 21}, "model": "m", "id": 7})
    assert chunk.choice is None
    assert chunk.usage == Usage(prompt_tokens=12, completion_tokens=21)


@pytest.mark.parametrize("value", [{}, {"choices": None}])
def test_a_chunk_without_choices_has_no_choice(value: Json) -> None:
    assert _read(value).choice is None


def test_the_reports_of_llama_cpp() -> None:
    chunk = _read({"choices": [], "prompt_progress": {"total": 9, "cache": 1}, "timings": {"predicted_n": 5}})
    assert (chunk.prompt_progress, chunk.timings) == (Progress(9), Timings(5))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"error": {"message": "too long", "code": 400}}, "too long"),
        ({"error": "too long"}, "too long"),
        ({"object": "error", "message": "too long"}, "too long"),
        ({"detail": "too long"}, "too long"),
        ({"message": "too long"}, "too long"),
        ({"error": {"code": 7}}, '{"code":7}'),
        ({"choices": [], "message": "fine"}, None),
        ({"error": None, "choices": []}, None),
        ([], None),
    ],
)
def test_errors_are_known_in_the_forms_that_servers_use(value: Json, words: str | None) -> None:
    assert error_message(value) == words
    data = json.dumps(value)
    assert error_of(read_chunk(data), data) == words


def test_an_error_beside_choices_is_an_error() -> None:
    data = b'{"choices":[{"delta":{"content":""}}],"error":{"message":"out of memory"}}'
    assert error_of(read_chunk(data), data) == "out of memory"
    fine = b'{"choices":[{"delta":{"content":""}}],"message":"fine"}'
    assert error_of(read_chunk(fine), fine) is None


@pytest.mark.parametrize(
    ("raw", "empty"), [(b"", True), (b"null", True), (b"[]", True), (b"[1]", False), (b"1", False)]
)
def test_a_member_that_says_nothing_is_empty(raw: bytes, empty: bool) -> None:
    assert is_empty(msgspec.Raw(raw)) is empty


def test_a_message_keeps_no_member_that_nobody_reads() -> None:
    assert set(Message.__struct_fields__) == {"content", "tool_calls", "function_call", *THOUGHT_FIELDS}
