"""Where a thought begins and ends: its tags, and a follower that reads a stream token by token. No I/O.

A model writes its thought between two tags at the start of its text, or in a field of its own, or from the first token
on because the prompt has already opened it. A tag is not part of the thought. It may be split over several tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from justenough.errors import InputError

UNTIL: Final = "until:"


class Phase(Enum):
    """The part of its text that the model is writing."""

    UNKNOWN = auto()
    """The text so far does not tell whether it begins with a thought."""
    THINKING = auto()
    ANSWERING = auto()
    """The thought is over, or there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThoughtFormat:
    """How a model marks its thought."""

    open: str = "<think>"
    """The opening tag; empty if there is none."""
    close: str = "</think>"
    """The closing tag, or the cue that begins the answer."""
    opened: bool = False
    """Whether the thought is open before the first token, because the prompt opens it. An opening tag at the start of
    the text is still a tag."""
    cue: bool = False
    """Whether `close` is the beginning of the answer, not a tag."""

    def __post_init__(self) -> None:
        if not self.close:
            raise InputError("a thought's format has no closing tag", hint="for example </think>")
        if not self.open and not self.opened:
            raise InputError("a thought without an opening tag must be open from the start", hint="opened: true")

    def thought_of(self, text: str) -> str:
        """The part of a text before the end of its thought; all of it if the thought does not end."""
        return text.partition(self.close)[0]

    def answer_of(self, text: str) -> str:
        """The part of a text after its thought; all of it if no thought ends."""
        before, close, after = text.rpartition(self.close)
        return close + after if self.cue and close else after if close else before + after

    def with_tag(self, text: str) -> str:
        """A thought that came in a field of its own, with its opening tag and a line break in front of it."""
        return text if not self.open or text.startswith(self.open) else f"{self.open}\n{text}"


THINK: Final = ThoughtFormat()
FORMATS: Final[Mapping[str, ThoughtFormat]] = MappingProxyType(
    {
        "think": THINK,
        "think-opened": ThoughtFormat(opened=True),
        "mistral": ThoughtFormat(open="[THINK]", close="[/THINK]"),
        "thought": ThoughtFormat(open="<thought>", close="</thought>"),
        "reasoning": ThoughtFormat(open="<reasoning>", close="</reasoning>"),
        "seed": ThoughtFormat(open="<seed:think>", close="</seed:think>"),
    }
)
"""Formats by name; `until:CUE` is one more: a thought without tags that ends at the cue, which begins the answer."""


def thought_format(name: str) -> ThoughtFormat:
    """A format by its name, or `until:CUE`; raises `InputError` for any other."""
    if name.startswith(UNTIL) and (cue := name.removeprefix(UNTIL)):
        return ThoughtFormat(open="", close=cue, opened=True, cue=True)
    if name not in FORMATS:
        raise InputError(f"unknown format of a thought {name!r}", hint=f"one of {', '.join(FORMATS)}, until:CUE")
    return FORMATS[name]


def answer_begin(text: str) -> int | None:
    """Where the answer begins in a text of unknown format: after the last closing tag of any format.

    0 if there is no thought, None if a thought begins and does not end.
    """
    ends = [end + len(close) for close in _CLOSING if (end := text.rfind(close)) >= 0]
    if ends:
        return max(ends)
    # `<think>` counts anywhere; the other tags are words that an answer may use.
    return None if THINK.open in text or text.lstrip().startswith(_OPENING) else 0


_CLOSING: Final = tuple({format.close for format in FORMATS.values()})
_OPENING: Final = tuple({format.open for format in FORMATS.values()})


class Follower:
    """Follows one text token by token and returns the part of each token that belongs to the thought."""

    __slots__ = ("_close", "_first", "_format", "_pending", "_start", "phase", "thought")

    def __init__(self, format: ThoughtFormat = THINK) -> None:
        self.phase = Phase.THINKING if format.opened else Phase.UNKNOWN
        self.thought = format.opened
        """Whether the text so far has shown a thought."""
        self._format = format
        self._close = format.close
        self._first = format.close[0]
        self._start = True
        """Whether an opening tag may still come."""
        self._pending = ""

    @property
    def answering(self) -> bool:
        """Whether the thought is over, or there is none."""
        return self.phase is Phase.ANSWERING

    @property
    def pending(self) -> str:
        """The end of the text, if it may be the beginning of a tag."""
        return self._pending

    def enter_field(self) -> None:
        """The thought comes in a field of its own: it ends with that field, not with a tag."""
        if self.phase is Phase.UNKNOWN or not self.thought:
            self.phase, self.thought = Phase.THINKING, True
        # Half a character, which no decoded text contains: nothing matches it as a closing tag.
        self._close = self._first = "\ud800"

    def leave_field(self) -> None:
        """The field of the thought is over."""
        self.phase, self._pending = Phase.ANSWERING, ""

    def feed(self, text: str) -> str | None:
        """Add a token's text and return the text that now certainly belongs to the thought.

        None if the token is a tag, a part of one, or outside the thought. Text that may begin a tag comes with a later
        token.
        """
        if self.phase is Phase.THINKING and not self._start and not self._pending and self._first not in text:
            return text
        if self.phase is Phase.ANSWERING:
            return None
        text, self._pending = self._pending + text, ""
        if self._start:
            stripped = text.lstrip()
            tag = self._format.open
            if tag and tag.startswith(stripped) and stripped != tag:
                self._pending = text
                return "" if self.thought and not text else None
            self._start = False
            if tag and stripped.startswith(tag):
                self.phase, self.thought = Phase.THINKING, True
                text = stripped.removeprefix(tag)
            elif not self.thought:
                self.phase = Phase.ANSWERING
                return None
            if not text:
                return None
        return self._inside(text)

    def _inside(self, text: str) -> str | None:
        """The text of the thought up to its closing tag, or up to what may be the beginning of that tag."""
        close = self._close
        end = text.find(close)
        if end >= 0:
            self.phase = Phase.ANSWERING
            return text[:end] or None
        for size in range(min(len(close) - 1, len(text)), 0, -1):
            if text.endswith(close[:size]):
                self._pending = close[:size]
                return text[:-size] or None
        return text
