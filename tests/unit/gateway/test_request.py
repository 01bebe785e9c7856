"""What a request asks for: how much structure is read, and what it may teach."""

from __future__ import annotations

import json
import time

import pytest

from justenough.gateway.exchange import Refused
from justenough.gateway.request import read_request, read_responses

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


def members(count: int) -> bytes:
    return ("{" + ",".join(f'"k{at}":{at}' for at in range(count)) + "}").encode()


COMPLEX = {
    "members": members(2_600_000),
    "spaced members": members(1_000_000).replace(b'":', b'" :'),
    "messages": json.dumps({"messages": [{"role": "user"}] * 1_000_000}).encode(),
    "token prompt": json.dumps({"prompt": [1] * 5_000_000}).encode(),
    "lists": json.dumps({"prompt": [[1]] * 1_000_000}).encode(),
}


@pytest.mark.parametrize("name", list(COMPLEX))
@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_body_with_millions_of_parts_is_relayed_unread(name: str, path: str) -> None:
    body = COMPLEX[name]
    begun = time.process_time()
    asked = read_request(path, body, [])
    assert (asked.relay_reason, asked.readable, asked.body) == ("complex", False, body)
    # Reading 2.6 million members took 2.3 s; counting is a hundred times as fast, on any machine.
    assert time.process_time() - begun < 1.0


def test_the_same_holds_under_a_budget_for_responses() -> None:
    with pytest.raises(Refused, match="must be readable"):
        read_responses(COMPLEX["members"])


def test_a_long_text_is_read_as_ever() -> None:
    text = "Word, word: {x} [y]. " * 40_000
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
    assert len(body) < 1 << 20
    asked = read_request(CHAT, body, [])
    assert (asked.relay_reason, asked.problem) == (None, text)
    image = json.dumps({"messages": [{"role": "user", "content": "A" * 20_000_000}]}).encode()
    assert read_request(CHAT, image, []).relay_reason is None


@pytest.mark.parametrize(
    ("members", "plain", "keeps_logprobs"),
    [
        ({}, True, True),
        ({"temperature": 1, "seed": 1, "max_tokens": 5, "stream": True, "top_logprobs": 3}, True, True),
        ({"stream_options": {"include_usage": True}}, True, True),
        ({"stream_options": {"include_usage": True, "other": 1}}, True, False),
        *(
            ({member: value}, False, True)
            for member, value in {
                "chat_template_kwargs": {"enable_thinking": False},
                "stop": ["a"],
                "top_p": 0.1,
                "top_k": 1,
                "min_p": 0.5,
                "presence_penalty": 2,
            }.items()
        ),
        *(
            ({member: 1}, False, False)
            for member in (
                *("post_sampling_probs", "logit_bias", "enable_thinking", "guided_choice", "response_format"),
                *("tools", "reasoning_effort", "mirostat", "a_member_of_tomorrow"),
            )
        ),
    ],
)
def test_only_members_that_shape_nothing_are_plain(
    members: dict[str, object], plain: bool, keeps_logprobs: bool
) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "?"}], **members}).encode()
    request = read_request(CHAT, body, [])
    assert (request.is_plain, request.keeps_logprobs) == (plain, keeps_logprobs)
