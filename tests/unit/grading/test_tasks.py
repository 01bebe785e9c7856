"""Tasks: built in, and from files."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest

from justenough.errors import InputError
from justenough.grading import Exact, Problem, read_tasks
from justenough.grading.graders import is_right
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
        ('{"problem": "p", "id": null}', ":1: id is None"),
        ('{"id": "", "problem": "p"}', ":1: id is ''"),
        ('{"id": true, "problem": "p"}', ":1: id is True"),
        ('{"id": "a"}', ":1: problem is None"),
        ('{"id": "a", "problem": "p", "target": [1, [2]]}', r":1: target is \[2\]"),
        ('{"id": "a", "problem": "p"}\n{"id": "a", "problem": "q"}', "occurs twice"),
        ("", "holds no problem"),
    ],
)
def test_a_bad_task_file_is_refused_by_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(line)
    with pytest.raises(InputError, match=complaint):
        read_tasks(str(path))


ROWS = [{"question": "2+2", "answer": "4", "group": "easy"}, {"question": "3+3", "answer": "6", "group": None}]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_question_and_answer_columns_are_read_from_each_format(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"sums.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join(map(json.dumps, ROWS)))
    elif ending == "csv":
        path.write_text("\ufeffquestion,answer,group\n2+2,4,easy\n3+3,6,\n", encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert read_tasks(str(path)) == [
        Problem(id="1", problem="2+2", target="4", task="sums", group="easy"),
        Problem(id="2", problem="3+3", target="6", task="sums"),
    ]
    assert len(read_tasks(str(path), limit=1)) == 1


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_list_of_targets_gives_several_right_answers(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{ending}"
    row = {"id": "a", "problem": "p", "target": ["one half", "0.5"]}
    if ending == "jsonl":
        path.write_text(json.dumps(row))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    (problem,) = read_tasks(str(path))
    assert problem.targets == ("one half", "0.5")
    assert [is_right(Exact(), answer, problem.targets) for answer in ("0.5", "onehalf", "2", None)] == [
        True,
        True,
        False,
        None,
    ]


@pytest.mark.parametrize(("name", "content"), [("t.parquet", b"no table"), ("t.csv", b"question,answer\n\xff,1\n")])
def test_an_unreadable_table_is_one_error_that_names_the_columns(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match="question and answer"):
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
