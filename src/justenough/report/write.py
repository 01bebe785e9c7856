"""Writes a report in the form that the suffix of the file name selects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final, NamedTuple, cast

from justenough.calibration.calibration import Calibration
from justenough.errors import InputError
from justenough.evaluation import Evaluation
from justenough.evaluation.figures import estimate_json
from justenough.files import is_stdout, write_text
from justenough.report.budgetsheets import budget_json
from justenough.report.data import Contents
from justenough.report.data import contents as contents_of
from justenough.report.page import html_page
from justenough.report.text import markdown, plain_text
from justenough.stats.text import safe
from justenough.trace import Json
from justenough.trace.files import Traces


def _json(contents: Contents) -> str:
    """The keys of the evaluation and the data that only the report shows."""

    def rows(values: Iterable[NamedTuple]) -> list[Json]:
        return [cast("dict[str, Json]", value._asdict()) for value in values]

    keys = contents.evaluation.to_json() | {
        "command": contents.command,
        "sizes": [asdict(row) for row in contents.sizes],
        "sweep": rows(contents.sweep),
        "histogram": rows(contents.histogram),
        "roc": [[right, wrong] for right, wrong in contents.roc],
        "reliability": [
            {"low": low, "high": high, "middle": middle, "right": estimate_json(share)}
            for low, high, middle, share in contents.reliability
        ],
        "budget": None if contents.budget is None else budget_json(contents.budget),
        "family_figures": rows(contents.families),
        "token_kinds": [
            {**kind._asdict(), "auroc": estimate_json(kind.auroc), "within": estimate_json(kind.within)}
            for kind in contents.token_kinds
        ],
    }
    return json.dumps(keys, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMS: Final[Mapping[str, Callable[[Contents], str]]] = {
    ".html": html_page,
    ".md": lambda contents: safe(markdown(contents)),
    ".txt": lambda contents: safe(plain_text(contents)),
    ".json": _json,
}


def write_report(
    evaluation: Evaluation,
    traces: Traces,
    out: Path,
    *,
    calibration: Calibration | None,
    command: str,
    demo: Mapping[str, Json] | None = None,
) -> None:
    """Write the evaluation of `traces` as HTML, Markdown, text or JSON, by the suffix of `out`; `-` is HTML.

    The file is written completely or not at all, and the same input gives the same bytes. The report shows `command` as
    the command that made it; `demo` adds the figures of the demo. Raises `InputError` for any other suffix, and for
    traces or a calibration that do not belong to the evaluation.
    """
    form = html_page if is_stdout(out) else FORMS.get(out.suffix.lower())
    if form is None:
        raise InputError(
            f"a report cannot be written as {out.name!r}", hint=f"use a name that ends in {', '.join(FORMS)}"
        )
    text = form(contents_of(evaluation, traces, calibration=calibration, command=command, demo=demo or {}))
    # A lone surrogate cannot be encoded; it can only come from traces that were built by hand.
    write_text(out, text.encode("utf-8", "replace").decode("utf-8"))
