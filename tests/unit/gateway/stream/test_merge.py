"""Parts of an answer, merged at any level."""

from __future__ import annotations

from typing import Any

import pytest

from justenough.gateway.stream.merge import Merged


def merged(*parts: Any, joins: bool = True) -> Any:
    whole = Merged(joins=joins)
    for part in parts:
        whole.add(part)
    return whole.whole()


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        ([{"content": "a"}, {"content": "a"}], {"content": "aa"}),
        ([{"note": "a"}, {"note": "b"}], {"note": "ab"}),
        ([{"channel": "final"}, {"channel": "final"}], {"channel": "final"}),
        ([{"role": "assistant"}, {"role": "assistant"}, {"role": ""}], {"role": "assistant"}),
        (
            [{"c": [{"index": 0, "id": "x", "arguments": "1"}]}] * 2
            + [{"c": [{"index": 0, "id": "", "arguments": ""}]}],
            {"c": [{"index": 0, "id": "x", "arguments": "11"}]},
        ),
        ([{"a": None}, {"a": 1}, {"a": None}, {"a": 2}], {"a": 2}),
        ([{"a": None}], {"a": None}),
        ([{"ids": [1]}, {"ids": [1, 2]}], {"ids": [1, 1, 2]}),
        (
            [{"v": {"ids": [1]}}, {"v": {"ids": [2], "text": "x"}}, {"v": {"text": "x"}}],
            {"v": {"ids": [1, 2], "text": "xx"}},
        ),
        (
            [
                {"c": [{"index": 1, "id": "x"}]},
                {"c": [{"index": 0}, {"index": 1, "arguments": "1"}]},
                {"c": [{"index": 1, "arguments": "1"}]},
            ],
            {"c": [{"index": 1, "id": "x", "arguments": "11"}, {"index": 0}]},
        ),
        (
            [{"content": "a"}, {"content": [{"type": "image"}]}],
            {"content": [{"type": "text", "text": "a"}, {"type": "image"}]},
        ),
        ([{"content": 17}, {"content": "a"}], {"content": "a"}),
    ],
)
def test_parts_are_merged(parts: Any, whole: Any) -> None:
    assert merged(*parts) == whole


def test_without_joining_the_last_text_of_another_name_stays() -> None:
    assert merged({"a": "x", "text": "1"}, {"a": "y", "text": "2"}, joins=False) == {"a": "y", "text": "12"}


def test_no_value_of_another_type_replaces_a_text() -> None:
    assert merged({"text": "Two"}, {"text": {"odd": 1}}, {"text": "."}, {"note": "a"}, {"note": ["b"]}) == {
        "text": "Two.",
        "note": "a",
    }
