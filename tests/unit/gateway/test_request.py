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
    ("members", "plain"),
    [
        ({}, True),
        ({"temperature": 1, "stop": ["a"], "max_tokens": 5, "stream": True, "top_logprobs": 3}, True),
        ({"post_sampling_probs": False}, False),
        ({"logit_bias": {"1": 100}}, False),
    ],
)
def test_only_plain_members_teach_something_of_the_model(members: dict[str, object], plain: bool) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "?"}], **members}).encode()
    assert read_request(CHAT, body, []).is_plain is plain
