"""The built-in tasks: entry points, splits, and problems with their targets."""

from __future__ import annotations

from itertools import islice

import pytest

from justenough.grading import Exact, built_in_tasks, read_tasks
from justenough.toy.families import FAMILIES, Question, parse, split_of
from justenough.toy.tasks import ARITHMETIC, ARITHMETIC_CALIBRATION, ArithmeticTask, problem_of

NAMES = ("arithmetic", "arithmetic-calibration", "product", "remainder", "sum")


def tasks() -> dict[str, ArithmeticTask]:
    return {name: task for name, task in built_in_tasks().items() if isinstance(task, ArithmeticTask)}


def test_the_tasks_enter_by_their_own_names() -> None:
    assert tuple(tasks()) == NAMES
    for name, task in tasks().items():
        assert task.name == name
        assert task.summary


@pytest.mark.parametrize("name", NAMES)
def test_every_problem_is_of_the_split_and_the_families_of_its_task(name: str) -> None:
    task = tasks()[name]
    problems = list(islice(task.problems(seed=0), 60))
    assert len({problem.id for problem in problems}) == 60
    assert {problem.task for problem in problems} == {name}
    assert {problem.family for problem in problems} == set(task.families)
    for problem in problems:
        question = parse(problem.problem)
        assert split_of(question) == task.split
        assert problem.target == str(question.answer)
        assert problem.group == f"{question.family}-{question.level}"


def test_a_problem_is_its_own_id_and_its_target_is_graded_right() -> None:
    problem = problem_of(Question("product", 3, (47, 36)), task="mine")
    assert (problem.id, problem.problem, problem.target) == ("47*36", "47*36", "1692")
    assert (problem.task, problem.family, problem.group) == ("mine", "product", "product-3")
    grader = Exact()
    assert grader.grade(grader.extract("Answer: 1692") or "", problem.target or "")


def test_the_seed_chooses_the_problems() -> None:
    first, again = (list(islice(ARITHMETIC.problems(seed=1), 20)) for _ in range(2))
    assert first == again
    assert first != list(islice(ARITHMETIC.problems(seed=2), 20))
    assert first == read_tasks("arithmetic", seed=1, limit=20)


def test_calibration_and_evaluation_share_no_problem() -> None:
    held_out = {problem.id for problem in islice(ARITHMETIC.problems(seed=0), 300)}
    labelled = {problem.id for problem in islice(ARITHMETIC_CALIBRATION.problems(seed=0), 300)}
    assert not held_out & labelled


def test_a_family_that_is_exhausted_ends_its_task() -> None:
    small = ArithmeticTask("small", "one family", "test", ("remainder",))
    problems = list(small.problems(seed=0))
    assert 600 < len(problems) < 10_000
    assert len({problem.id for problem in problems}) == len(problems)
    assert set(FAMILIES) > {problem.family for problem in problems}
