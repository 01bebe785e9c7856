"""Text for people: results on stdout, notes and progress on stderr, tables, percentages and colour."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from justenough.errors import Interrupted
from justenough.files import is_stdout
from justenough.stats.text import clipped, counted, percent
from justenough.stats.text import safe as safe

if TYPE_CHECKING:
    import argparse

    from justenough.trace import Json


WIDEST: Final = 2000
"""Longest line that is printed; texts from files can be of any length."""


def write(text: str, *, flush: bool = False) -> None:
    """Write a part of the result on stdout; raises `Interrupted` if it cannot be written there."""
    try:
        print(text, end="", flush=flush)
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(sys.stdout)
        hint = "free some space, or choose another place; files that the command has written are kept"
        raise Interrupted(f"cannot write the result to stdout: {error.strerror or error}", hint=hint) from error


def results_of(options: argparse.Namespace) -> AbstractContextManager[object]:
    """Where results are shown: on stderr if the file of `--out` goes to stdout."""
    out = getattr(options, "out", None)
    return redirect_stdout(sys.stderr) if isinstance(out, Path) and is_stdout(out) else nullcontext()


def discard(stream: TextIO) -> None:
    """Let all further output of a stream that refuses it vanish, also the rest that Python writes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def show(text: str) -> None:
    """Print a result on stdout."""
    write(f"{_lines(text)}\n")


def say(text: str, *, end: str = "\n") -> None:
    """Print a note or a warning on stderr; a note that cannot be written is lost, and the work goes on."""
    _tell(_lines(text) + end)


def _tell(text: str) -> None:
    with suppress(OSError):
        print(text, end="", file=sys.stderr, flush=True)


def _lines(text: str) -> str:
    return "\n".join(clipped(line, width=WIDEST) for line in safe(text).split("\n"))


def print_json(value: dict[str, Json]) -> None:
    """Print the one object of `--json` on stdout; characters that could control a terminal are JSON escapes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    write("".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text) + "\n")


def has_colour(stream: TextIO) -> bool:
    """Whether the stream is a terminal that shows colour."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def shade(text: str, bits: float | None, stream: TextIO) -> str:
    """The text of a token on a background that is redder for more bits; plain if the stream shows no colour."""
    if bits is None or not has_colour(stream) or bits < 0.05:
        return text
    # Six reds of the 256 colours, up to 2 bits: four equally likely tokens.
    ramp = (224, 217, 216, 210, 203, 196)
    ground = ramp[min(len(ramp) - 1, int(bits / 2.0 * len(ramp)))]
    return f"\x1b[48;5;{ground}m\x1b[38;5;16m{text}\x1b[0m"


class _Line:
    """A line on stderr that is rewritten; in a pipe, one line for each tenth of the work or each 10 s."""

    def __init__(self) -> None:
        self._done = self._tenth = -1
        self._shown = -math.inf
        self._open = False

    def is_due(self, *, done: int, total: int) -> bool:
        """Whether to show a line at `done` of `total`: not for every token, but in a pipe at least every 10 s."""
        terminal, now, tenth = sys.stderr.isatty(), time.monotonic(), 10 * done // max(1, total)
        due = done != self._done if terminal else tenth > self._tenth
        if not due and now - self._shown < (0.1 if terminal else 10.0):
            return False
        self._done, self._tenth, self._shown = done, tenth, now
        return True

    def show(self, line: str) -> None:
        """Show the line."""
        if sys.stderr.isatty():
            _tell(f"\r\x1b[K{line}")
            self._open = True
        else:
            _tell(f"{line}\n")

    def close(self) -> None:
        """End the rewritten line, so that the next output starts on a new line."""
        if self._open:
            self._open = False
            _tell("\n")


class ProgressLine(_Line):
    """Progress on stderr with the time left."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what = what
        self._started = time.monotonic()
        self._first: int | None = None

    def update(self, *, done: int, total: int, steps: int, tokens: int) -> None:
        """Show the progress, but not at every token."""
        if self._first is None:
            self._first = done
        if not self.is_due(done=done, total=total):
            return
        seconds, fresh = time.monotonic() - self._started, done - self._first
        remaining = f", {seconds / fresh * (total - done):.0f} s left" if fresh and done < total else ""
        rate = f", {tokens / seconds:,.0f} tokens/s" if seconds > 0.5 and tokens else ""
        generated = f", {counted(steps, 'step')}, {counted(tokens, 'token')}" if tokens and done < total else ""
        self.show(f"{self._what}: {done}/{total} problems{generated}{rate}{remaining}")
        if done == total:
            self.close()


class SpendingLine(_Line):
    """Progress under a budget, in tokens or calls."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def update(self, *, spent: int, total: int, answered: int, expected: float | None) -> None:
        """Show the spent amount and the expected accuracy so far."""
        if not self.is_due(done=spent, total=total):
            return
        hope = "" if expected is None else f", {percent(expected)} expected right"
        self.show(f"budget: {spent:,}/{total:,} {self._unit}, {counted(answered, 'problem')} answered{hope}")
