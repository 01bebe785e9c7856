"""The figures of the files in `benchmarks/results/real`, and how they are written, for tables and cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.real.live import Live, Row, compare
from justenough.evaluation import evaluate
from justenough.evaluation.diagnosis import diagnose
from justenough.stats import Estimate
from justenough.trace import Trace
from justenough.trace.files import read_traces


@cache
def traces_of(path: Path) -> Sequence[Trace]:
    """The traces of a file."""
    return read_traces(path).traces


@cache
def diagnosis_of(path: Path) -> Mapping[str, Any]:
    """What `justenough diagnose` says of a file."""
    return diagnose(traces_of(path)).to_json()


@cache
def evaluation_of(path: Path) -> Mapping[str, Any]:
    """What `justenough evaluate` says of a file."""
    return evaluate(traces_of(path)).to_json()


def live_of(path: Path) -> Live | None:
    """The comparison of the two ways in a file of live answers; None if no problem was answered in both ways."""
    rows = [msgspec.json.decode(line, type=Row) for line in path.read_bytes().splitlines()[1:]]
    done = {(row.way, row.id): row for row in rows}
    ids = [row.id for row in rows if row.way == "alone" and ("gateway", row.id) in done]
    return compare([(done["alone", id], done["gateway", id]) for id in ids]) if ids else None


def fraction(estimate: Estimate | None) -> str:
    """A share in percent, with its interval; a dash if it cannot be estimated."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return "–"
    text = f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
    return text.replace("-", "−")


def change(estimate: Estimate) -> str:
    """A change of the accuracy in points, with its interval."""
    limits = None if estimate.interval is None else list(estimate.interval)
    return points({"accuracy_change": estimate.value, "accuracy_change_ci": limits})


def outcome(row: Mapping[str, Any]) -> str:
    """What a rule saves, in percent, and how it changes the accuracy, in points."""
    low, high = row["saving_ci"]
    saved = f"{100 * row['saving']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{saved}; {points(row)}".replace("-", "−")


def points(row: Mapping[str, Any]) -> str:
    """A change of the accuracy in points, with its interval if it has one."""
    text = f"{100 * row['accuracy_change']:+.1f}"
    if row["accuracy_change_ci"] is not None:
        low, high = row["accuracy_change_ci"]
        text += f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return text.replace("-", "−")


def number(row: Mapping[str, Any], key: str, *, digits: int) -> str:
    """A figure with its interval; a dash if it cannot be estimated."""
    if row[key] is None:
        return "–"
    limits = row.get(f"{key}_ci")
    shown = [row[key], *(limits or ())]
    # With three digits these are areas, and the zero before the point carries nothing.
    texts = [f"{value:.{digits}f}".replace("-", "−") for value in shown]
    texts = [text.removeprefix("0") if digits == 3 else text for text in texts]
    return texts[0] if limits is None else f"{texts[0]} [{texts[1]}, {texts[2]}]"
