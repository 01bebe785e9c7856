"""The report as Markdown and as plain text."""

from __future__ import annotations

import re

from justenough.report.sheets import all_sheets
from justenough.report.text import printable
from tests.reports import DEMO, Case, contents_of


def test_every_cell_of_every_sheet_is_in_text_and_markdown(case: Case, forms: dict[str, str]) -> None:
    found = contents_of(case, demo=DEMO)
    markdown = forms["md"].replace("\\", "")
    for sheet in all_sheets(found):
        for row in sheet.rows:
            assert "  ".join(printable(cell) for cell in row[:1]).rstrip() in forms["txt"]
            assert f"| {' | '.join(printable(cell) for cell in row)} |" in markdown


def test_text_steers_no_terminal_and_breaks_no_table(forms: dict[str, str]) -> None:
    assert "\x1b" not in forms["txt"] + forms["md"]
    bars = 0
    hostile_rows = 0
    for line in forms["md"].splitlines():
        if line.startswith("| ---"):
            bars = line.count("|")
        elif line.startswith("| ") and "onerror" in line:
            assert "\\<img" in line
            assert len(re.findall(r"(?<!\\)\|", line)) == bars
            hostile_rows += 1
    assert hostile_rows >= 2
