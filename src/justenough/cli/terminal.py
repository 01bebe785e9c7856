"""Text for people: tables, percentages, colour where there is some, progress on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

from justenough.stats.text import percent

if TYPE_CHECKING:
    from justenough.trace import Json


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr)


def print_json(value: dict[str, Json]) -> None:
    """The one object that `--json` prints."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


def has_colour(stream: TextIO) -> bool:
    """A terminal that has not been asked for plain text."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def safe(text: str) -> str:
    """Model output without control characters: it must not steer the terminal."""
    return "".join(char if char in "\n\t" or char.isprintable() else "�" for char in text)


def shade(text: str, bits: float | None, stream: TextIO) -> str:
    """A token's text on a ground that reddens with its entropy in bits; plain where there is no colour."""
    if bits is None or not has_colour(stream) or bits < 0.05:
        return text
    # Six steps of the 256-colour red ramp up to 2 bits: a coin toss between four tokens.
    ramp = (224, 217, 216, 210, 203, 196)
    ground = ramp[min(len(ramp) - 1, int(bits / 2.0 * len(ramp)))]
    return f"\x1b[48;5;{ground}m\x1b[38;5;16m{text}\x1b[0m"


class ProgressLine:
    """Progress on stderr with an estimate of the time left: one line that moves, or a line each tenth in a pipe."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._begun = time.monotonic()
        self._start: int | None = None
        self._tenth = -1

    def update(self, *, done: int, total: int, tokens: int) -> None:
        """Show how far it is."""
        if self._start is None:
            self._start = done
        spent = time.monotonic() - self._begun
        fresh = done - self._start
        left = f", {spent / fresh * (total - done):.0f} s left" if fresh and done < total else ""
        rate = f", {tokens / spent:,.0f} tokens/s" if spent > 0.5 and tokens else ""
        line = f"{self._what}: {done}/{total} problems{rate}{left}"
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r\x1b[K{line}", end=end, file=sys.stderr, flush=True)
        elif total and 10 * done // total > self._tenth:
            self._tenth = 10 * done // total
            print(line, file=sys.stderr, flush=True)


class SpendingLine:
    """Progress of a budgeted batch, in tokens or calls."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._tenth = -1
        self._open = False

    def update(self, *, spent: int, total: int, answered: int, expected: float | None) -> None:
        """Show how much is spent and what accuracy is expected so far."""
        hope = "" if expected is None else f", {percent(expected)} expected right"
        line = f"budget: {spent:,}/{total:,} {self._unit}, {answered} problems answered{hope}"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            self._open = True
        elif 10 * spent // total > self._tenth:
            self._tenth = 10 * spent // total
            print(line, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line that moves, so that what follows begins on its own."""
        if self._open:
            self._open = False
            print(file=sys.stderr, flush=True)
