"""The tables of the demo only: its live run, the recommended gate, the sibling models."""

from __future__ import annotations

from collections.abc import Mapping

from justenough.report.data import Contents, Sheet
from justenough.report.words import NO_THRESHOLD, bits, count
from justenough.stats.text import NOTHING, number, percent
from justenough.trace import Json


def live(contents: Contents) -> Sheet | None:
    """The live run of the demo, in which generation really stops."""
    run = contents.demo.get("live")
    if not isinstance(run, dict):
        return None
    seconds = number_in(run, "seconds_gated") or 0, number_in(run, "seconds_full") or 0
    tokens = number_in(run, "tokens_gated") or 0, number_in(run, "tokens_full") or 0
    right = number_in(run, "right_gated") or 0, number_in(run, "right_full") or 0
    saved = (percent(1 - gated / full) if full > 0 else NOTHING for gated, full in (seconds, tokens))
    rows = [
        ("gated", number(seconds[0], digits=1), count(tokens[0]), count(right[0])),
        ("all steps", number(seconds[1], digits=1), count(tokens[1]), count(right[1])),
        ("saved", *saved, NOTHING),
    ]
    problems, equal = number_in(run, "problems") or 0, number_in(run, "equal_to_replay") or 0
    note = f"{count(equal)} of {count(problems)} live runs have exactly the tokens of the replay."
    return Sheet("live", "Live run: generation really stops", ("run", "seconds", "tokens", "right"), rows, note)


def siblings(contents: Contents) -> Sheet | None:
    """The diagnoses of other models."""
    listed = contents.demo.get("siblings")
    if not isinstance(listed, dict) or not listed:
        return None
    rows = []
    for name, entry in listed.items():
        figures: Mapping[str, Json] = entry if isinstance(entry, dict) else {}
        rows.append(
            (
                name,
                count(number_in(figures, "problems") or 0),
                percent(number_in(figures, "accuracy_first")),
                number(number_in(figures, "cohens_d")),
                number(number_in(figures, "auroc"), digits=3),
                number(number_in(figures, "auroc_within_groups"), digits=3),
                str(figures.get("verdict", NOTHING)),
                "yes" if figures.get("advisable") else "no",
            )
        )
    header = ("model", "problems", "step 1 right", "d", "AUROC", "within groups", "verdict", "gate advisable")
    return Sheet(
        "siblings",
        "Sibling models",
        header,
        rows,
        "Measured on step 1 only. These models were trained to differ from the main one.",
    )


def recommended(contents: Contents) -> Sheet | None:
    """The recommended gate of the demo."""
    chosen = contents.demo.get("recommended")
    if not isinstance(chosen, dict):
        return None
    threshold = number_in(chosen, "threshold")
    rows = [
        ("threshold", NO_THRESHOLD if threshold is None else f"{bits(threshold)} {contents.unit}"),
        ("pooling", str(chosen.get("pooling"))),
        ("decides after", "step 1" if chosen.get("decide") == "first" else "every step"),
        ("labelled problems", str(chosen.get("labels"))),
        ("loss allowed", percent(number_in(chosen, "max_loss"))),
    ]
    return Sheet(
        "recommended", "The recommended gate", ("setting", "value"), rows, "Its figures are in the table of rules."
    )


def number_in(row: Mapping[str, Json], key: str) -> float | None:
    """A number of the demo; None if it is missing."""
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
