"""Mathematical equivalence in a worker process."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Iterator

import pytest

from justenough.errors import InputError, MissingExtra
from justenough.grading import Grader, open_grader
from justenough.grading.mathematics import MathGrader


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
    grader = MathGrader(limit_s=4.0)
    assert grader.grade("1+1", "2")
    begun = time.monotonic()
    assert not grader.grade("9^{9^{9^{9}}}", "1")
    assert time.monotonic() - begun > 3.9
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
