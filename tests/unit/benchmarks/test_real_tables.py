"""The tables of the results on real models are what the committed files give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.real.tables import FILES, PAGE, file_table, number, rewritten
from justenough.trace.files import write_traces
from tests.builders import step, trace


def test_the_tables_of_the_page_are_computed_from_the_committed_files() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- /files -->") == 1
    assert page.count("<!-- /rules -->") >= 1
    assert rewritten(page) == page


def test_every_committed_file_has_its_row() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {path.stem for path in FILES.glob("*.parquet")} <= set(rows)


def test_a_figure_that_is_wrong_is_replaced(tmp_path: Path) -> None:
    traces = [trace(step(0.1), step(0.1, correct=number > 0), id=str(number)) for number in range(4)]
    write_traces(traces, tmp_path / "a.b.parquet")
    page = "before\n<!-- files -->\n| wrong |\n<!-- /files -->\nafter\n"
    fresh = rewritten(page, tmp_path)
    assert fresh.splitlines()[1:-2] == ["<!-- files -->", *file_table(tmp_path)]
    assert (fresh.splitlines()[0], fresh.splitlines()[-1]) == ("before", "after")
    assert "| `a.b` | 4 | 100.0 % | 75.0 % | – | – | – |" in fresh


@pytest.mark.parametrize(
    ("row", "digits", "shown"),
    [
        ({"d": -0.5, "d_ci": [-1.0, 0.25]}, 2, "−0.50 [−1.00, 0.25]"),
        ({"d": 0.5507, "d_ci": None}, 3, ".551"),
        ({"d": None, "d_ci": None}, 3, "–"),
    ],
)
def test_figures_as_they_are_written(row: dict[str, object], digits: int, shown: str) -> None:
    assert number(row, "d", digits=digits) == shown
