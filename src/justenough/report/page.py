"""The report as one self-contained HTML page: nothing is fetched, nothing that a model wrote is run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Final

from justenough.report.budgetsheets import budget_claim, budget_curve, budget_shares
from justenough.report.data import PROBLEMS, Contents
from justenough.report.demosheets import live, recommended, siblings
from justenough.report.payload import payload
from justenough.report.sheets import (
    draws,
    families,
    histogram,
    key_figures,
    provenance,
    reliability,
    roc,
    rules,
    sizes,
    sweep,
    thresholds,
)
from justenough.report.tables import Sheet
from justenough.report.text import title
from justenough.report.words import (
    baselines_line,
    bits,
    cautions,
    interval,
    number,
    percent,
    percent_interval,
    points,
    points_interval,
    verdict,
)
from justenough.stats import Estimate

SCRIPTS: Final = ("figures.js", "charts.js", "threshold.js", "budget.js", "problems.js", "report.js")


def html_page(found: Contents) -> str:
    """The whole page."""
    style = _asset("report.css")
    script = '"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in SCRIPTS) + "})();\n"
    data = json.dumps(payload(found), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    made_first = found.settings.decide == "first"
    values = {
        # The page may run this script and this style and nothing else; an attribute or tag that slipped in is inert.
        "policy": f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}';"
        " base-uri 'none'; form-action 'none'",
        "title": escape(title(found)),
        "style": style,
        "script": script,
        # Inside a script element only `<` could end it or open another.
        "data": data.replace("<", "\\u003c"),
        "masthead": _masthead(found),
        "cards": _cards(found),
        "move": "answers to its left stop there, the others think on."
        if made_first
        else "a problem stops at the first step that is to its left.",
        "threshold": _threshold(found),
        "frontier": _frontier(found),
        "evidence": _evidence(found),
        "sizes": _sizes(found),
        "budget": _budget(found),
        "budget_link": '<li><a href="#budget">Budget</a></li>\n' if found.budget else "",
        "sizes_link": '<li><a href="#sizes">Labels</a></li>\n' if found.sizes else "",
        "rules": _sheet_section(rules(found)),
        "families": _families(found),
        "demo": _demo(found),
        "problems": _problems(found),
        "provenance": _provenance(found),
    }
    page = _asset("report.html")
    parts = page.split("{{")
    filled = [parts[0]]
    for part in parts[1:]:
        # One pass, so that braces in model output are never taken for a place to fill.
        name, _, rest = part.partition("}}")
        filled += [values[name.strip()], rest]
    return "".join(filled)


def _asset(name: str) -> str:
    return (files("justenough.report") / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _masthead(found: Contents) -> str:
    made = found.made
    said = cautions(found)
    notes = "".join(f"<li>{escape(caution)}</li>" for caution in said)
    listed = f'<ul class="cautions" aria-label="What to know first">{notes}</ul>' if said else ""
    sentence = verdict(made, strong=lambda text: f"\x02{text}\x03")
    sentence = escape(sentence).replace("\x02", '<strong class="figure">').replace("\x03", "</strong>")
    return (
        f'<p class="overline"><span class="name">justenough</span> <bdi>{escape(made.model)}</bdi> on'
        f" <bdi>{escape(made.task or 'traces')}</bdi>, {made.problems:,} problems</p>"
        f'<h1 id="verdict">{sentence}</h1>{listed}'
    )


def _card(name: str, value: str, limits: str, rest: Sequence[tuple[str, str, str]], *, lead: bool = False) -> str:
    lines = "".join(
        f"<div><dt>{escape(term)}</dt><dd>{escape(said)}{_limits(within)}</dd></div>" for term, said, within in rest
    )
    return (
        f'<section class="card{" lead" if lead else ""}"><h3>{escape(name)}</h3>'
        f'<p class="value">{escape(value)}{_limits(limits)}</p><dl>{lines}</dl></section>'
    )


def _limits(text: str) -> str:
    return f' <span class="limits">{escape(text)}</span>' if text else ""


def _cards(found: Contents) -> str:
    made, gated, evidence = found.made, found.made.gated, found.made.separation
    change, saving, verdict_found = gated.accuracy_change, gated.saving, gated.non_inferiority
    at_margin = "" if verdict_found is None else f"{verdict_found.verdict} at {100 * made.margin:g} pt"
    rest: list[tuple[str, str, str]] = [("accuracy", points(change.value), points_interval(change))]
    if at_margin:
        rest.append(("verdict", at_margin, ""))
    rest.append(("stopped early", percent(gated.stopped), ""))
    cards = [
        _card("Tokens saved", percent(saving.value if saving else None), percent_interval(saving), rest, lead=True),
        _card(
            "Accuracy with the gate",
            percent(gated.accuracy),
            "",
            [
                ("step 1 alone", percent(made.accuracy_first), ""),
                (f"all {made.steps} steps", percent(made.accuracy_full), ""),
                ("unanswered", f"{made.unanswered:,}", ""),
            ],
        ),
        _card(
            "Harm",
            percent(gated.harm.value if gated.harm else None),
            percent_interval(gated.harm),
            [("rescue", percent(gated.rescue.value if gated.rescue else None), percent_interval(gated.rescue))],
        ).replace(
            "</section>", '<p class="gloss">Stopped wrong, would have ended right; rescue is the reverse.</p></section>'
        ),
        _card(
            "Separation, AUROC",
            number(evidence.auroc.value if evidence.auroc else None, digits=3),
            interval(evidence.auroc, digits=3),
            [
                ("Cohen’s d", *_shown(evidence.cohens_d, 2)),
                ("within groups", *_shown(evidence.within_groups, 3)),
                ("verdict", evidence.sentence, ""),
            ],
        ),
    ]
    return (
        f'<div class="cards">{"".join(cards)}</div><p class="aside">{escape(baselines_line(made))} Small figures are 95'
        f" % intervals.</p>{_table_details(key_figures(found), 'All key figures as a table')}"
    )


def _shown(estimate: Estimate | None, digits: int) -> tuple[str, str]:
    return number(estimate.value if estimate else None, digits=digits), interval(estimate, digits=digits)


def _table(sheet: Sheet, *, caption: bool = True) -> str:
    header = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in sheet.header)
    head = f"<thead><tr>{header}</tr></thead>" if any(sheet.header) else ""
    body = "".join(
        f'<tr{_emphasis(row[0])}><th scope="row"><bdi>{escape(row[0])}</bdi></th>{cells}</tr>'
        for row in sheet.rows
        for cells in ["".join(_cell(cell) for cell in row[1:])]
    )
    named = f"<caption>{escape(sheet.title)}</caption>" if caption else ""
    label = escape(sheet.title, quote=True)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}, table">'
        f'<table class="sheet {sheet.key}">{named}{head}<tbody>{body}</tbody></table></div>'
    )


def _emphasis(name: str) -> str:
    return ' class="gate"' if name.startswith("entropy-") or name == "recommended" else ""


def _cell(text: str) -> str:
    value, bracket, limits = text.partition(" [")
    if bracket and limits.endswith("]"):
        return f'<td>{escape(value)} <span class="limits">[{escape(limits)}</span></td>'
    return f"<td><bdi>{escape(text)}</bdi></td>"


def _table_details(sheet: Sheet, summary: str) -> str:
    note = f"<p>{escape(sheet.note)}</p>" if sheet.note else ""
    return f'<details class="alternative"><summary>{escape(summary)}</summary>{_table(sheet)}{note}</details>'


def _sheet_section(sheet: Sheet, *, level: int = 2) -> str:
    note = f'<p class="note">{escape(sheet.note)}</p>' if sheet.note else ""
    return f'<h{level} id="{sheet.key}">{escape(sheet.title)}</h{level}>{note}{_table(sheet, caption=False)}'


def _threshold(found: Contents) -> str:
    return (
        _table_details(sweep(found), "What a threshold does, as a table")
        + _table_details(histogram(found), f"Right and wrong answers by {found.quantity}, as a table")
        + _table_details(thresholds(found), "Each method’s threshold, as a table")
    )


def _frontier(found: Contents) -> str:
    sheet = draws(found)
    return (
        f'<p class="aside">{escape(sheet.note)}</p>{_table_details(sheet._replace(note=""), "The draws, as a table")}'
    )


def _evidence(found: Contents) -> str:
    curve = _table_details(roc(found), "ROC, as a table") if found.roc else ""
    return curve + _table_details(reliability(found), "Reliability, as a table")


def _sizes(found: Contents) -> str:
    """Empty where there are too few problems to draw examples from and judge them on others."""
    if not found.sizes:
        return ""
    sheet = sizes(found)
    dashed = " Dashed: the threshold that the gate above starts with." if found.settings.threshold is not None else ""
    return (
        f'<section aria-labelledby="sizes"><h2 id="sizes">{escape(sheet.title)}</h2>'
        f'<p class="note">{escape(sheet.note)}{dashed}</p>'
        '<figure><div id="chart-sizes" class="chart"></div></figure>'
        f"{_table_details(sheet._replace(note=''), 'Thresholds by number of labels, as a table')}</section>"
    )


def _budget(found: Contents) -> str:
    """Empty where no budget can be given away."""
    claim, curve = budget_claim(found), budget_curve(found)
    if claim is None or curve is None:
        return ""
    tables = [_table_details(curve, "Every policy at every total, as a table")]
    tables += [_table_details(sheet, f"{sheet.title}, as a table") for sheet in budget_shares(found)]
    return (
        '<section aria-labelledby="budget"><h2 id="budget">The same tokens, spent elsewhere</h2>'
        f'<p class="note">{escape(claim.note)}</p>'
        '<figure><div id="chart-budget" class="chart"></div></figure>'
        '<h3 id="who">Who got how much</h3><div id="budget-part"><div class="total-choice"><label for="total">Total:'
        ' <output id="budget-total" for="total"></output></label>'
        '<input id="total" type="range" min="0" max="1" step="1" value="0"></div>'
        '<div id="budget-shares" class="scroll" role="region" tabindex="0" aria-label="Who got how much, table"></div>'
        '<p id="budget-spoken" class="unseen" role="status" aria-live="polite"></p></div>'
        f'<h3 id="claim">{escape(claim.title)}</h3>{_table(claim, caption=False)}{"".join(tables)}</section>'
    )


def _families(found: Contents) -> str:
    return _table_details(families(found), "Families, as a table")


def _demo(found: Contents) -> str:
    sheets = [sheet for sheet in (live(found), recommended(found), siblings(found)) if sheet is not None]
    if not sheets:
        return ""
    body = "".join(f'<div class="part {sheet.key}">{_sheet_section(sheet, level=3)}</div>' for sheet in sheets)
    heading = '<h2 id="demo">Live, and on sibling models</h2>'
    return f'<section aria-labelledby="demo">{heading}<div class="demo-parts">{body}</div></section>'


def _problems(found: Contents) -> str:
    shown, total = min(PROBLEMS, len(found.traces)), len(found.table)
    which = f"The first {shown:,} of {total:,} problems" if shown < total else f"All {total:,} problems"
    threshold = found.settings.threshold
    at = "without a threshold" if threshold is None else f"at τ = {bits(threshold)} {escape(found.unit)}"
    return (
        f'<p class="note">{which}, as the gate decides them {at}. Open one to read each step, its tokens shaded by'
        " their entropy, and why the gate went on or stopped.</p>"
    )


def _provenance(found: Contents) -> str:
    sheet = provenance(found)
    rows = "".join(
        f"<div><dt>{escape(row[0])}</dt><dd><code><bdi>{escape(row[1])}</bdi></code></dd></div>" for row in sheet.rows
    )
    return f'<dl class="provenance">{rows}</dl><p class="note">{escape(sheet.note)}</p>'
