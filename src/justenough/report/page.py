"""The report as one self-contained HTML page. It loads nothing from elsewhere and runs nothing that a model wrote."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from justenough.report import sheets, words
from justenough.report.advice import advice, baselines_line, cautions, measured
from justenough.report.data import PROBLEMS, Contents
from justenough.report.payload import payload
from justenough.report.terms import meaning
from justenough.report.text import title

SCRIPTS: Final = ("figures.js", "charts.js", "threshold.js", "budget.js", "problems.js", "report.js")


def html_page(contents: Contents) -> str:
    """The whole page, from the template; jinja2 escapes each value that is not `Markup`."""
    style = _asset("report.css")
    script = '"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in SCRIPTS) + "})();\n"
    tables = {sheet.key: sheet for sheet in sheets.all_sheets(contents)}
    data = json.dumps(payload(contents), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _environment().get_template("report.html").render(
        # The browser runs only this script and this style. Any other script or attribute in the page does nothing.
        policy=f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}';"
        " base-uri 'none'; form-action 'none'",
        title=title(contents),
        style=Markup(style),
        script=Markup(script),
        # Inside a script element, only `<` can end the element or open another one.
        data=Markup(data.replace("<", "\\u003c")),
        contents=contents,
        evaluation=contents.evaluation,
        advice=advice(contents),
        measured=measured(contents),
        cautions=cautions(contents),
        saving=sheets.saving_words(contents),
        change=words.accuracy_change(contents.evaluation.gated),
        baselines=baselines_line(contents.evaluation),
        sheets=tables,
        shares=[sheet for key, sheet in tables.items() if key.startswith("shares-")],
        demo=[tables[key] for key in ("live", "recommended", "siblings") if key in tables],
        gate=sheets.gate_words(contents),
        shown=min(PROBLEMS, len(contents.traces)),
        total=len(contents.table),
    ).lstrip()  # fmt: skip


@cache
def _environment() -> Environment:
    loader = PackageLoader("justenough.report", "assets")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.globals |= {"meaning": meaning, "words": words}
    return environment


def _asset(name: str) -> str:
    return (files("justenough.report") / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
