"""The report as Markdown and as plain text. Model output is untrusted in both."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from justenough.report.data import Contents
from justenough.report.sheets import all_sheets
from justenough.report.tables import Sheet
from justenough.report.words import baselines_line, cautions, verdict
from justenough.stats.text import table

_MARKUP: Final = re.compile(r"([\\`*_{}\[\]<>|#&~$])")


def markdown(found: Contents) -> str:
    """GitHub's flavour, for its tables."""
    lines = [f"# {_escaped(title(found))}", "", f"**{_escaped(verdict(found.made))}**", ""]
    lines += [_escaped(baselines_line(found.made)), ""]
    lines += [f"- {_escaped(caution)}" for caution in cautions(found)]
    for sheet in all_sheets(found):
        lines += ["", f"## {_escaped(sheet.title)}", ""]
        lines += [_row(sheet.header), "|" + " --- |" * len(sheet.header), *(_row(row) for row in sheet.rows)]
        if sheet.note:
            lines += ["", _escaped(sheet.note)]
    return "\n".join(lines) + "\n"


def plain_text(found: Contents) -> str:
    """For a terminal."""
    lines = [printable(title(found)), "", printable(verdict(found.made)), "", printable(baselines_line(found.made))]
    lines += [f"! {printable(caution)}" for caution in cautions(found)]
    for sheet in all_sheets(found):
        lines += ["", sheet.title.upper(), *_columns(sheet)]
        if sheet.note:
            lines.append(printable(sheet.note))
    return "\n".join(lines) + "\n"


def title(found: Contents) -> str:
    """What the report is of."""
    made = found.made
    return f"{made.model} on {made.task or 'traces'}: {made.problems} problems"


def printable(text: str) -> str:
    """Without control characters and line breaks: it must steer no terminal and break no table."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in text)


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", printable(text))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell) for cell in cells) + " |"


def _columns(sheet: Sheet) -> list[str]:
    rows = [[printable(cell) for cell in row] for row in ([sheet.header, *sheet.rows])]
    # Two columns are a list, all of it to the left.
    return table(rows[0], rows[1:], left=2 if len(sheet.header) == 2 else 1).splitlines()
