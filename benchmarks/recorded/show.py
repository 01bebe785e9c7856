"""Figures and tables as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks import timing
from justenough.stats import Estimate


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return "–" if value is None or not np.isfinite(value) else f"{100 * value:.{digits}f} %"


def points(estimate: Estimate | None, digits: int = 1) -> str:
    """A change in accuracy in points, with its interval."""
    if estimate is None:
        return "–"
    shown = f"{100 * estimate.value:+.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return shown
    return f"{shown} [{100 * estimate.low:+.{digits}f}, {100 * estimate.high:+.{digits}f}]"


def spread(estimate: Estimate | None, digits: int = 2) -> str:
    """A figure with its interval."""
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns; the first is aligned to the left, the others to the right."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip())


def write_parts(name: str, parts: Mapping[str, object]) -> None:
    """Write a result as JSON with one part on each line, because the tables of all pairs of models are large."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in parts.items()]
    timing.RESULTS.mkdir(exist_ok=True)
    (timing.RESULTS / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
