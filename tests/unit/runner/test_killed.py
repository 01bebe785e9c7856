"""A collection that is killed between its journal and its output loses no finished step and leaves no half file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

import pytest

from justenough import files
from justenough.runner import collect as collecting
from justenough.runner.journal import Journal, journal_of
from justenough.trace import Trace
from justenough.trace.files import read_traces, write_traces
from tests.unit.runner.test_collect import PROBLEMS, collect, without_time

Patch = Callable[[pytest.MonkeyPatch], None]


def die(*_: object) -> NoReturn:
    """End the process at once, like kill -9: nothing is flushed, closed or cleaned up."""
    os._exit(9)


def while_writing_a_line(patch: pytest.MonkeyPatch) -> None:
    append = Journal.append

    def torn(journal: Journal, trace: Trace) -> None:
        if len(journal.traces) == 7:
            os.write(journal._file.fileno(), b'{"id": "p7", "st')
            die()
        append(journal, trace)

    patch.setattr(Journal, "append", torn)


def while_writing_the_output(patch: pytest.MonkeyPatch) -> None:
    def torn(traces: Iterable[Trace], out: Path) -> int:
        return write_traces((trace if trace.id != "p3" else die() for trace in traces), out)

    patch.setattr(collecting, "write_traces", torn)


def before_the_output_is_there(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "_replace", die)


def before_the_journal_is_deleted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Journal, "delete", die)


MOMENTS: list[Patch] = [
    while_writing_a_line,
    while_writing_the_output,
    before_the_output_is_there,
    before_the_journal_is_deleted,
]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("earlier", [0, 5])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_killed_collection_goes_on_where_it_was(tmp_path: Path, moment: Patch, earlier: int) -> None:
    whole = without_time(collect(tmp_path / "whole.jsonl")[0])
    out = tmp_path / "out" / "traces.jsonl"
    if earlier:
        collect(out, problems=PROBLEMS[:earlier])
    if (child := os.fork()) == 0:
        try:
            moment(pytest.MonkeyPatch())
            collect(out)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    if out.exists():
        assert len(read_traces(out).traces) in (earlier, len(PROBLEMS))
    lines = [line for line in journal_of(out).read_text().splitlines(keepends=True)[1:] if line.endswith("\n")]
    kept = {trace["id"]: len(trace["steps"]) for trace in map(json.loads, lines)}
    assert len(kept) == (7 if moment is while_writing_a_line else len(PROBLEMS))
    done, backend = collect(out)
    assert without_time(done) == whole
    # Every problem has two steps.
    assert len(backend.requests) == 2 * len(PROBLEMS) - sum(kept.values())
    assert not journal_of(out).exists()
    assert [path.name for path in out.parent.iterdir()] == [out.name]
