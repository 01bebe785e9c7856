"""The demo's own tables: its live run, the recommended gate, the sibling models."""

from __future__ import annotations

from collections.abc import Mapping

from justenough.report.data import Contents
from justenough.report.tables import Sheet
from justenough.report.words import NOTHING, bits, count, number, percent
from justenough.trace import Json


def live(found: Contents) -> Sheet | None:
    """The demo's live run, generation really stopped."""
    run = found.demo.get("live")
    if not isinstance(run, dict):
        return None
    gated, full = _known_or_0(run, "seconds_gated"), _known_or_0(run, "seconds_full")
    tokens_gated, tokens_full = _known_or_0(run, "tokens_gated"), _known_or_0(run, "tokens_full")
    rows = [
        ("gated", number(gated, digits=1), count(tokens_gated)),
        ("all steps", number(full, digits=1), count(tokens_full)),
        (
            "saved",
            percent(1 - gated / full) if full > 0 else NOTHING,
            percent(1 - tokens_gated / tokens_full) if tokens_full > 0 else NOTHING,
        ),
    ]
    problems, equal = _known_or_0(run, "problems"), _known_or_0(run, "equal_to_replay")
    note = f"{count(equal)} of {count(problems)} live runs equal the replay, token for token."
    return Sheet("live", "Live, generation really stopped", ("run", "seconds", "tokens"), rows, note)


def siblings(found: Contents) -> Sheet | None:
    """Other models' diagnoses."""
    listed = found.demo.get("siblings")
    if not isinstance(listed, dict) or not listed:
        return None
    rows = []
    for name, entry in listed.items():
        told: Mapping[str, Json] = entry if isinstance(entry, dict) else {}
        rows.append(
            (
                name,
                count(_known_or_0(told, "problems")),
                percent(known(told, "accuracy_first")),
                number(known(told, "cohens_d")),
                number(known(told, "auroc"), digits=3),
                number(known(told, "auroc_within_groups"), digits=3),
                str(told.get("verdict", NOTHING)),
                "yes" if told.get("advisable") else "no",
            )
        )
    header = ("model", "problems", "step 1 right", "d", "AUROC", "within groups", "verdict", "gate advisable")
    return Sheet("siblings", "Sibling models", header, rows, "Step 1 only; made to differ by construction.")


def recommended(found: Contents) -> Sheet | None:
    """The recommended gate of the demo."""
    chosen = found.demo.get("recommended")
    if not isinstance(chosen, dict):
        return None
    threshold = known(chosen, "threshold")
    rows = [
        ("threshold", "never stops" if threshold is None else f"{bits(threshold)} {found.unit}"),
        ("pooling", str(chosen.get("pooling"))),
        ("decides", str(chosen.get("decide"))),
        ("labelled problems", str(chosen.get("labels"))),
        ("loss allowed", percent(known(chosen, "max_loss"))),
    ]
    return Sheet(
        "recommended", "The recommended gate", ("setting", "value"), rows, "Its figures stand among the rules."
    )


def known(row: Mapping[str, Json], key: str) -> float | None:
    """A number that the demo noted; None where it did not."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _known_or_0(row: Mapping[str, Json], key: str) -> float:
    return known(row, key) or 0.0
