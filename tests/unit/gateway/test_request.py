"""What a request asks for: how much structure is read, and what it may teach."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from justenough.gateway.request import read_request

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"


def members(count: int) -> bytes:
    return ("{" + ",".join(f'"k{at}":{at}' for at in range(count)) + "}").encode()


def question(more: bytes) -> bytes:
    return b'{"messages": [{"role": "user", "content": "?"}], %b}' % more


COMPLEX: dict[str, Callable[[], bytes]] = {
    "members": lambda: members(2_600_000),
    "spaced members": lambda: members(1_000_000).replace(b'":', b'" :'),
    "fewer members": lambda: question(members(20_000)[1:-1]),
    "members of an option": lambda: question(b'"stream_options": ' + members(20_000)),
    "members of the control": lambda: question(b'"justenough": ' + members(20_000)),
    "elements of an option": lambda: question(b'"modalities": ' + json.dumps(["text"] * 20_000).encode()),
    "repeated members": lambda: question(b",".join([b'"messages": []'] * 20_000)),
    "messages": lambda: json.dumps({"messages": [{"role": "user"}] * 1_000_000}).encode(),
    "empty messages": lambda: b'{"messages": [' + b",".join([b"{}"] * 100_000) + b"]}",
    "parts": lambda: json.dumps({"messages": [{"content": [{"type": "text"}] * 100_000}]}).encode(),
    "token prompt": lambda: json.dumps({"prompt": [1] * 5_000_000}).encode(),
    "lists": lambda: json.dumps({"prompt": [[1]] * 1_000_000}).encode(),
    "escapes": lambda: b'{"prompt": "' + b"\\u0041" * 2_000_000 + b'"}',
}


def test_each_embedded_prompt_of_vllm_is_a_choice() -> None:
    request = read_request(TEXT, json.dumps({"prompt": "", "prompt_embeds": ["AA", "BB"]}).encode(), [])
    assert (request.choices, request.relay_reason) == (3, "prompt")


@pytest.mark.parametrize("member", ["truncate_prompt_tokens", "prompt_truncate_len"])
def test_a_prompt_of_which_only_the_end_is_kept_is_relayed(member: str) -> None:
    """After a cut, the end of the prompt would be the thought without the question."""
    for number, reason in ((500, "prompt"), (None, None)):
        body = {"messages": [{"role": "user", "content": "?"}], member: number}
        assert read_request(CHAT, json.dumps(body).encode(), []).relay_reason == reason


@pytest.mark.parametrize("name", list(COMPLEX))
def test_a_body_with_very_many_parts_is_relayed_unread(name: str) -> None:
    body = COMPLEX[name]()
    for path in (CHAT, TEXT):
        request = read_request(path, body, [])
        assert (request.relay_reason, request.readable, request.body) == ("complex", False, body)


def test_members_that_may_be_long_are_read() -> None:
    tools = [{"type": "function", "function": {"name": f"f{at}", "description": "word " * 200}} for at in range(200)]
    schema = {"type": "json_schema", "json_schema": {"schema": {"enum": ["word"] * 20_000}}}
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "?"}], "tools": tools}).encode()
    assert read_request(CHAT, body, []).relay_reason == "tools"
    body = json.dumps({"messages": [{"role": "user", "content": "?"}], "response_format": schema}).encode()
    assert read_request(CHAT, body, []).relay_reason == "json_mode"
    image = {"type": "image_url", "image_url": {"url": "A" * 1_000_000}}
    body = json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, image]}]}).encode()
    assert read_request(CHAT, body, []).relay_reason == "media"


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [("?", 1), ([1, 2, 3], 1), (["a", "b"], 2), ([[1, 2], [3]], 2), ([1, "a"], 2), ([], 1)],
)
def test_each_prompt_of_a_list_is_a_choice(prompt: object, choices: int) -> None:
    assert read_request(TEXT, json.dumps({"prompt": prompt}).encode(), []).choices == choices


def test_a_long_text_is_read_as_ever() -> None:
    text = "Word, word: {x} [y]. " * 40_000
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()
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


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/v1/responses", {"max_output_tokens": 20}),
        ("/v1/messages", {"max_tokens": 20}),
        # An older llama.cpp takes a chat at this path.
        ("/api/chat", {"max_tokens": 20, "options": {"num_predict": 20}}),
        (CHAT, {"max_tokens": 20}),
    ],
)
@pytest.mark.parametrize(
    "more", [{}, {"n_predict": 900}, {"n_predict": -1}, {"max_completion_tokens": 900, "n_predict": 900.0}]
)
def test_a_limit_is_in_every_member_that_a_server_may_read(
    path: str, own: dict[str, Any], more: dict[str, Any]
) -> None:
    request = read_request(path, json.dumps({"input": "x", **more}).encode(), [])
    sent = json.loads(request.limited(20, member="max_tokens").body)
    if path == CHAT and "max_completion_tokens" in more:
        # OpenAI refuses both of its own members together.
        own = {}
    assert sent == {"input": "x", **dict.fromkeys(more, 20), **own}


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/messages", "/api/chat"])
@pytest.mark.parametrize("member", ["n", "n_cmpl"])
def test_each_alternative_is_a_choice_in_every_api(path: str, member: str) -> None:
    assert read_request(path, json.dumps({member: 3}).encode(), []).choices == 3


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/messages", "/api/chat", "/api/generate"])
@pytest.mark.parametrize("member", ["n", "n_predict", "max_completion_tokens"])
def test_a_length_that_cannot_be_read_makes_the_request_unreadable(path: str, member: str) -> None:
    assert not read_request(path, json.dumps({member: "9"}).encode(), []).readable


@pytest.mark.parametrize("members", [{"add_generation_prompt": False}, {"continue_final_message": True}])
def test_without_the_prompt_of_a_new_answer_nobody_knows_whether_a_thought_is_open(members: dict[str, bool]) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "?"}], **members}).encode()
    assert read_request(CHAT, body, []).relay_reason == "prefill"
    other = json.dumps({"messages": [{"role": "user", "content": "?"}], **dict.fromkeys(members)}).encode()
    assert read_request(CHAT, other, []).relay_reason is None
