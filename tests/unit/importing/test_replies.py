"""Steps from single replies, and the top k that the replies of a file share."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from justenough.errors import TraceFormatError
from justenough.importing import ImportOptions
from justenough.importing.replies import (
    MERGED,
    Numbered,
    at_common_top_k,
    checked,
    narrowed,
    reply_of,
    step_of,
    text_of,
)
from justenough.signal.signal import Signal
from justenough.trace import Json, Step, Trace
from justenough.wire.chunks import Choice, Message, Usage
from tests.unit.importing.samples import chat, entry


def choice_of(value: Json) -> Choice:
    choice = reply_of(value).choice
    assert choice is not None
    return choice


def step(*widths: int, **more: object) -> Step:
    """A step whose tokens have so many log-probabilities each."""
    rows = tuple(tuple(-1.0 - at for at in range(width)) for width in widths)
    return Step(answer="4", tokens=len(widths), top_logprobs=rows, **more)  # type: ignore[arg-type]


def trace(*steps: Step) -> Trace:
    return Trace(id="a", model="m", signal=Signal(top_k=None), steps=steps)


def common(*traces: Trace) -> list[int | None]:
    items = [Numbered(at, each) for at, each in enumerate(traces)]
    result = at_common_top_k(lambda: items, ImportOptions())
    return [item.trace.signal.top_k for item in result if isinstance(item, Numbered)]


def test_reasoning_kept_apart_goes_back_between_its_tags() -> None:
    thoughtful = Choice(message=Message(content="4", reasoning_content="2+2"))
    assert text_of(thoughtful) == "<think>2+2</think>4"
    assert text_of(Choice(text="4")) == "4"


def test_a_step_counts_the_servers_tokens() -> None:
    result = step_of(choice_of(chat()), Usage(7, 9), answer="4", correct=True)
    assert (result.tokens, result.prompt_tokens, result.finish) == (9, 7, "stop")
    assert (result.answer, result.correct, result.token_texts) == ("4", True, ("Answer", ": ", "4"))


def test_a_step_without_usage_counts_its_entries() -> None:
    assert step_of(choice_of(chat()), None, answer="4", correct=None).tokens == 3
    assert step_of(choice_of(chat()), Usage(prompt_tokens=7), answer="4", correct=None).tokens == 3


def test_the_end_of_the_turn_is_no_token() -> None:
    value = chat(entry("4", -0.5, -1.0), entry("<|im_end|>", -0.5, -1.0), text="4")
    assert step_of(choice_of(value), None, answer="4", correct=None).token_texts == ("4",)


def test_a_text_that_cannot_be_counted_is_refused() -> None:
    with pytest.raises(TraceFormatError, match="cannot be counted"):
        step_of(Choice(text="4"), None, answer="4", correct=None)
    assert step_of(Choice(text=""), None, answer=None, correct=None).tokens == 0


def test_log_probabilities_of_another_text_are_refused() -> None:
    value = chat()
    other = "something else entirely"
    messages: list[dict[str, Json]] = [{"content": other}, {"content": "", "reasoning": other}]
    for message in messages:
        value["choices"] = [value["choices"][0] | {"message": message}]  # type: ignore[index, operator]
        with pytest.raises(TraceFormatError, match="not those of its text"):
            step_of(choice_of(value), None, answer=None, correct=None)


def test_log_probabilities_of_the_answer_alone_are_accepted() -> None:
    thought = "First, I add the numbers. " * 9
    value = chat()
    message: Json = {"content": "Answer: 4", "reasoning_content": thought}
    value["choices"] = [value["choices"][0] | {"message": message}]  # type: ignore[index, operator]
    step = step_of(choice_of(value), None, answer="4", correct=None)
    assert (step.tokens, step.text) == (3, f"<think>{thought}</think>Answer: 4")
    # The texts of the tokens are not the whole text, so they are not kept.
    assert step.token_texts is None


def test_the_text_of_a_call_of_a_tool_is_not_known() -> None:
    value = chat(text="I add them.")
    message: Json = {"content": "I add them.", "tool_calls": [{"function": {"name": "add"}}]}
    value["choices"] = [value["choices"][0] | {"message": message}]  # type: ignore[index, operator]
    assert step_of(choice_of(value), None, answer=None, correct=None).tokens == 3


def test_unreadable_log_probabilities_are_refused() -> None:
    value = chat(entry("4", float("nan"), -1.0), text="4")
    with pytest.raises(TraceFormatError, match="logprobs"):
        step_of(choice_of(value), None, answer="4", correct=None)


@pytest.mark.parametrize("value", [3, {"choices": 3}, {"choices": [{"message": {"content": 3}}]}])
def test_a_reply_that_cannot_be_read_is_refused(value: Json) -> None:
    with pytest.raises(TraceFormatError, match="cannot be read"):
        reply_of(value)


def test_own_log_probabilities_are_kept_only_where_every_token_has_one() -> None:
    whole = step_of(choice_of(chat()), None, answer="4", correct=None)
    assert whole.logprobs is not None
    assert len(whole.logprobs) == 3
    partly = chat(entry("4", -0.5), entry("2", -0.5) | {"logprob": None}, text="42")
    assert step_of(choice_of(partly), None, answer="4", correct=None).logprobs is None


@pytest.mark.parametrize(
    ("widths", "expected"),
    [([5, 5], 5), ([5, 21], 5), ([1, 5], 5), ([1, 1], None), ([0], None), ([], None)],
)
def test_the_common_k_is_the_smallest_of_steps_that_have_two(widths: list[int], expected: int | None) -> None:
    steps = [step(width) for width in widths] or [Step(answer="4", tokens=1)]
    assert common(trace(*steps)) == [expected]


@pytest.mark.parametrize(("narrow", "expected"), [(1, 20), (2, 3)])
def test_five_percent_of_a_steps_tokens_may_have_fewer(narrow: int, expected: int) -> None:
    assert common(trace(step(*[20] * (20 - narrow), *[3] * narrow))) == [expected]


def test_narrow_rows_are_dropped_and_counted() -> None:
    narrow = narrowed(step(3, 2, 0, 3, logprobs=(-1.0, -1.1, -1.2, -1.3), token_texts=("a", "b", "c", "d")), 3)
    assert narrow.top_logprobs is not None
    assert [len(row) for row in narrow.top_logprobs] == [3, 3]
    assert narrow.logprobs == (-1.0, -1.3)
    assert (narrow.token_texts, narrow.extra) == (None, {MERGED: 1})


def test_a_step_of_wide_rows_is_not_changed() -> None:
    wide = step(3, 4)
    assert narrowed(wide, 3) is wide
    assert narrowed(Step(answer="4", tokens=1), 3).top_logprobs is None


@pytest.mark.parametrize("top_k", [None, 9])
def test_a_step_without_a_wide_row_has_no_rows(top_k: int | None) -> None:
    assert narrowed(step(3, 2), top_k).top_logprobs is None


def test_all_traces_get_the_common_k() -> None:
    both = [Numbered(1, trace(step(5))), Numbered(2, trace(step(20), step(1)))]
    notes: list[str] = []
    result = at_common_top_k(lambda: both, ImportOptions(note=notes.append))
    items = [item for item in result if isinstance(item, Numbered)]
    assert [item.trace.signal.top_k for item in items] == [5, 5]
    assert notes == ["top_k is 5 for all replies of m: line 1 has no more, others have up to 20"]
    assert items[1].trace.steps[1].top_logprobs is None


def test_each_model_has_its_own_common_k_and_a_stated_one_stays() -> None:
    other = replace(trace(step(20)), model="other")
    stated = replace(trace(step(20)), signal=Signal(top_k=7))
    assert common(trace(step(5)), other, stated) == [5, 20, 7]


def test_a_trace_that_states_its_k_does_not_limit_the_others() -> None:
    assert common(replace(trace(step(3)), signal=Signal(top_k=3)), trace(step(20))) == [3, 20]


def test_there_is_no_note_if_all_replies_have_the_same_k_or_the_model_is_left_out() -> None:
    notes: list[str] = []
    options = ImportOptions(model="other", note=notes.append)
    items = [Numbered(1, trace(step(5), step(20))), Numbered(2, replace(trace(step(20)), model="other"))]
    assert len(list(at_common_top_k(lambda: items, options))) == 2
    assert notes == []


def test_a_checked_trace_keeps_its_empty_rows() -> None:
    kept = checked(trace(step(3, 0, 3)))
    assert kept.steps[0].top_logprobs is not None
    assert [len(row) for row in kept.steps[0].top_logprobs] == [3, 0, 3]


def test_what_the_exchange_format_cannot_hold_is_refused() -> None:
    wrong = Step(answer="4", tokens=1, top_logprobs=((math.nan, -1.0),))
    with pytest.raises(TraceFormatError, match="logprobs"):
        checked(trace(wrong))
