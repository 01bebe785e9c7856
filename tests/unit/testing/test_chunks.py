"""The JSON of the mock's answers, engine by engine."""

from __future__ import annotations

import math
from typing import Literal, cast

import pytest

from justenough.signal.entropy import entropy_of
from justenough.testing import CONFIDENT, UNSURE, Fault
from justenough.testing.chunks import Chunks, Voice
from justenough.trace import Json

Object = dict[str, Json]
WANTS: Object = {"logprobs": True, "top_logprobs": 3}


def chunks(
    fields: Object | None = None,
    *,
    engine: Literal["vllm", "llama.cpp", "plain"] = "vllm",
    chat: bool = True,
    fault: Fault = Fault.NONE,
    field: str | None = None,
    apart: bool = False,
) -> Chunks:
    rows = ((-0.1, -3.0, -4.0, -5.0), (-0.7, -0.8, -math.inf, -9.0))
    voice = Voice(answer_id="x", model="m", engine=engine, reasoning_field=field, logprobs=rows, logprobs_apart=apart)
    return Chunks(voice, fields or {}, chat=chat, fault=fault)


def choice(event: Object) -> Object:
    (row,) = cast("list[Object]", event["choices"])
    return row


def logprobs(event: Object) -> dict[str, list[Object]]:
    return cast("dict[str, list[Object]]", choice(event)["logprobs"])


def test_the_constants_have_the_entropies_of_their_docstrings() -> None:
    assert entropy_of(CONFIDENT, tail="renormalise") == pytest.approx(0.0022, abs=5e-5)
    assert entropy_of(UNSURE, tail="renormalise") == pytest.approx(math.log2(20))


def test_every_event_has_the_identity_of_the_answer() -> None:
    maker = chunks()
    for event in (maker.role(), maker.tokens([("a", 0, False)]), maker.last("stop"), maker.usage(1)):
        assert (event["id"], event["model"], event["object"]) == ("x", "m", "chat.completion.chunk")
    assert chunks(chat=False).last("stop")["object"] == "text_completion"


def test_tokens_go_into_the_field_they_belong_to() -> None:
    tokens = [("a", 0, True), ("b", 1, True), ("4", 2, False)]
    assert choice(chunks().tokens(tokens))["delta"] == {"content": "ab4"}
    assert choice(chunks(field="reasoning").tokens(tokens))["delta"] == {"reasoning": "ab", "content": "4"}
    assert choice(chunks(chat=False).tokens(tokens))["text"] == "ab4"


def test_log_probabilities_come_only_on_request() -> None:
    assert "logprobs" not in choice(chunks().tokens([("a", 0, False)]))
    assert "logprobs" not in choice(chunks({"logprobs": False}).tokens([("a", 0, False)]))
    assert "logprobs" in choice(chunks(WANTS).tokens([("a", 0, False)]))
    assert "logprobs" not in choice(chunks(WANTS, fault=Fault.NO_LOGPROBS).tokens([("a", 0, False)]))


def test_each_token_has_its_own_row_and_later_tokens_the_last() -> None:
    event = chunks(WANTS).tokens([("a", 0, False), ("b", 1, False), ("c", 7, False)])
    entries = logprobs(event)["content"]
    assert [entry["token"] for entry in entries] == ["a", "b", "c"]
    assert [entry["logprob"] for entry in entries] == [-0.1, -0.7, -0.7]
    tops = [[top["logprob"] for top in cast("list[Object]", entry["top_logprobs"])] for entry in entries]
    assert tops == [[-0.1, -3.0, -4.0], [-0.7, -0.8, -9.0], [-0.7, -0.8, -9.0]]


def test_an_infinite_log_probability_is_the_number_that_vllm_sends() -> None:
    event = chunks({"logprobs": True, "top_logprobs": 4}).tokens([("b", 1, False)])
    (entry,) = logprobs(event)["content"]
    assert [top["logprob"] for top in cast("list[Object]", entry["top_logprobs"])][-1] == -9999.0


def test_the_entries_of_a_thought_may_be_apart() -> None:
    event = chunks(WANTS, field="reasoning_content", apart=True).tokens([("a", 0, True), ("4", 1, False)])
    assert [entry["token"] for entry in logprobs(event)["content"]] == ["4"]
    assert [entry["token"] for entry in logprobs(event)["reasoning_content"]] == ["a"]


def test_plain_completions_have_the_older_form_except_in_llama_cpp() -> None:
    tokens = [("a", 0, False)]
    old = cast("Object", choice(chunks({"logprobs": 2}, chat=False).tokens(tokens))["logprobs"])
    assert old["tokens"] == ["a"]
    assert old["token_logprobs"] == [-0.1]
    assert old["top_logprobs"] == [{"a": -0.1, "a#1": -3.0}]
    new = cast("Object", choice(chunks({"logprobs": 2}, chat=False, engine="llama.cpp").tokens(tokens))["logprobs"])
    assert list(new) == ["content"]


def test_usage_is_continuous_only_in_vllm() -> None:
    options: Object = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    event = chunks(options).tokens([("a", 4, False)])
    assert cast("Object", event["usage"])["completion_tokens"] == 5
    assert "usage" not in chunks(options, engine="llama.cpp").tokens([("a", 4, False)])
    assert chunks(options).include_usage
    assert not chunks({"stream_options": None}).include_usage


def test_the_prompt_is_counted_in_words_and_turns() -> None:
    fields: Object = {"messages": [{"role": "user", "content": "one two three"}]}
    assert chunks(fields).prompt_tokens == 5
    assert chunks(fields | {"continue_final_message": True}).prompt_tokens == 3
    assert chunks(fields | {"continue_final_message": True}, engine="llama.cpp").prompt_tokens == 5
    assert chunks({"prompt": "one two"}, chat=False).prompt_tokens == 4


def test_a_complete_answer_repeats_the_prefill_and_counts_all_tokens() -> None:
    whole = chunks(WANTS, field="reasoning").whole([("a", True), ("4", False), ("2", False)], "stop", echo="So ")
    row = choice(whole)
    assert row["message"] == {"role": "assistant", "content": "So 42", "reasoning": "a"}
    assert cast("Object", whole["usage"])["completion_tokens"] == 3
    assert len(logprobs(whole)["content"]) == 3
    assert whole["object"] == "chat.completion"
