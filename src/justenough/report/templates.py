"""The templates of the report: the page, the text forms, and the sentences that all forms share."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from justenough.report import words
from justenough.report.data import Sheet
from justenough.stats.text import number, percent, signed, spread, table

_MARKUP: Final = re.compile(r"([\\`*_{}\[\]<>|#&~$])")


def asset(name: str) -> str:
    """The text of a file in `assets`."""
    return (files("justenough.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def meanings() -> dict[str, str]:
    """Column head → what the column means."""
    rows: dict[str, str] = json.loads(asset("columns.json"))
    return rows


def meaning(head: str) -> str | None:
    """The meaning of a column head; a unit after a comma is ignored."""
    return meanings().get(head) or meanings().get(head.partition(", ")[0])


@cache
def environment() -> Environment:
    """The templates; jinja2 escapes each value of the page that is not `Markup`."""
    loaded = Environment(
        loader=PackageLoader("justenough.report", "assets"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    loaded.globals |= {"meaning": meaning, "words": words}
    loaded.globals |= {"number": number, "percent": percent, "signed": signed, "spread": spread}
    loaded.filters |= {"printable": printable, "escaped": _escaped, "columns": _columns}
    return loaded


def sentences(macro: str, *values: object) -> str:
    """The text of a macro of `sentences.txt` in one line."""
    text = getattr(environment().get_template("sentences.txt").module, macro)(*values)
    return " ".join(str(text).split())


def printable(text: str) -> str:
    """The text without control characters and line breaks, which could control a terminal or break a table."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in text)


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", printable(text))


def _columns(sheet: Sheet) -> str:
    rows = [[printable(cell) for cell in row] for row in ([sheet.header, *sheet.rows])]
    # Two columns are a list, all of it to the left.
    return table(rows[0], rows[1:], left=2 if len(sheet.header) == 2 else 1)
