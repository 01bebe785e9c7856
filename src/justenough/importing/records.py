"""Answer records: a Parquet or CSV table with one row for each answer, whose confidence replaces the entropy.

Required columns: `model, question_id, token_length, correct`. Optional columns: `category, correct_answer,
extracted_answer, answered, mean_token_prob`. The signal is `1 - mean_token_prob` under that name; it is not an entropy.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from justenough.errors import InputError, TraceFormatError
from justenough.files import shown
from justenough.importing.opening import opened
from justenough.importing.options import ImportOptions
from justenough.importing.replies import Numbered
from justenough.signal.signal import Signal
from justenough.trace import Json, Step, Trace
from justenough.trace.files import BadLine, is_parquet
from justenough.trace.parquet import parquet_objects

SIGNAL: Final = Signal(kind="1-mean_token_prob", top_k=None)
"""One minus the mean probability of the sampled tokens; higher means less sure."""

_REQUIRED: Final = ("model", "question_id", "token_length", "correct")
_OPTIONAL: Final = ("category", "correct_answer", "extracted_answer", "answered", "mean_token_prob")
_FLAGS: Final[Mapping[str, bool]] = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_HEADER: Final = 1 << 16
"""Most bytes of the names of all columns."""
_ROUNDING: Final = 1e-4
"""Largest excess over 1 of a mean of probabilities in single precision."""


class _Row(NamedTuple):
    number: int
    model: str
    question: str
    group: str | None
    target: str | None
    step: Step


def read_records(path: Path, options: ImportOptions) -> Iterator[Numbered | BadLine]:
    """One trace for each answer; with `then`, one for each question: step 1 by `model`, step 2 by `then`.

    Raises `InputError` for a table without the required columns and for a model that is not in the table.
    """
    options.refuse("records", takes=("then",))
    if options.then is not None and options.chosen is None:
        raise InputError("--then needs --model, whose answers are step 1", hint="--model A --then B")
    rows: dict[tuple[str, str], _Row] = {}
    models: set[str] = set()
    for number, cells in _cells(path, options.chosen):
        # Rows of other models are skipped, malformed or not.
        name = _text(cells.get("model"))
        models.add(name or "")
        if options.chosen is not None and name is not None and name not in (options.chosen, options.then):
            continue
        try:
            row = _row(cells, number)
        except TraceFormatError as error:
            yield BadLine(number, error.reason)
            continue
        earlier = rows.setdefault((row.model, row.question), row)
        if earlier is not row:
            yield BadLine(number, f"{row.model} also answers question {row.question} in row {earlier.number}")
    for chosen in (options.chosen, options.then):
        if chosen is not None and chosen not in models:
            raise InputError(f"{path} has no model {chosen!r}", hint=f"one of {', '.join(sorted(models))}")
    task = path.name.partition(".")[0]
    for row in rows.values():
        if options.chosen is not None and row.model != options.chosen:
            continue
        steps = [row.step]
        if options.then is not None:
            second = rows.get((options.then, row.question))
            if second is None:
                yield BadLine(row.number, f"{options.then} has no answer to question {row.question}")
                continue
            steps = [replace(row.step, model=row.model), replace(second.step, model=second.model)]
        trace = Trace(
            id=row.question,
            task=task,
            model=row.model,
            group=row.group,
            target=row.target,
            signal=SIGNAL,
            steps=tuple(steps),
        )
        yield Numbered(row.number, trace)


def is_table(path: Path) -> bool:
    """Whether a file is a table of answer records: at least two of its columns have names of theirs."""
    return len({*_REQUIRED, *_OPTIONAL} & {name.strip() for name in _columns(path)}) >= 2


def _columns(path: Path) -> list[str]:
    """The names of the columns; in a CSV file, those in its first line."""
    if not is_parquet(path):
        with opened(path) as file:
            header = file.readline(_HEADER).decode("utf-8-sig", errors="replace")
        return next(csv.reader([header]), [])
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path.absolute()).names)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}", hint="is it complete?") from error


def _cells(path: Path, model: str | None) -> Iterator[tuple[int, Mapping[str, Json]]]:
    """The rows with their numbers: counted from 1 in a Parquet file, line numbers in a CSV file.

    A table without the column `model` gets this model.
    """
    columns = _columns(path)
    constant = {} if model is None or "model" in columns else {"model": model}
    if missing := [name for name in _REQUIRED if name not in (*columns, *constant)]:
        raise InputError(
            f"{path} has no column {', '.join(missing)}",
            hint=f"answer records have {', '.join(_REQUIRED + _OPTIONAL)}; --model NAME replaces the column model",
        )
    required = [name for name in _REQUIRED if name not in constant]
    rows = (
        enumerate(parquet_objects(path, required=required, optional=_OPTIONAL), 1) if is_parquet(path) else _csv(path)
    )
    return ((number, {**constant, **cells}) for number, cells in rows)


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, Json]]]:
    try:
        with opened(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", errors="replace", newline="") as file:
            reader = csv.DictReader(file)
            for cells in reader:
                yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as CSV: {error}", hint="Parquet, or CSV with a header") from error


def _row(cells: Mapping[str, Json], number: int) -> _Row:
    model, question = _text(cells.get("model")), _text(cells.get("question_id"))
    if model is None or question is None:
        raise TraceFormatError(f"{'model' if model is None else 'question_id'} is missing")
    answer = _text(cells.get("extracted_answer"))
    correct = _flag(cells, "correct")
    answered = _flag(cells, "answered")
    if answered is None:
        answered = answer is not None or ("extracted_answer" not in cells and correct is not None)
    if answered and correct is None:
        raise TraceFormatError("correct is missing in an answered row")
    if not answered and correct:
        raise TraceFormatError("an unanswered row is marked correct")
    probability = _number(cells, "mean_token_prob")
    if probability is not None and not 0 <= probability <= 1 + _ROUNDING:
        raise TraceFormatError(f"mean_token_prob is {probability!r}, expected 0 to 1")
    step = Step(
        answer=answer if answered else None,
        correct=correct if answered else None,
        tokens=_count(cells, "token_length"),
        uncertainty=None if probability is None else max(0.0, 1 - probability),
    )
    group, target = _text(cells.get("category")), _text(cells.get("correct_answer"))
    return _Row(number, model, question, group, target, step)


def _text(cell: Json) -> str | None:
    if cell is None or isinstance(cell, list | dict):
        return None
    # Many tools read a column of whole numbers with gaps as floats.
    text = str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()
    return text or None


def _flag(cells: Mapping[str, Json], name: str) -> bool | None:
    cell = cells.get(name)
    if cell is None or isinstance(cell, bool):
        return cell
    text = str(cell).strip().lower()
    if not text:
        return None
    if text not in _FLAGS:
        raise TraceFormatError(f"{name} is {shown(cell)}, expected true or false")
    return _FLAGS[text]


def _number(cells: Mapping[str, Json], name: str) -> float | None:
    """A number; None if the cell is empty or NaN."""
    cell = cells.get(name)
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    try:
        value = float(str(cell))
    except ValueError as error:
        raise TraceFormatError(f"{name} is {shown(cell)}, expected a number") from error
    return None if math.isnan(value) else value


def _count(cells: Mapping[str, Json], name: str) -> int:
    value = _number(cells, name)
    if value is None or not 0 <= value < 2**63 or value != int(value):
        raise TraceFormatError(f"{name} is {shown(cells.get(name))}, expected a whole number, at least 0")
    return int(value)
