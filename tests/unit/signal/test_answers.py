"""The one extractor: a stated answer is the same to the graders and to the answer pooling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.signal.answers import after_thought, answer_span, extract_answer

pieces = st.lists(
    st.sampled_from(["Answer:", " the answer is ", r"\boxed{", "}", "{", "7", " 8", "**", ".", "\n", "$", "####", "x"])
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 42", "42"),
        (r"\boxed{7} and Answer: 8", "8"),
        (r"Answer: 8, that is \boxed{7}", "7"),
        (r"Answer: \boxed{7}", "7"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {7}", "7"),
        ("Answer: 5\nI repeat. Answer:", "5"),
        ("Answer:", None),
        (r"Answer: 5, or \boxed{}", None),
        ("**Answer:** `$7$`.", "7"),
    ],
)
@pytest.mark.parametrize("thought", ["", "<think>Answer: 1</think>", "[THINK]Answer: 1[/THINK]"])
def test_a_stated_answer_is_one_to_all(text: str, answer: str | None, thought: str) -> None:
    whole = thought + text
    assert extract_answer(whole) == answer
    for elicited in (False, True):
        span = answer_span(whole, elicited=elicited)
        assert (None if span is None else whole[slice(*span)]) == answer


@given(pieces.map("".join), st.sampled_from(["", "<think>so</think>"]))
def test_the_span_of_an_answer_is_what_the_graders_read(text: str, thought: str) -> None:
    whole = thought + text
    span = answer_span(whole, elicited=True)
    assert (None if span is None else whole[slice(*span)]) == extract_answer(whole)


def test_the_last_line_is_an_answer_only_where_the_text_is_known_to_be_one() -> None:
    assert extract_answer("so\n42") == "42"
    assert answer_span("so\n42") is None
    assert answer_span("so\n42", elicited=True) == (3, 5)
    assert answer_span("</think>42") == (8, 10)


def test_the_text_after_the_thought() -> None:
    texts = ("a", "<think>a", "<think>a</think>b", "a</think>b</think>c", "[THINK]a[/THINK]b")
    assert [after_thought(text) for text in texts] == ["a", "", "b", "c", "b"]
