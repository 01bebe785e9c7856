import importlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from justenough.errors import InputError, MissingExtra
from justenough.grading import Exact, Grader, extract_answer, open_grader, read_tasks
from justenough.grading.mathematics import MathGrader
from justenough.grading.tasks import DEFAULT_SIZE
from justenough.toy.families import FAMILIES

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


@pytest.fixture(scope="module")
def mathematics() -> Iterator[Grader]:
    grader = open_grader("math")
    yield grader
    grader.close()


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        (r"\frac{1}{2}", "0.5", True),
        ("2x + x", "3x", True),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        ("3", "4", False),
        ("%%", "1", False),
        ("x^{", "x", False),
    ],
)
def test_mathematical_equivalence(mathematics: Grader, answer: str, target: str, right: bool) -> None:
    assert mathematics.grade(answer, target) is right


def test_mathematics_is_graded_from_threads_too(mathematics: Grader) -> None:
    verdicts: dict[int, bool] = {}

    def grade(number: int) -> None:
        verdicts[number] = mathematics.grade(f"{number} + 1", str(number + number % 2))

    threads = [threading.Thread(target=grade, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == {number: number % 2 == 1 for number in range(6)}


def test_an_expression_that_takes_for_ever_is_wrong_in_time_and_the_next_is_graded() -> None:
    # Shorter than the library's own limit of 5 s, so that it is ours that ends it.
    grader = MathGrader(limit_s=1.5)
    assert grader.grade("1+1", "2")
    begun = time.monotonic()
    assert not grader.grade("9^{9^{9^{9}}}", "1")
    assert time.monotonic() - begun > 1.4
    assert grader.grade("1+2", "3")
    grader.close()
    assert grader.grade("1+3", "4")
    grader.close()


def test_a_worker_that_cannot_start_is_no_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a script is read from standard input: every answer was once graded wrong, silently."""
    monkeypatch.setattr("justenough.grading.mathematics._ready", os.abort)
    grader = MathGrader()
    with pytest.raises(InputError, match="does not start"):
        grader.grade("1/2", "0.5")
    assert grader.grade("1/2", "1/2") is True
    grader.close()


def test_a_worker_that_starts_too_late_is_no_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.grading.mathematics._START_S", 0.001)
    grader = MathGrader()
    with pytest.raises(InputError, match=r"does not start within 0\.001 s"):
        grader.grade("1/2", "0.5")
    grader.close()


def test_without_math_verify_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"justenough\[math\]"):
        open_grader("math")


def test_task_files_are_read_with_defaults_and_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "aime.jsonl"
    path.write_text(
        '{"id": 1, "problem": "one", "target": 204, "group": "easy"}\n\n'
        '{"id": "b", "problem": "two", "task": "other"}\nnonsense\n'
    )
    problems = read_tasks(str(path), limit=2)
    assert [(one.id, one.target, one.task, one.group) for one in problems] == [
        ("1", "204", "aime", "easy"),
        ("b", None, "other", None),
    ]
    with pytest.raises(InputError, match=r"aime.jsonl:4: no JSON"):
        read_tasks(str(path))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("[1]", ":1: no object"),
        ('{"problem": "p"}', ":1: id is None"),
        ('{"id": "", "problem": "p"}', ":1: id is ''"),
        ('{"id": true, "problem": "p"}', ":1: id is True"),
        ('{"id": "a"}', ":1: problem is None"),
        ('{"id": "a", "problem": "p", "target": [1]}', r":1: target is \[1\]"),
        ('{"id": "a", "problem": "p"}\n{"id": "a", "problem": "q"}', "comes twice"),
        ("", "holds no problem"),
    ],
)
def test_a_bad_task_file_is_refused_by_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(line)
    with pytest.raises(InputError, match=complaint):
        read_tasks(str(path))


def test_bytes_that_are_no_text_and_names_that_are_no_task_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="no JSON"):
        read_tasks(str(tmp_path / "t.jsonl"))
    with pytest.raises(InputError, match="arithmetic"):
        read_tasks("no-such-task")
    with pytest.raises(InputError, match="limit is 0"):
        read_tasks("arithmetic", limit=0)


def test_built_in_tasks_are_graded_by_their_targets_and_share_no_problem() -> None:
    held_out, calibration = read_tasks("arithmetic"), read_tasks("arithmetic-calibration", limit=200)
    assert len(held_out) == DEFAULT_SIZE
    assert not {one.id for one in held_out} & {one.id for one in calibration}
    assert read_tasks("arithmetic", seed=1, limit=9) == read_tasks("arithmetic", seed=1)[:9]
    grader = Exact()
    assert all(grader.grade(grader.extract(f"Answer: {one.target}") or "", one.target or "") for one in held_out)
    assert {one.family for one in held_out} == set(FAMILIES)
    assert all(one.group for one in held_out)
