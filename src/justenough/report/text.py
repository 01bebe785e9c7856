"""The report as Markdown and as plain text. Model output is untrusted in both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from justenough.report.advice import advice, baselines_line, cautions, measured
from justenough.report.data import Contents
from justenough.report.sheets import all_sheets
from justenough.report.tables import Sheet
from justenough.stats.text import table

_MARKUP: Final = re.compile(r"([\\`*_{}\[\]<>|#&~$])")


def markdown(contents: Contents) -> str:
    """The report in GitHub's Markdown, which has tables."""
    lines = [f"# {_escaped(title(contents))}", "", f"**{_escaped(advice(contents).sentence)}**", ""]
    lines += [_escaped(measured(contents)), "", _escaped(baselines_line(contents.evaluation)), ""]
    lines += [f"- {_escaped(caution)}" for caution in cautions(contents)]
    for sheet in all_sheets(contents):
        lines += ["", f"## {_escaped(sheet.title)}", ""]
        lines += [_row(sheet.header), "|" + " --- |" * len(sheet.header), *(_row(row) for row in sheet.rows)]
        if sheet.note:
            lines += ["", _escaped(sheet.note)]
    return "\n".join(lines) + "\n"


def plain_text(contents: Contents) -> str:
    """The report for a terminal."""
    lines = [title(contents), "", advice(contents).sentence, "", measured(contents)]
    lines += [baselines_line(contents.evaluation), *(f"! {caution}" for caution in cautions(contents))]
    lines = [printable(line) for line in lines]
    for sheet in all_sheets(contents):
        lines += ["", printable(sheet.title.upper()), *_columns(sheet)]
        if sheet.note:
            lines.append(printable(sheet.note))
    return "\n".join(lines) + "\n"


def title(contents: Contents) -> str:
    """The model, the task and the number of problems."""
    evaluation = contents.evaluation
    return f"{evaluation.model} on {evaluation.task or 'traces'}: {evaluation.problems} problems"


def printable(text: str) -> str:
    """The text without control characters and line breaks, which could control a terminal or break a table."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in text)


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", printable(text))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _columns(sheet: Sheet) -> list[str]:
    rows = [[printable(cell) for cell in row] for row in ([sheet.header, *sheet.rows])]
    # Two columns are a list, all of it to the left.
    return table(rows[0], rows[1:], left=2 if len(sheet.header) == 2 else 1).splitlines()
