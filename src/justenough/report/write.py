"""One report, in the form that the file's name asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, cast

from justenough.calibration.calibration import Calibration
from justenough.errors import InputError
from justenough.evaluation import Evaluation
from justenough.evaluation.figures import estimate_json
from justenough.files import write_text
from justenough.report.budgetsheets import budget_json
from justenough.report.data import Contents, contents
from justenough.report.page import html_page
from justenough.report.text import markdown, plain_text
from justenough.trace import Json
from justenough.trace.stream import Traces


def _json(found: Contents) -> str:
    """The evaluation's keys and what only the report shows."""
    shown = found.made.to_json() | {
        "command": found.command,
        "sizes": [row.to_json() for row in found.sizes],
        "sweep": [cast("dict[str, Json]", row._asdict()) for row in found.sweep],
        "histogram": [cast("dict[str, Json]", row._asdict()) for row in found.histogram],
        "roc": [[right, wrong] for right, wrong in found.roc],
        "reliability": [
            {"low": row.low, "high": row.high, "middle": row.middle, "right": estimate_json(row.share)}
            for row in found.reliability
        ],
        "budget": budget_json(found),
        "family_figures": [cast("dict[str, Json]", row._asdict()) for row in found.families],
    }
    return json.dumps(shown, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMS: Final[Mapping[str, Callable[[Contents], str]]] = {
    ".html": html_page,
    ".md": markdown,
    ".txt": plain_text,
    ".json": _json,
}


def write_report(
    made: Evaluation,
    traces: Traces,
    out: Path,
    *,
    calibration: Calibration | None,
    command: str,
    demo: Mapping[str, Json] | None = None,
) -> None:
    """Write the evaluation of `traces` as HTML, Markdown, text or JSON, by the suffix of `out`; whole or not at all.

    The same input gives the same bytes. `command` is shown as what produced the report, `demo` adds the demo's own
    findings. Raises `InputError` for another suffix, or for traces or a calibration that `made` is not of.
    """
    form = FORMS.get(out.suffix.lower())
    if form is None:
        raise InputError(f"a report cannot be written as {out.name!r}", hint=f"a name that ends in {', '.join(FORMS)}")
    text = form(contents(made, traces, calibration=calibration, command=command, demo=demo or {}))
    # Half a surrogate pair, which no file encoding holds, can only come from traces that were built by hand.
    write_text(out, text.encode("utf-8", "replace").decode("utf-8"))
