"""Tasks: built in, and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.grading import Exact, read_tasks
from justenough.grading.tasks import DEFAULT_SIZE
from justenough.toy.families import FAMILIES


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
    with pytest.raises(InputError, match=r"aime.jsonl:4: not JSON"):
        read_tasks(str(path))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("[1]", ":1: not an object"),
        ('{"problem": "p"}', ":1: id is None"),
        ('{"id": "", "problem": "p"}', ":1: id is ''"),
        ('{"id": true, "problem": "p"}', ":1: id is True"),
        ('{"id": "a"}', ":1: problem is None"),
        ('{"id": "a", "problem": "p", "target": [1]}', r":1: target is \[1\]"),
        ('{"id": "a", "problem": "p"}\n{"id": "a", "problem": "q"}', "occurs twice"),
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
    with pytest.raises(InputError, match="not JSON"):
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
