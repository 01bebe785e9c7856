"""Changes to a chunk's bytes touch nothing else."""

from __future__ import annotations

import json
from typing import Final

import msgspec
import pytest

from justenough.gateway.stream.edits import shortened, trimmed, with_member, with_value, without, without_member
from justenough.trace import Json


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a":1,"x":[2],"b":3}', b'{"a":1,"b":3}'),
        (b'{"x":[2],"b":3}', b'{"b":3}'),
        (b'{"a":1,"x":[2]}', b'{"a":1}'),
        (b'{"x":[2]}', b"{}"),
        (b'{"a": 1, "x": [2], "b": 3}', b'{"a": 1, "b": 3}'),
        (b'{"a":{"x":[2]}}', b'{"a":{}}'),
        (b'{"x":[1],"a":{"x":[2]}}', b'{"x":[1],"a":{}}'),
        (b'{"a":"\\"x\\":[2]"}', b'{"a":"\\"x\\":[2]"}'),
        (b'{"a":1}', b'{"a":1}'),
    ],
)
def test_a_member_of_known_value_is_taken_out(data: bytes, expected: bytes) -> None:
    assert without(data, b"x", b"[2]") == expected


def test_a_value_that_was_repaired_is_taken_out_too() -> None:
    assert without(b'{"a":1,"x":[-Infinity]}', b"x", b"[-9999.0]") == b'{"a":1}'
    assert with_value(b'{"x":[-Infinity]}', msgspec.Raw(b"[-9999.0]"), b"[]") == b'{"x":[]}'
    assert with_value(b'{"x":[2]}', msgspec.Raw(b"[2]"), b"[]") == b'{"x":[]}'


HALF: Final = b'{"a":"\\ud83d","x":["\\ud83d"],"b":"\\ude00"}'


def test_half_a_surrogate_pair_beside_a_repaired_value_stays_as_it_came() -> None:
    old = msgspec.Raw(b'["\\ufffd"]')
    assert without(HALF, b"x", old) == b'{"a":"\\ud83d","b":"\\ude00"}'
    assert with_value(HALF, old, b"[]") == b'{"a":"\\ud83d","x":[],"b":"\\ude00"}'
    # The repair of the other members moves the bytes.
    moved = b'{"m":-Infinity,"x":["\\ud83d"]}'
    assert without(moved, b"x", old) == b'{"m":-9999.0}'
    assert with_value(moved, old, b"[]") == b'{"m":-9999.0,"x":[]}'


@pytest.mark.parametrize("data", [b'{"usage":{"n":1},"a":1}', b'{"usage": {"n":1}, "a":1}'])
def test_a_member_is_taken_out_by_its_name(data: bytes) -> None:
    assert without_member(data, "usage") == b'{"a":1}'
    assert without_member(data, "other") == data
    assert without_member(b"[1]", "usage") == b"[1]"


@pytest.mark.parametrize(
    ("data", "expected"), [(b"{}", b'{"k":1}'), (b'{"a":2} ', b'{"a":2,"k":1}'), (b"{ }", b'{"k":1}'), (b"17", b"17")]
)
def test_a_member_is_added_at_the_end(data: bytes, expected: bytes) -> None:
    assert with_member(data, b"k", b"1") == expected


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        (
            {"content": [{"token": 1, "top_logprobs": [1, 2, 3]}]},
            {"content": [{"token": 1, "top_logprobs": [1, 2]}]},
        ),
        ({"reasoning_content": [{"top_logprobs": [1, 2, 3]}]}, {"reasoning_content": [{"top_logprobs": [1, 2]}]}),
        ({"top_logprobs": [{"a": -1, "b": -3, "c": -2}, None]}, {"top_logprobs": [{"a": -1, "c": -2}, None]}),
        (
            {"tokens": ["d"], "top_logprobs": [{"d": -9, "a": -1, "b": None, "c": -2}]},
            {"tokens": ["d"], "top_logprobs": [{"d": -9, "a": -1, "c": -2}]},
        ),
        ({"content": [3, {"token": "a"}]}, {"content": [3, {"token": "a"}]}),
        (None, None),
    ],
)
def test_no_more_alternatives_than_the_client_wants(logprobs: Json, expected: Json) -> None:
    assert trimmed(logprobs, 2) == expected


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning", "text"])
def test_an_event_is_shortened_by_characters_and_tokens(field: str) -> None:
    delta = {field: "abcdef"}
    rows: Json = [{"token": "abc"}, {"token": "def"}]
    choice = {"token_ids": [1, 2], "logprobs": {"content": rows}, "stop": ["x", "y"]}
    choice |= delta if field == "text" else {"delta": delta}
    (row,) = json.loads(shortened(json.dumps({"id": 1, "choices": [choice]}).encode(), 3, 1))["choices"]
    assert row.get("delta", row)[field] == "abc"
    assert (row["token_ids"], row["logprobs"]) == ([1], {"content": [{"token": "abc"}]})
    assert row["stop"] == ["x", "y"]


def test_an_event_without_log_probabilities_is_shortened() -> None:
    data = b'{"choices":[{"delta":{"content":"ab"},"logprobs":null}]}'
    assert shortened(data, 5, 3) == b'{"choices":[{"delta":{"content":""},"logprobs":null}]}'
