"""Graders: answers out of model output, right or wrong."""

from __future__ import annotations

import pytest

from justenough.errors import InputError
from justenough.grading import open_grader
from justenough.signal.answers import extract_answer

FALSY = "not a function"


def same_length(answer: str, target: str) -> bool:
    return len(answer) == len(target)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{204}.", "204"),
        (r"\boxed{1}, no, \boxed{\frac{1}{2}} it is. Answer: 7", "7"),
        (r"Answer: 7, that is \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("[THINK]Answer: 3[/THINK]4", "4"),
        ("<thought>Answer: 3 and then it was cut", None),
        ("The tag <thought> is the answer: yes", "yes"),
        (r"\boxed{}", None),
        (r"Answer: 5 or \boxed{6", "5 or \\boxed{6"),
        ("Answer: 204", "204"),
        ("The final answer is: 42.", "42"),
        ("**Final Answer:** `17`", "17"),
        ("**Answer**: x = 3.", "x = 3"),
        ("the answer is **Paris**.", "Paris"),
        ("Answer: 1\nOn reflection:\nAnswer: 2", "2"),
        ("Answer:\n  12", "12"),
        ("Answer: 5\nI repeat. Answer:", "5"),
        ("47*36=1692\nAnswer:", None),
        ("first\n\nlast line.\n\n", "last line"),
        ("reasoning\n#### 18", "18"),
        ("", None),
        ("  \n ", None),
        ("<think>Answer: 3</think>", None),
        ("<think>Answer: 3</think>Answer: 4", "4"),
        ("Answer: 3</think>\n\n4", "4"),
        ("<think>Answer: 3 and then it was cut", None),
    ],
)
def test_the_stated_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("spec", "text", "extracted", "target", "right"),
    [
        ("exact", "Answer: 1,852", "1852", "1852", True),
        ("exact", "Answer: 47*36 = 1852", "1852", " 1,852 ", True),
        ("exact", "Answer: −7", "-7", "-7", True),
        ("exact", "Answer: -7", "-7", "−7", True),
        ("exact", "Answer: +007.", "7", "7", True),
        ("exact", "Answer: 0", "0", "00", True),
        ("exact", "Answer: 42.0", "42", "42", True),
        ("exact", "Answer: 2.5", "2.5", "5", False),
        ("exact", "Answer: 2.5", "2.5", "2.5", True),
        ("exact", "Answer: 1/2", "1/2", "2", False),
        ("exact", "Answer: 6/2", "3", "3", True),
        ("exact", "Answer: $5", "5", "5", True),
        ("exact", r"\boxed{8,\!000}", "8000", "8000", True),
        ("exact", r"Answer: -\$2,350", "-2350", "-2350", True),
        ("exact", r"Answer: 8{,}000", "8000", r"8,\!000", True),
        ("number", r"\boxed{8,\!000}", "8,000", "8000", True),
        ("number", r"Answer: -\$2,350", "-$2,350", "-2350", True),
        ("exact", "Answer: 50%", "50", "50", True),
        ("exact", "Answer: 1692", "1692", "1692.0", True),
        ("exact", "Answer: 1692.0", "1692", "1692.0", True),
        ("exact", "Answer: 1693", "1693", "1692.0", False),
        ("exact", "Answer: 1692.5", "1692.5", "1692.50", True),
        ("exact", "Answer: 1692", "1692", "1692.5", False),
        ("exact", "Answer: 1692", "1692", "1.692e3", True),
        ("exact", "Answer: -$2,350", "-2350", "-$2,350.00", True),
        ("exact", "Answer: 50%", "50", "50%", True),
        ("exact", "Answer: 0.5%", "0.5%", "0.5", False),
        ("exact", "Answer: 1692 km", "1692", "1692.0 km", False),
        ("exact", "Answer: New  York", "newyork", "new york", True),
        ("exact", "Answer: 9" + "9" * 6000, "9" * 6001, "9" * 6001, True),
        ("exact", "Answer: 1e999999999", "999999999", "1", False),
        ("exact", "<think>12", None, "12", False),
        ("number", "Answer: 3.14", "3.14", "3.14", True),
        ("number", "Answer: 0.5", "0.5", "1/2", True),
        ("number", "Answer: 50%", "50%", "0.5", True),
        ("number", "Answer: −5", "-5", "5", False),
        ("number", "Answer: 1,000,000.5", "1,000,000.5", "1000001", True),
        ("number", "Answer: 1.00001", "1.00001", "1", False),
        ("number", "Answer: 1/0", "1/0", "1", False),
        ("number", "Answer: 1.5e3", "1.5e3", "1500", True),
        ("number", "Answer: 0", "0", "0.0", True),
        ("number", "Answer: none", None, "1", False),
        ("number", "Answer: 7", "7", "seven", False),
        ("choice", "Answer: (C)", "C", "C", True),
        ("choice", "The answer is **B**.", "B", "(b)", True),
        ("choice", "Answer: none of these", None, "A", False),
        ("json", 'Answer: {"b": 2, "a": [1]}', '{"a":[1],"b":2}', '{"a": [1], "b": 2}', True),
        ("json", "{broken [1, 2]", "[1,2]", "[2, 1]", False),
        ("json", "<think>[1]</think> no value", None, "[1]", False),
        ("json", "<think>[1] and then it was cut", None, "[1]", False),
    ],
)
def test_graders(spec: str, text: str, extracted: str | None, target: str, right: bool) -> None:
    grader = open_grader(spec)
    assert grader.extract(text) == extracted
    if extracted is not None:
        assert grader.grade(extracted, target) is right
    grader.close()


def test_a_target_that_is_no_json_is_the_task_files_fault() -> None:
    with pytest.raises(InputError, match="correct the task file"):
        open_grader("json").grade("[1]", "{oops")


def test_a_function_of_the_users_own_grades() -> None:
    grader = open_grader(f"{__name__}:same_length")
    assert grader.extract("Answer: abc") == "abc"
    assert grader.grade("abc", "xyz")
    assert not grader.grade("abc", "wxyz")
    grader.close()


@pytest.mark.parametrize(
    "spec", ["fuzzy", "no.such.module:f", f"{__name__}:absent", f"{__name__}:FALSY", ":f", f"{__name__}:"]
)
def test_an_unknown_grader_is_refused(spec: str) -> None:
    with pytest.raises(InputError, match=r"grader|function"):
        open_grader(spec)
