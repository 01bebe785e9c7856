"""Decides token by token, without look-ahead, where a reasoning step ends."""

from __future__ import annotations

import re
from typing import Final, Protocol

from justenough.errors import InputError

SPLITTERS: Final = ("completion", "paragraph", "sentence", "tokens:N")

_PARAGRAPH_END: Final = re.compile(r"\n[ \t]*\n")
_SENTENCE_END: Final = re.compile(r"[.!?][\"')\]]*\s|[。！？]")
_EDGE: Final = " \t\n.!?\"')]"
"""Characters that a boundary may contain before its last one."""


class Splitter(Protocol):
    """Follows one thought. A step ends with the token that completes the boundary."""

    def feed(self, text: str) -> bool:
        """Add a token's text; True if a step ends with it."""


class _Completion:
    def feed(self, text: str) -> bool:
        return False


class _Count:
    def __init__(self, size: int) -> None:
        self._size = size
        self._seen = 0
        self._blank = True

    def feed(self, text: str) -> bool:
        self._seen += 1
        # White space alone is not a step.
        self._blank = self._blank and text.isspace()
        if self._blank or self._seen < self._size:
            return False
        self._seen, self._blank = 0, True
        return True


class _Pattern:
    """A step ends where the pattern occurs after something that is not white space."""

    def __init__(self, pattern: re.Pattern[str], *, openers: str) -> None:
        """`openers`: the characters that the pattern may begin with."""
        self._pattern = pattern
        self._openers = openers
        self._tail = ""

    def feed(self, text: str) -> bool:
        # White space before the first word is not a step.
        text = self._tail + text if self._tail else text.lstrip()
        for opener in self._openers:
            if opener in text:
                break
        else:
            # Most tokens: no boundary begins here, and one character shows that the step is not empty.
            self._tail = text[:1]
            return False
        if self._pattern.search(text):
            self._tail = ""
            return True
        # Keep what may begin a boundary, and one more character to show that the step is not empty.
        self._tail = text[max(0, len(text.rstrip(_EDGE)) - 1) :]
        return False


def splitter(name: str) -> Splitter:
    """A fresh splitter: `completion` (never inside), `paragraph` (blank line), `sentence`, or `tokens:N`."""
    if name == "completion":
        return _Completion()
    if name == "paragraph":
        return _Pattern(_PARAGRAPH_END, openers="\n")
    if name == "sentence":
        return _Pattern(_SENTENCE_END, openers=".!?。！？")
    if match := re.fullmatch(r"tokens:([1-9]\d{0,6})", name):
        return _Count(int(match[1]))
    raise InputError(f"unknown splitter {name!r}", hint=f"one of {', '.join(SPLITTERS)}")
