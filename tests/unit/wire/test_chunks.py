import gzip
import json
import math
from pathlib import Path

import pytest

from justenough.errors import BackendRejected
from justenough.trace import Json, Token
from justenough.wire import (
    DONE,
    Choice,
    Chunk,
    EventReader,
    Usage,
    aligned,
    chat_chunk,
    chat_response,
    chunk_json,
    completion_chunk,
    completion_response,
    error_message,
    event,
    logprobs_json,
    read_json,
)

GENUINE = Path(__file__).parents[4] / "shared" / "data" / "openai"


def _entry(token: str, *tops: float, own: float | None = None, raw: list[int] | None = None) -> Json:
    return {
        "token": token,
        "logprob": tops[0] if own is None else own,
        "bytes": list(token.encode()) if raw is None else [*raw],
        "top_logprobs": [{"token": str(at), "logprob": value, "bytes": None} for at, value in enumerate(tops)],
    }


def _chat(entries: list[Json], *, delta: dict[str, Json], finish: str | None = None) -> Json:
    return {"choices": [{"index": 0, "delta": delta, "logprobs": {"content": entries}, "finish_reason": finish}]}


def test_a_chat_chunk_gives_text_tokens_and_finish() -> None:
    found = chat_chunk(_chat([_entry(" 4", -1.5, -0.3, -2.0)], delta={"content": " 4"}, finish="length"))
    token = Token(text=" 4", top_logprobs=(-0.3, -1.5, -2.0), logprob=-1.5)
    assert found == Chunk((Choice(0, " 4", "", (token,), "length"),), None, None, None)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_is_read_under_both_names(key: str) -> None:
    assert chat_chunk(_chat([], delta={key: "hm", "content": None})).choices[0].reasoning == "hm"


@pytest.mark.parametrize("content", [None, []])
def test_log_probabilities_of_reasoning_may_stand_apart(content: Json) -> None:
    logprobs: Json = {"content": content, "reasoning_content": [_entry("hm", -0.5, -1.0)]}
    found = chat_chunk({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "logprobs": logprobs}]})
    assert found.choices[0].tokens == (Token(text="hm", top_logprobs=(-0.5, -1.0), logprob=-0.5),)


def test_the_sampled_token_beside_the_k_most_likely_is_kept_and_sorted_in() -> None:
    found = chat_chunk(_chat([_entry("x", -0.2, -2.0, -1.0, own=-7.0)], delta={"content": "x"}))
    assert found.choices[0].tokens[0].top_logprobs == (-0.2, -1.0, -2.0)
    assert found.choices[0].tokens[0].logprob == -7.0


def test_a_chunk_with_usage_alone_has_no_choice() -> None:
    found = chat_chunk({"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 21}, "model": "m"})
    assert found == Chunk((), Usage(12, 21), None, "m")


def test_a_whole_chat_response_is_read_with_split_characters_whole() -> None:
    smile = "🙂".encode()
    entries = [
        _entry("a", -0.1),
        _entry("\\xf0\\x9f", -0.1, raw=list(smile[:2])),
        _entry("\\x99\\x82", -0.1, raw=list(smile[2:])),
    ]
    found = chat_response(
        {
            "choices": [
                {"index": 0, "message": {"content": "a🙂"}, "logprobs": {"content": entries}, "finish_reason": "stop"}
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 4},
        }
    )
    assert [token.text for token in found.choices[0].tokens] == ["a", "", "🙂"]
    assert found.usage == Usage(1, 4)


def test_legacy_completions_carry_parallel_lists_with_gaps() -> None:
    found = completion_chunk(
        {
            "choices": [
                {
                    "index": 1,
                    "text": "a b",
                    "logprobs": {
                        "tokens": ["a", " b"],
                        "token_logprobs": [None, -0.5],
                        "top_logprobs": [None, {" c": -1.5, " b": -0.5}],
                        "text_offset": [0, 1],
                    },
                    "finish_reason": None,
                }
            ]
        }
    )
    bare = Token(text="a")
    assert found.choices[0].tokens == (bare, Token(text=" b", top_logprobs=(-0.5, -1.5), logprob=-0.5))
    assert found.choices[0].number == 1


def test_completions_of_llama_cpp_carry_content_as_chats_do() -> None:
    found = completion_response({"choices": [{"text": "4", "logprobs": {"content": [_entry("4", -0.25, -3.0)]}}]})
    assert found.choices[0].tokens[0].top_logprobs == (-0.25, -3.0)


@pytest.mark.parametrize("path", sorted(GENUINE.glob("*.json.gz")) or [None], ids=lambda path: path and path.stem)
def test_genuine_responses_are_read_to_the_last_token(path: Path | None) -> None:
    if path is None:
        pytest.skip("the genuine responses are not here")
    value = read_json(gzip.decompress(path.read_bytes()))
    found = chat_response(value)
    choice = found.choices[0]
    assert found.usage is not None
    assert len(choice.tokens) == found.usage.completion_tokens
    assert "".join(token.text for token in choice.tokens) == choice.text
    assert aligned(choice.tokens, choice.text, finish=choice.finish) == choice.tokens
    tops = [token.top_logprobs or () for token in choice.tokens]
    assert {len(top) for top in tops} == {5 if "topk_5" in path.name else 20}
    assert all(list(top) == sorted(top, reverse=True) for top in tops)
    # What was sampled is among the most likely nearly always: the right field was read.
    among = sum(token.logprob in top for token, top in zip(choice.tokens, tops, strict=True))
    assert among >= 0.95 * len(tops)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"choices": {}},
        {"choices": ["x"]},
        {"choices": [{"delta": 3}]},
        {"choices": [{"delta": {"content": 3}}]},
        {"choices": [{"delta": {}, "logprobs": {"content": [{"token": "a", "logprob": "much"}]}}]},
        {"choices": [{"delta": {}, "logprobs": {"content": [{"token": "a", "logprob": 10**400}]}}]},
        {"choices": [{"delta": {}, "logprobs": []}]},
    ],
)
def test_what_is_no_chunk_is_refused_by_name(value: Json) -> None:
    with pytest.raises(BackendRejected, match="cannot be read") as refusal:
        chat_chunk(value)
    assert refusal.value.status == 502
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("payload", ["", "{", "NaN", "Infinity", '{"a": NaN}', "[" * 100_000])
def test_what_is_no_json_is_refused(payload: str) -> None:
    with pytest.raises(BackendRejected, match="is not JSON"):
        read_json(payload)


def test_minus_infinity_is_read_in_the_ways_that_servers_write_it() -> None:
    value = read_json('{"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [{"token": "a", "logprob": 0,'
                      '"top_logprobs": [{"logprob": 0}, {"logprob": null}, {"logprob": -Infinity}]}]}}]}')  # fmt: skip
    assert chat_chunk(value).choices[0].tokens[0].top_logprobs == (0.0, -math.inf, -math.inf)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"error": {"message": "too long", "code": 400}}, "too long"),
        ({"error": "too long"}, "too long"),
        ({"object": "error", "message": "too long"}, "too long"),
        ({"detail": "too long"}, "too long"),
        ({"message": "too long"}, "too long"),
        ({"error": {"code": 7}}, '{"code": 7}'),
        ({"choices": [], "message": "fine"}, None),
        ({"error": None, "choices": []}, None),
        ([], None),
    ],
)
def test_errors_are_known_in_the_forms_that_servers_use(value: Json, words: str | None) -> None:
    assert error_message(value) == words


def test_an_error_within_a_stream_is_no_silence() -> None:
    assert chat_chunk({"error": {"message": "out of memory"}}).error == "out of memory"


@pytest.mark.parametrize(
    ("texts", "text", "finish", "expected"),
    [
        (["a", "b"], "ab", None, ["a", "b"]),
        ([" 2", "<|im_end|>"], " 2", "stop", [" 2"]),
        (["<|im_end|>"], "", "stop", []),
        (["<|im_end|>"], "", "length", [""]),
        (["<think>", "Hm", "."], "Hm.", None, ["", "Hm", "."]),
        (["Hm", "."], "<think>Hm.", None, ["<think>Hm", "."]),
        (["\ufffd", "\ufffd"], "é", None, ["", "é"]),
        ([], "", "stop", []),
    ],
)
def test_entries_are_aligned_with_the_text(
    texts: list[str], text: str, finish: str | None, expected: list[str]
) -> None:
    tokens = [Token(text=piece, top_logprobs=(-0.1,), logprob=-0.1) for piece in texts]
    found = aligned(tokens, text, finish=finish)
    assert [token.text for token in found] == expected
    assert all(token.top_logprobs == (-0.1,) for token in found)


def test_events_of_all_line_ends_comments_and_several_lines() -> None:
    stream = (
        b"\xef\xbb\xbfdata: 1\r\n\r\n: keep-alive\n\nevent: x\rid: 7\rdata: 2\r\rdata:3\ndata: 4\ndata\n\n"
        b"data: \xff\n\nretry: 5\n\ndata: [DONE]\n\ndata: never ended"
    )
    assert EventReader().feed(stream) == ["1", "2", "3\n4\n", "\ufffd", DONE]


def test_an_event_without_end_is_refused_at_the_limit() -> None:
    reader = EventReader(limit=1000)
    assert reader.feed(b"data: " + b"x" * 990 + b"\n\n") == ["x" * 990]
    for _ in range(9):
        reader.feed(b"data: " + b"y" * 93 + b"\n")
    reader.feed(b"z" * 154)
    with pytest.raises(BackendRejected, match="larger than 1000 bytes"):
        reader.feed(b"z")


def test_what_is_written_is_read_back() -> None:
    token = Token(text="é", top_logprobs=(-0.5, -math.inf), logprob=-0.5)
    choice = Choice(0, "é", "hm", (token,), "stop")
    payload = event(chunk_json(choice, model="m", usage=Usage(3, 4)))
    (text,) = EventReader().feed(payload)
    expected = choice._replace(tokens=(Token(text="é", top_logprobs=(-0.5, -9999.0), logprob=-0.5),))
    assert chat_chunk(json.loads(text)) == Chunk((expected,), Usage(3, 4), None, "m")
    assert event(DONE) == b"data: [DONE]\n\n"
    assert logprobs_json([Token(text="x", entropy=0.5)]) == {"content": []}
