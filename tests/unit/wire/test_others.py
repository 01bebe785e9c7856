"""What a message has beside its texts."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from justenough.wire.others import others_of

IMAGE: Final = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
AUDIO: Final = {"id": "a", "data": "QUJD"}
PARTS: Final[list[Any]] = [
    {"type": "text", "text": "a"},
    "b",
    IMAGE,
    {"type": "thinking", "thinking": [{"type": "text", "text": "c"}]},
    {"type": "reasoning", "text": "d"},
]


@pytest.mark.parametrize("name", ["delta", "message"])
@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"refusal": "No."}, {"refusal": "No."}),
        ({"content": "a", "images": [IMAGE]}, {"images": [IMAGE]}),
        ({"content": None, "audio": AUDIO, "annotations": []}, {"audio": AUDIO}),
        ({"content": PARTS}, {"content": [IMAGE]}),
        ({"content": PARTS[:2]}, {}),
        ({"role": "assistant", "content": "a", "reasoning": "b", "thinking": {"c": 1}, "refusal": None}, {}),
        ({"tool_calls": [{}], "function_call": {"name": "f"}, "audio": None, "images": []}, {}),
    ],
)
def test_other_members_are_those_that_nobody_else_reads(name: str, members: Any, expected: Any) -> None:
    assert others_of(json.dumps({"choices": [{"index": 0, name: members}]}).encode()) == expected


@pytest.mark.parametrize("value", [{}, {"choices": []}, {"choices": None}, {"choices": [{"text": "a"}]}, [], 5])
def test_what_has_no_message_has_no_other_members(value: Any) -> None:
    assert others_of(json.dumps(value).encode()) == {}


def test_the_whole_message_beside_a_piece_is_not_read_again() -> None:
    chunk = {"choices": [{"delta": {}, "message": {"refusal": "No."}}]}
    assert others_of(json.dumps(chunk).encode()) == {}


def test_what_cannot_be_read_has_no_other_members() -> None:
    assert others_of(b"{nothing") == others_of(b'{"choices":[{"delta":5}]}') == {}


def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    assert others_of(b'{"choices":[{"message":{"refusal":"N\xff"}}]}') == {"refusal": "N\ufffd"}
