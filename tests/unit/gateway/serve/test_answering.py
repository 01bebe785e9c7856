"""The answer after a cut, for members of the request and of the answer that a cut touches."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from justenough.testing import CONFIDENT
from tests.unit.gateway.wild import Body, Scripted, chunk, event, seen, tried

CUT: Final = "<think>Let me think.\n\n</think>The answer is 42."
DETAILS: Final = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}


def sure(**members: Any) -> Scripted:
    """A server whose thought is cut after its first step."""
    return Scripted(row=CONFIDENT, **members)


def test_a_text_completion_has_log_probabilities_with_running_offsets_over_the_cut() -> None:
    for each in tried(sure(), "gate", kinds=("completion",), logprobs=3):
        answer = seen(each.through)
        assert answer.text == CUT
        tokens, offsets = answer.logprobs["tokens"], answer.logprobs["text_offset"]
        assert tokens == ["<think>", "Let me", " think.\n\n", "The answer", " is 42."]
        assert all(answer.text.startswith(token, at) for token, at in zip(tokens, offsets, strict=True))
        # The sampled token is not among the three most likely ones.
        assert {len(top) for top in answer.logprobs["top_logprobs"]} == {4}


@pytest.mark.parametrize("stop", ["</think>", ["x", "\n\n</think>The"]])
def test_with_a_stop_sequence_in_the_closing_text_nothing_is_cut(stop: Any) -> None:
    for each in tried(sure(), "gate", stop=stop):
        assert seen(each.through) == seen(each.direct), each
        assert "stop_sequence" in each.through.text
        assert len(each.requests) == 1


def test_the_least_number_of_tokens_is_for_the_whole_answer_and_nothing_is_echoed() -> None:
    for each in tried(sure(), "gate", kinds=("chat",), min_tokens=10, echo=True, stop="###"):
        assert seen(each.through).text == CUT
        first, second = map(json.loads, each.requests)
        assert (first["min_tokens"], first["echo"], first["stop"]) == (10, True, "###")
        assert (second["min_tokens"], second.get("echo"), second["stop"]) == (7, None, "###")


def test_the_usage_of_a_cut_answer_keeps_the_upstreams_members() -> None:
    def write(values: list[Body]) -> bytes:
        continuous = [value | {"usage": value.get("usage", DETAILS)} for value in values]
        return b"".join(map(event, continuous)) + b"data: [DONE]\n\n"

    usage = {"prompt_tokens": 30, "completion_tokens": 2}
    for each in tried(sure(write=write, usage=usage), "gate", stream_options={"include_usage": True}):
        assert seen(each.through).usage == DETAILS | {
            "completion_tokens": 5,
            "total_tokens": 14,
            "completion_tokens_details": {"reasoning_tokens": 3},
        }


def test_without_a_usage_of_the_upstream_a_cut_answer_has_none() -> None:
    for each in tried(sure(), "gate", stream_options={"include_usage": True}):
        answer = seen(each.through)
        assert (answer.text, answer.usage) == (CUT, None)


def test_a_text_completion_whose_answer_fails_is_answered_by_its_own_request() -> None:
    def write(values: list[Body]) -> bytes:
        whole = len(values) > 4
        return b"".join(map(event, values)) if whole else event(chunk(None, {}) | {"error": {"message": "full"}})

    for each in tried(sure(write=write), "gate"):
        answer = seen(each.through)
        assert (answer.status, answer.finish, answer.errors) == (200, "stop", 0)
        assert answer.text == (CUT if each.stream else seen(each.direct).text)
