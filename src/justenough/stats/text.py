"""Numbers and tables as text, the same in the command line, the report and the benchmarks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from justenough.stats.estimates import Estimate

NOTHING: Final = "–"
_WIDEST: Final = 200
"""Largest width of a column; names come from files."""


def signed(value: float, *, digits: int = 1) -> str:
    """`+1.5` or `−0.3`, with a true minus; a value that rounds to zero has no sign."""
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def number(value: float | None, *, digits: int = 2) -> str:
    """A rounded number with a true minus; a dash for None and NaN."""
    return NOTHING if value is None or math.isnan(value) else signed(value, digits=digits).removeprefix("+")


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 trace`, `1,200 traces`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(value: float | None, *, digits: int = 1, sign: bool = False) -> str:
    """A fraction as `31.2 %`, with `sign` as `+31.2 %`; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{(signed if sign else number)(100 * value, digits=digits)} %"


def points(estimate: Estimate | None, *, digits: int = 1) -> str:
    """A difference of fractions in percentage points, with its interval: `+1.5 [−0.3 to +2.4]`."""
    return _with_limits(estimate, lambda value: signed(100 * value, digits=digits))


def spread(estimate: Estimate | None, *, digits: int = 2) -> str:
    """A number with its interval: `3.09 [2.80 to 3.41]`."""
    return _with_limits(estimate, lambda value: number(value, digits=digits))


def _with_limits(estimate: Estimate | None, text: Callable[[float], str]) -> str:
    if estimate is None:
        return NOTHING
    if (limits := estimate.interval) is None:
        return text(estimate.value)
    return f"{text(estimate.value)} [{text(limits[0])} to {text(limits[1])}]"


def safe(text: str) -> str:
    """Text from a model or a file, in which no character can control the terminal."""
    return "".join(char if char in "\n\t" or char.isprintable() else "�" for char in text)


def clipped(text: str, *, width: int) -> str:
    """The text, cut to `width` characters if it is longer."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Aligned columns, the first `left` of them to the left, the others to the right; no head where it is empty."""
    shown = [[clipped(cell, width=_WIDEST) for cell in row] for row in rows]
    if any(header):
        widths = [max(map(len, column)) for column in zip(header, *shown, strict=True)]
        shown = [list(header), ["─" * width for width in widths], *shown]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    )
