"""The report as Markdown and as plain text."""

from __future__ import annotations

import re
from dataclasses import replace

from justenough.report.advice import advice, cautions
from justenough.report.data import Contents
from justenough.report.sheets import all_sheets
from justenough.report.templates import printable
from justenough.report.text import markdown, plain_text, title
from justenough.stats.text import clipped
from tests.reports import DEMO, Case, contents_of


def test_every_cell_of_every_sheet_is_in_text_and_markdown(case: Case, forms: dict[str, str]) -> None:
    result = contents_of(case, demo=DEMO)
    markdown = forms["md"].replace("\\", "")
    for sheet in all_sheets(result):
        for row in sheet.rows:
            # A text table cuts long cells.
            assert clipped(printable(row[0]), width=200).rstrip() in forms["txt"]
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


def test_the_answer_comes_first(contents: Contents, forms: dict[str, str]) -> None:
    lines = [line for line in forms["txt"].splitlines() if line]
    assert lines[0] == title(contents)
    assert lines[1] == advice(contents).sentence
    assert forms["md"].splitlines()[2].startswith(f"**{advice(contents).answer}: ")


def test_each_caution_has_a_line(contents: Contents, forms: dict[str, str]) -> None:
    for caution in cautions(contents):
        assert f"! {printable(caution)}\n" in forms["txt"]


def test_numbers_are_aligned_right_and_lists_left(contents: Contents) -> None:
    lines = plain_text(contents).splitlines()
    start = lines.index("THE GATE AT OTHER THRESHOLDS")
    assert len({len(line) for line in lines[start + 1 : start + 3]}) == 1
    assert lines[start + 3].endswith(" %")
    figures = lines.index("KEY FIGURES")
    assert lines[figures + 1].startswith("figure ")


def test_markup_is_escaped_in_markdown(contents: Contents) -> None:
    evaluation = replace(contents.evaluation, model="*m* [x](y) `c` | <b>")
    first = markdown(replace(contents, evaluation=evaluation)).splitlines()[0]
    assert first.startswith(r"# \*m\* \[x\](y) \`c\` \| \<b\> on ")


def test_reports_without_a_task_are_on_traces(contents: Contents) -> None:
    evaluation = replace(contents.evaluation, model="m", task="", problems=7)
    assert title(replace(contents, evaluation=evaluation)) == "m on traces: 7 problems"
