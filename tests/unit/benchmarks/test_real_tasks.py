"""The tasks for weak models: the same for the same seed, and right."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.real import capitals, sums, word_problems
from benchmarks.real.capitals import contains
from benchmarks.real.tables import FILES
from benchmarks.real.word_problems import LEVELS
from justenough.grading import read_tasks
from justenough.trace.files import read_traces

NUMBERS = {"twice": 2, "three times": 3, "four times": 4}


def worked_out(text: str) -> int:
    """The answer, read from the text alone."""
    first, *events, _ = re.split(r"(?<=[.?]) ", text)
    count = int(re.findall(r"\d+", first)[0])
    for event in events:
        numbers = [int(found) for found in re.findall(r"\d+", event)]
        if "boxes" in event:
            count += numbers[0] * numbers[1]
        elif "piles" in event:
            assert count % numbers[0] == 0
            count //= numbers[0]
        elif "week later" in event:
            count *= next(factor for word, factor in NUMBERS.items() if word in event)
        elif "gets" in event:
            count += numbers[0]
        else:
            count -= numbers[0]
        assert count >= 1
    return count


def test_every_answer_follows_from_its_text() -> None:
    for problem in islice(word_problems.word_problems(seed=3), 500):
        assert worked_out(problem.text) == problem.answer


def test_the_same_seed_gives_the_same_problems_and_another_seed_others() -> None:
    assert word_problems.task_lines(50, seed=1) == word_problems.task_lines(50, seed=1)
    assert word_problems.task_lines(50, seed=1) != word_problems.task_lines(50, seed=2)


def test_a_longer_file_begins_with_the_shorter_one() -> None:
    assert word_problems.task_lines(80, seed=0)[:30] == word_problems.task_lines(30, seed=0)


def test_levels_take_turns_and_no_text_comes_twice() -> None:
    drawn = list(islice(word_problems.word_problems(seed=0), 1000))
    assert Counter(problem.level for problem in drawn) == dict.fromkeys(range(1, len(LEVELS) + 1), 200)
    assert len({problem.text for problem in drawn}) == 1000


def test_a_higher_level_has_more_events() -> None:
    for problem in islice(word_problems.word_problems(seed=0), 100):
        assert len(re.findall(r"[.?](?: |$)", problem.text)) == LEVELS[problem.level - 1].events + 2


@pytest.mark.parametrize("lines", [word_problems.task_lines(25, seed=0), capitals.task_lines(25, seed=0)])
def test_the_lines_are_a_task_file(lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    problems = read_tasks(str(path))
    assert len(problems) == 25
    assert all(problem.group and problem.target for problem in problems)


def test_every_country_is_asked_for_in_both_directions() -> None:
    lines = [json.loads(line) for line in capitals.task_lines(10_000, seed=0)]
    countries = sum(len(pairs.split()) for pairs in capitals.CAPITALS.values())
    assert len(lines) == 2 * countries
    assert len({line["id"] for line in lines}) == len(lines)
    assert not any("_" in line["problem"] for line in lines)


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("Paris", "Paris", True),
        ("the capital of France is paris, of course", "Paris", True),
        ("Parisian food", "Paris", False),
        ("Brasília", "Brasilia", True),
        ("New Delhi", "New Delhi", True),
        ("Delhi, New", "New Delhi", False),
        ("N’Djamena", "N'Djamena", True),
        ("Port au Prince", "Port-au-Prince", True),
        ("", "Paris", False),
    ],
)
def test_an_answer_in_a_sentence_counts(answer: str, target: str, right: bool) -> None:
    assert contains(answer, target) is right


@pytest.mark.parametrize("task", sums.LEVELS)
def test_the_sums_are_right_differ_and_begin_alike(task: str) -> None:
    rows = [json.loads(line) for line in sums.task_lines(400, seed=0, task=task)]
    assert len({row["problem"] for row in rows}) == len({row["id"] for row in rows}) == 400
    for row in rows:
        text = re.fullmatch(r"What is (\d+(?: [-+*] \d+){1,2})\?", row["problem"])
        assert text is not None
        assert int(row["target"]) == eval(text[1]) >= 0
        assert row["task"] == task
    assert Counter(row["group"] for row in rows) == {f"level-{number}": 80 for number in range(1, 6)}
    assert sums.task_lines(30, seed=0, task=task) == sums.task_lines(80, seed=0, task=task)[:30]
    assert sums.task_lines(30, seed=1, task=task) != sums.task_lines(30, seed=0, task=task)


def test_the_sums_are_those_of_the_published_file() -> None:
    published = read_traces(FILES / "smollm2-135m.sums.sequential.parquet").traces
    rows = [json.loads(line) for line in sums.task_lines(len(published), seed=0)]
    assert [(row["id"], row["problem"], row["group"]) for row in rows] == [
        (trace.id, trace.problem, trace.group) for trace in published
    ]
