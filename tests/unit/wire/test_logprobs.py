import gzip
import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from justenough.errors import BackendRejected
from justenough.trace import Json, Token
from justenough.wire.lenient import read_strictly
from justenough.wire.logprobs import aligned, block_of, entries_of, fitted, is_one_entry, tokens_of

GENUINE = Path(__file__).parents[4] / "shared" / "data" / "openai"


def _entry(token: str, *tops: float | None, own: float | None = None, raw: list[int] | None = None) -> Json:
    return {
        "token": token,
        "logprob": tops[0] if own is None and tops else own,
        "bytes": list(token.encode()) if raw is None else [*raw],
        "top_logprobs": [{"token": str(at), "logprob": value, "bytes": None} for at, value in enumerate(tops)],
    }


def _raw(value: Json) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(value).encode())


def _content(*entries: Json) -> msgspec.Raw:
    return _raw({"content": list(entries)})


def test_the_sampled_token_beside_the_k_most_likely_is_kept_and_sorted_in() -> None:
    (token,) = tokens_of(_content(_entry("x", -0.2, -2.0, -1.0, own=-7.0)))
    assert token == Token(text="x", top_logprobs=(-0.2, -1.0, -2.0), logprob=-7.0)


@pytest.mark.parametrize("content", [None, []])
def test_log_probabilities_of_reasoning_may_be_kept_apart(content: Json) -> None:
    logprobs = _raw({"content": content, "reasoning_content": [_entry("hm", -0.5, -1.0)]})
    assert tokens_of(logprobs) == [Token(text="hm", top_logprobs=(-0.5, -1.0), logprob=-0.5)] == entries_of(logprobs)


def test_the_thoughts_entries_come_before_the_others() -> None:
    logprobs = _raw({"content": [_entry("4", -0.1)], "reasoning_content": [_entry("hm", -0.5)]})
    assert [token.text for token in tokens_of(logprobs)] == ["hm", "4"]


@pytest.mark.parametrize("names", [("\ufffd", "\ufffd"), ("\\xf0\\x9f", "\\x99\\x82")])
def test_a_character_split_over_tokens_comes_whole(names: tuple[str, str]) -> None:
    smile = "🙂".encode()
    logprobs = _content(
        _entry("a", -0.1), _entry(names[0], -0.1, raw=list(smile[:2])), _entry(names[1], -0.1, raw=list(smile[2:]))
    )
    for tokens in (tokens_of(logprobs), entries_of(logprobs) or []):
        assert [token.text for token in tokens] == ["a", "", "🙂"]


def test_bytes_out_of_range_are_left_out() -> None:
    assert tokens_of(_content(_entry("?", -0.1, raw=[52, 300, -1])))[0].text == "4"


def test_text_completions_carry_parallel_lists_with_gaps() -> None:
    logprobs = _raw(
        {
            "tokens": ["a", " b"],
            "token_logprobs": [None, -0.5],
            "top_logprobs": [None, {" c": -1.5, " b": -0.5}],
            "text_offset": [0, 1],
        }
    )
    tokens = [Token(text="a"), Token(text=" b", top_logprobs=(-0.5, -1.5), logprob=-0.5)]
    assert tokens_of(logprobs) == tokens == entries_of(logprobs)


@pytest.mark.parametrize("key", ["token_logprobs", "top_logprobs"])
def test_parallel_lists_may_be_absent_but_not_of_another_length(key: str) -> None:
    assert tokens_of(_raw({"tokens": ["a", "b"], key: None})) == [Token(text="a"), Token(text="b")]
    wrong = _raw({"tokens": ["a", "b"], key: [None]})
    with pytest.raises(BackendRejected, match="2 tokens have"):
        tokens_of(wrong)
    assert entries_of(wrong) is None


@pytest.mark.parametrize("raw", [b"", b"null", b"{}", b'{"content":null}', b'{"content":[]}'])
def test_no_log_probabilities_are_no_tokens(raw: bytes) -> None:
    assert tokens_of(msgspec.Raw(raw)) == []
    assert not entries_of(msgspec.Raw(raw))


@pytest.mark.parametrize(
    "value",
    [[], 3, {"content": [{"token": "a", "logprob": "much"}]}, {"content": [{"token": 3}]}, {"tokens": [3]}],
)
def test_what_cannot_be_read_is_refused_by_name(value: Json) -> None:
    with pytest.raises(BackendRejected, match="logprobs does not fit"):
        tokens_of(_raw(value))
    assert entries_of(_raw(value)) is None


def test_a_number_without_bound_is_refused() -> None:
    raw = b'{"content":[{"token":"a","logprob":1%b}]}' % (b"0" * 400)
    with pytest.raises(BackendRejected, match="cannot be read"):
        tokens_of(raw)
    assert entries_of(raw) is None


def test_minus_infinity_is_read_in_the_ways_that_servers_write_it() -> None:
    (token,) = tokens_of(b'{"content":[{"token":"a","top_logprobs":[{"logprob":0},{"logprob":null},{}]}]}')
    assert token.top_logprobs == (0.0, -math.inf, -math.inf)


@pytest.mark.parametrize("path", sorted(GENUINE.glob("*.json.gz")) or [None], ids=lambda path: path and path.stem)
def test_genuine_responses_are_read_to_the_last_token(path: Path | None) -> None:
    if path is None:
        pytest.skip("the genuine responses are not here")
    reply = read_strictly(gzip.decompress(path.read_bytes()))
    choice = reply.choice
    assert choice is not None
    assert reply.usage is not None
    tokens = tokens_of(choice.logprobs)
    assert len(tokens) == reply.usage.completion_tokens
    assert "".join(token.text for token in tokens) == choice.content
    assert list(aligned(tokens, choice.content, finish=choice.finish_reason)) == tokens == entries_of(choice.logprobs)
    tops = [token.top_logprobs or () for token in tokens]
    assert {len(top) for top in tops} == {5 if "topk_5" in path.name else 20}
    assert all(list(top) == sorted(top, reverse=True) for top in tops)
    # The sampled token is nearly always among the most likely ones: the right field was read.
    among = sum(token.logprob in top for token, top in zip(tokens, tops, strict=True))
    assert among >= 0.95 * len(tops)


def test_a_block_holds_the_alternatives_of_many_tokens() -> None:
    rows = [("a", bytes(_content(_entry("a", -0.1, -2.0)))), ("b", bytes(_content(_entry("b", -3.0, -0.5))))]
    block = block_of(rows)
    assert block is not None
    np.testing.assert_array_equal(block, [[-0.1, -2.0], [-0.5, -3.0]])


@pytest.mark.parametrize(
    "logprobs",
    [
        _content(_entry("b", -0.1)),
        _content(_entry("a", -0.1, -2.0), _entry("a", -0.1, -2.0)),
        _content(_entry("another", -0.1, -2.0)),
        _content(),
        _raw({"content": [_entry("a", -0.1, -2.0)], "reasoning_content": [_entry("a", -0.1, -2.0)]}),
        _raw(None),
        msgspec.Raw(b'{"content":[NaN]}'),
        msgspec.Raw(b"1,2"),
    ],
)
def test_a_block_of_unlike_tokens_is_none(logprobs: msgspec.Raw) -> None:
    fine = bytes(_content(_entry("a", -0.1, -2.0)))
    assert block_of([("a", fine), ("a", bytes(logprobs))]) is None


def test_an_alternative_without_a_value_is_a_nan_in_a_block() -> None:
    block = block_of([("a", bytes(_content(_entry("a", -0.1, None))))])
    assert block is not None
    assert np.isnan(block[0, 1])


@pytest.mark.parametrize(
    ("raw", "one"),
    [
        (b'{"content":[{"token":"a","top_logprobs":[{"logprob":-1}]}]}', True),
        (b'{"content":[{"token":"a","top_logprobs":[]}]}', False),
        (b'{"content":[{"top_logprobs":[{"logprob":-1}]},{"top_logprobs":[{"logprob":-1}]}]}', False),
        (b'{"content":[{"top_logprobs":[{"logprob":-1}]}],"refusal":[{"top_logprobs":[{"logprob":-1}]}]}', False),
        (b'{"content":[{"top_logprobs":[{"logprob":-1}],"x":[{"y":[{}]}]}]}', False),
        (b'{"content":[{"top_logprobs":[{"logprob":-1}]},{"token":"b"}]}', False),
        (b'{"content":[{"top_logprobs":[{"token":"[{"}]}]}', True),
        (b'{"content":[{"token":"a","x":[{"y":1}]}]}', False),
        (b'{"content":[]}', False),
        (b'{"tokens":["a"]}', False),
        (b"", False),
    ],
)
def test_one_entry_is_known_without_reading_it(raw: bytes, one: bool) -> None:
    assert is_one_entry(raw) is one


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
    result = aligned(tokens, text, finish=finish)
    assert [token.text for token in result] == expected
    assert all(token.top_logprobs == (-0.1,) for token in result)


def test_entries_that_do_not_occur_in_the_text_lose_their_log_probabilities() -> None:
    tokens = [Token(text=piece, top_logprobs=(-0.1,)) for piece in ("x", "y", "z")]
    result, belong = fitted("other", tokens, finish=None)
    assert not belong
    assert [(token.text, token.top_logprobs) for token in result] == [("other", None), ("", None), ("", None)]


@pytest.mark.parametrize(("text", "expected"), [("ab", ["ab"]), ("", [])])
@pytest.mark.parametrize("entries", [None, []])
def test_a_text_without_entries_is_one_token(entries: list[Token] | None, text: str, expected: list[str]) -> None:
    tokens, belong = fitted(text, entries, finish=None)
    assert belong
    assert [token.text for token in tokens] == expected
