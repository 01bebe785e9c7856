"""The report as one self-contained HTML page. It loads nothing from elsewhere and runs nothing that a model wrote."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Final

from markupsafe import Markup

from justenough.report.data import PROBLEMS, Contents
from justenough.report.payload import payload
from justenough.report.rulesheets import GATES
from justenough.report.sheets import all_sheets, gate_words, saving_words
from justenough.report.templates import asset, environment
from justenough.report.text import values_of
from justenough.report.thoughts import chosen_thoughts
from justenough.report.tokensheet import tokens_picture

SCRIPTS: Final = ("figures.js", "charts.js", "threshold.js", "budget.js", "thoughts.js", "problems.js", "report.js")


def html_page(contents: Contents) -> str:
    """The whole page, from the template."""
    style = asset("report.css")
    script = '"use strict";\n(() => {\n' + "\n".join(asset(name) for name in SCRIPTS) + "})();\n"
    tables = {sheet.key: sheet for sheet in all_sheets(contents)}
    data = json.dumps(payload(contents), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    values = values_of(contents) | {
        # The browser runs only this script and this style. Any other script or attribute in the page does nothing.
        "policy": f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}';"
        " base-uri 'none'; form-action 'none'",
        "style": Markup(style),
        "script": Markup(script),
        # Inside a script element, only `<` can end the element or open another one.
        "data": Markup(data.replace("<", "\\u003c")),
        "contents": contents,
        "evaluation": contents.evaluation,
        "saving": saving_words(contents),
        "sheets": tables,
        "shares": [sheet for key, sheet in tables.items() if key.startswith("shares-")],
        "demo": [tables[key] for key in ("live", "recommended", "siblings") if key in tables],
        "gate": gate_words(contents),
        "thoughts": [contents.traces[at] for at in chosen_thoughts(contents)],
        # Drawn here: its texts are names of ours and numbers.
        "tokens_picture": Markup(tokens_picture(contents)) if "tokens" in tables else "",
        "gates": GATES,
        "shown": min(PROBLEMS, len(contents.traces)),
        "total": len(contents.table),
    }
    return environment().get_template("report.html").render(values).lstrip()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
