"""Answer records from CSV and Parquet."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from justenough.errors import InputError
from justenough.importing import ImportOptions, import_file
from tests.unit.importing.samples import (
    HEADER,
    RECORDS,
    loaded,
)


def test_records_from_csv(tmp_path: Path) -> None:
    found = loaded(tmp_path / "r.csv", "records", RECORDS.encode(), ImportOptions(model="A"))
    assert [trace.id for trace in found.traces] == ["1", "2", "6"]
    first, second = found.traces[0], found.traces[1]
    assert (first.task, first.model, first.group, first.target) == ("r", "A", "law", "C")
    assert (first.signal.kind, first.signal.top_k) == ("1-mean_token_prob", None)
    assert (first.steps[0].answer, first.steps[0].correct, first.tokens) == ("C", True, 10)
    assert first.steps[0].bits(first.signal) == 0.25
    assert (second.steps[0].is_unanswered, second.steps[0].bits(second.signal)) == (True, None)
    # The header is line 1; the row of another model is not looked at.
    assert [bad.line for bad in found.bad] == [6, 7, 8, 10, 12]


def test_records_of_two_models_as_two_steps(tmp_path: Path) -> None:
    wanted = ImportOptions(model="A", then="B")
    found = loaded(tmp_path / "r.csv.gz", "records", gzip.compress(RECORDS.encode()), wanted)
    assert [trace.id for trace in found.traces] == ["1", "2"]
    first = found.traces[0]
    assert [(step.model, step.correct, step.tokens) for step in first.steps] == [("A", True, 10), ("B", False, 100)]
    assert (first.model, first.shape, first.tokens) == ("A", "sequential", 110)
    assert [bad.line for bad in found.bad] == [6, 7, 8, 9, 10, 12]
    assert "B has no answer to question 6" in found.bad[3].reason


def test_records_from_parquet_equal_those_from_csv(tmp_path: Path) -> None:
    rows = enumerate(csv.DictReader(RECORDS.splitlines()), 2)
    good = [row | {"model": "A", "question_id": str(at)} for at, row in rows if at in (2, 3, 4, 5, 9)]
    text = HEADER + "".join(",".join(row.values()) + "\n" for row in good)
    from_csv = loaded(tmp_path / "r.csv", "records", text.encode())
    columns = {name: [row[name] or None for row in good] for name in good[0]}
    typed = pa.table(
        columns
        | {
            "question_id": [int(row["question_id"]) for row in good],
            "token_length": [int(row["token_length"]) for row in good],
            "mean_token_prob": pa.array([float(row["mean_token_prob"]) for row in good], pa.float32()),
            "answered": [row["answered"] in ("True", "1") for row in good],
            "correct": [row["correct"] in ("True", "1") for row in good],
        }
    )
    pq.write_table(typed, tmp_path / "r.parquet")
    from_parquet = import_file(tmp_path / "r.parquet", format="records")
    assert len(from_csv.traces) == 5
    for one, other in zip(from_csv.traces, from_parquet.traces, strict=True):
        assert one.steps[0].uncertainty == pytest.approx(other.steps[0].uncertainty, abs=1e-6)
        assert (one.id, one.model, one.tokens, one.steps[0].answer) == (
            other.id,
            other.model,
            other.tokens,
            other.steps[0].answer,
        )


NAMELESS = "question_id,token_length,correct,mean_token_prob\nq1,3,True,0.75\n"


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_option_names_the_model_of_a_table_without_one(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"r.{form}"
    path.write_text(NAMELESS)
    if form == "parquet":
        pq.write_table(pa_csv.read_csv(path), path)
    [trace], bad = import_file(path, options=ImportOptions(model="mine"))
    assert (trace.id, trace.model, trace.steps[0].bits(trace.signal), bad) == ("q1", "mine", 0.25, [])
    with pytest.raises(InputError, match=r"has no column model .*--model NAME"):
        import_file(path)
    with pytest.raises(InputError, match="has no model 'B'"):
        import_file(path, options=ImportOptions(model="mine", then="B"))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_that_lacks_columns_is_described(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"r.{form}"
    path.write_text("question_id,extracted_answer\nq1,C\n")
    if form == "parquet":
        pq.write_table(pa_csv.read_csv(path), path)
    for format in ("auto", "records"):
        with pytest.raises(InputError, match="has no column model, token_length, correct"):
            import_file(path, format=format)
    with pytest.raises(InputError, match="has no column token_length, correct"):
        import_file(path, options=ImportOptions(model="mine"))


def test_names_of_columns_with_spaces_are_not_theirs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no column question_id, token_length, correct"):
        loaded(tmp_path / "r.csv", "auto", b'"model", question_id, token_length, correct\nm,q,3,True\n')


def test_cells_that_are_lists_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    row = {"model": "m", "question_id": "q", "token_length": [3], "correct": True}
    pq.write_table(pa.Table.from_pylist([row]), path)
    result = import_file(path, format="records")
    assert (result.traces, [bad.line for bad in result.bad]) == ([], [1])
