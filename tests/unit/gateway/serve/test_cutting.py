"""Members of a request that speak of the whole answer, over a cut."""

from __future__ import annotations

import json
from typing import Any

import pytest

from justenough.gateway.request import CompletionRequest, read_request
from justenough.gateway.serve.cutting import after_cut, stops_within


def request(**members: Any) -> CompletionRequest:
    return read_request("/v1/chat/completions", json.dumps({"messages": [{"role": "user"}], **members}).encode(), [])


@pytest.mark.parametrize(
    ("members", "rest"),
    [
        ({"min_tokens": 50}, {"min_tokens": 43}),
        ({"min_tokens": 5}, {"min_tokens": 0}),
        ({"min_tokens": 50.0}, {"min_tokens": 43}),
        ({"echo": True, "min_tokens": 5}, {"min_tokens": 0}),
        ({"echo": True, "seed": 1}, {"seed": 1}),
        ({"seed": 1}, {"seed": 1}),
        ({"min_tokens": "many"}, {"min_tokens": "many"}),
    ],
)
def test_the_rest_of_an_answer_has_the_rest_of_its_least_tokens_and_no_echo(members: Any, rest: Any) -> None:
    body = json.loads(after_cut(request(**members), 7).with_fields())
    assert {key: value for key, value in body.items() if key != "messages"} == rest


@pytest.mark.parametrize(
    ("stop", "within"),
    [
        ("</think>", True),
        (["###", "\n</th"], True),
        ("k>\n\nThe", True),
        ("42.\n<", True),
        ("ink>", True),
        (["###", "Observation:"], False),
        ("", False),
        (None, False),
        ([17], False),
    ],
)
def test_a_stop_sequence_may_touch_the_closing_text(stop: Any, within: bool) -> None:
    assert stops_within(request(stop=stop), "\n</think>\n\n") is within
