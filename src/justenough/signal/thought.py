"""Where a thought begins and ends: its tags, and a follower that reads a stream token by token. No I/O.

A model writes its thought between two tags at the start of its text, or in a field of its own, or from the first token
on because the prompt has already opened it. A tag is not part of the thought. It may be split over several tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from justenough.errors import InputError
from justenough.signal.tags import BEHIND, LATEST, MARKS, VARIANT, begun, closing_pattern, opens

UNTIL: Final = "until:"


class Phase(Enum):
    """The part of its text that the model is writing."""

    UNKNOWN = auto()
    """The text so far does not tell whether it begins with a thought."""
    THINKING = auto()
    ANSWERING = auto()
    """The thought is over, or there is none."""


THINKING: Final = Phase.THINKING
"""For each token: to look up a member of an `Enum` takes Python 3.11 ten times as long."""


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
        if self.open == self.close:
            raise InputError(f"{self.open!r} cannot both open and close a thought", hint="two different tags")
        require_text("a tag", self.open + self.close)

    def thought_of(self, text: str) -> str:
        """The part of a text before the end of its thought; all of it if the thought does not end."""
        end_tag = closing_pattern(self.close).search(text)
        return text if end_tag is None else text[: end_tag.start()]

    def answer_of(self, text: str) -> str:
        """The part of a text after its thought; all of it if no thought ends."""
        begin = end = None
        for end_tag in closing_pattern(self.close).finditer(text):
            begin, end = end_tag.span()
        if self.cue or end is None:
            return text[begin:]
        return text[end:].removeprefix(_ANSWERS.get(self.close, ""))

    @property
    def closing(self) -> str:
        """The text that closes a thought for the model, so that its answer follows."""
        header = _ANSWERS.get(self.close)
        return f"\n{self.close}\n\n" if header is None else f"{self.close}{header}"

    def with_tag(self, text: str) -> str:
        """A thought that came without its opening tag, with the tag in front of it."""
        if not self.open or text.lstrip().startswith(self.open):
            return text
        return f"{self.open}{text}" if self.close in _ANSWERS else f"{self.open}\n{text}"

    @property
    def tags(self) -> tuple[str, str]:
        """The opening and the closing tag."""
        return self.open, self.close


def require_format(value: object) -> None:
    """Raise `InputError` for something else than a format of a thought, such as its name."""
    if not isinstance(value, ThoughtFormat):
        raise InputError(f"{value!r} is no format of a thought", hint="justenough.ThoughtFormat(open=…, close=…)")


def require_text(name: str, text: str) -> None:
    """Raise `InputError` for a text that cannot be sent, such as an argument that is not UTF-8."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise InputError(f"{name} is not valid UTF-8: {text!r}", hint="check the encoding of the terminal")


THINK: Final = ThoughtFormat()
FORMATS: Final[Mapping[str, ThoughtFormat]] = MappingProxyType(
    {
        "think": THINK,
        "think-opened": ThoughtFormat(opened=True),
        "mistral": ThoughtFormat(open="[THINK]", close="[/THINK]"),
        "thought": ThoughtFormat(open="<thought>", close="</thought>"),
        "reasoning": ThoughtFormat(open="<reasoning>", close="</reasoning>"),
        "thinking": ThoughtFormat(open="<thinking>", close="</thinking>"),
        "seed": ThoughtFormat(open="<seed:think>", close="</seed:think>"),
        "kimi": ThoughtFormat(open="◁think▷", close="◁/think▷"),
        "cohere": ThoughtFormat(open="<|START_THINKING|>", close="<|END_THINKING|>"),
        "gemma": ThoughtFormat(open="<|channel>thought", close="<channel|>"),
        "harmony": ThoughtFormat(open="<|channel|>analysis<|message|>", close="<|end|>"),
        "openthinker": ThoughtFormat(open="<|begin_of_thought|>", close="<|end_of_thought|>"),
        "medgemma": ThoughtFormat(open="<unused94>thought", close="<unused95>"),
        "apertus": ThoughtFormat(open="<|inner_prefix|>", close="<|inner_suffix|>"),
        "granite": ThoughtFormat(open="Here is my thought process:", close="Here is my response:"),
        "granite-short": ThoughtFormat(open="Here's my thought process:", close="Here's my response:"),
    }
)
"""Formats by name. `NAME-opened`: the prompt opens the thought. `until:CUE`: a thought without tags that ends at CUE,
which begins the answer."""
ANY: Final = tuple(format for format in FORMATS.values() if not format.opened)
"""The formats that an opening tag shows."""
_OPENED: Final = "-opened"
_NEVER: Final = "\ud800"
"""Half a character, which no decoded text contains: nothing matches it as a closing tag."""
_ANSWERS: Final[Mapping[str, str]] = MappingProxyType({"<|end|>": "<|start|>assistant<|channel|>final<|message|>"})
"""Closing tag → the header that the model writes between it and the answer."""


def thought_format(name: str) -> ThoughtFormat:
    """A format by its name, `until:CUE`, or two tags with a space between; raises `InputError` for any other."""
    if is_name(name):
        if name.startswith(UNTIL):
            return ThoughtFormat(open="", close=name.removeprefix(UNTIL), opened=True, cue=True)
        return FORMATS.get(name) or replace(FORMATS[name.removesuffix(_OPENED)], opened=True)
    tags = name.split()
    if len(tags) == 2:
        return ThoughtFormat(open=tags[0], close=tags[1])
    hint = f"one of {', '.join(FORMATS)}, until:CUE, or two tags: OPEN CLOSE"
    raise InputError(f"unknown format of a thought {name!r}", hint=hint)


def is_name(name: str) -> bool:
    """Whether this names a format by itself, without a second tag."""
    return name.removesuffix(_OPENED) in FORMATS or (name.startswith(UNTIL) and name != UNTIL)


def name_of(format: ThoughtFormat) -> str:
    """The name with which `thought_format` returns this format; its two tags if it has no name."""
    if format.cue:
        return f"{UNTIL}{format.close}"
    named = (name for name, one in FORMATS.items() if one.tags == format.tags and not one.opened)
    return next(named, " ".join(format.tags)) + (_OPENED if format.opened else "")


def closed_in(text: str) -> ThoughtFormat | None:
    """The format whose closing tag a text contains without its opening tag, because the prompt opened the thought."""
    formats = (one for one in ANY if one.open.startswith(MARKS) and one.close not in _ANSWERS)
    return next((replace(one, opened=True) for one in formats if one.close in text and one.open not in text), None)


def opened_by(prompt: str, formats: Iterable[ThoughtFormat] = ANY) -> ThoughtFormat | None:
    """The format whose opening tag is the end of a prompt, so that the thought is open already; None if none is."""
    end = prompt.rstrip()
    return next((replace(format, opened=True) for format in formats if format.open and end.endswith(format.open)), None)


def closed_by(text: str) -> bool:
    """Whether the text begins with a closing tag, so that a thought ends before it."""
    return text.lstrip().startswith(tuple(format.close for format in ANY))


def tagged_with(text: str, mark: str) -> ThoughtFormat | None:
    """The format whose tags stand around a mark in a text."""
    before, _, after = text.partition(mark)
    format = opened_by(before)
    return format and (replace(format, opened=False) if after.lstrip().startswith(format.close) else None)


def named_in(template: str) -> ThoughtFormat | None:
    """The format whose tags a chat template contains; None if it contains those of several or none."""
    formats = [format for format in ANY if format.open in template and format.close in template]
    return formats[0] if len(formats) == 1 else None


def answer_begin(text: str) -> int | None:
    """Where the answer begins in a text of unknown format: after the last closing tag of any format.

    0 if there is no thought, None if a thought begins and does not end.
    """
    ends = [end + len(close) for close in _CLOSING if (end := text.rfind(close)) >= 0]
    if ends:
        return max(ends)
    # `<think>` counts anywhere; the other tags are words that an answer may use.
    return None if THINK.open in text or text.lstrip().startswith(_OPENING) else 0


_CLOSING: Final = tuple(
    {close for format in FORMATS.values() for close in (format.close, _ANSWERS.get(format.close)) if close}
)
_OPENING: Final = tuple({format.open for format in FORMATS.values()})


class Follower:
    """Follows one text token by token and returns the part of each token that belongs to the thought.

    With several formats the first opening tag decides which of them it is; it may also be a variant of a known tag. A
    sentence may stand before a tag.
    """

    __slots__ = ("_close", "_first", "_pending", "_start", "_tags", "format", "phase", "shown", "thought")

    def __init__(self, *formats: ThoughtFormat) -> None:
        formats = formats or (THINK,)
        self._tags = {format.open: format for format in formats if format.open}
        self.format = formats[0]
        """The format of the thought, once an opening tag has shown it; before that, the first one."""
        self.shown = False
        """Whether an opening tag has shown the format."""
        self.thought = self.format.opened
        """Whether the text so far has shown a thought."""
        self.phase = Phase.THINKING if self.thought else Phase.UNKNOWN
        self._close = self.format.close
        self._first = self._close[0]
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

    def recognise(self, tag: str) -> None:
        """Take a text that the server shows only beside the thought's text, for example among the log-probabilities."""
        if (format := self._tags.get(tag.strip())) is not None:
            self.format, self.shown = format, True

    def enter_field(self) -> None:
        """The thought comes in a field of its own: it ends with that field, not with a tag."""
        if self.phase is Phase.UNKNOWN or not self.thought:
            self.phase, self.thought = Phase.THINKING, True
        self._close = self._first = _NEVER

    def leave_field(self) -> None:
        """The field of the thought is over."""
        self.phase, self._pending = Phase.ANSWERING, ""

    def feed(self, text: str) -> str | None:
        """Add a token's text and return the text that now certainly belongs to the thought.

        None if the token is a tag, a part of one, or outside the thought. Text that may begin a tag comes with a later
        token.
        """
        if self.phase is THINKING and not self._start and not self._pending and self._first not in text:
            return text
        if self.phase is Phase.ANSWERING:
            return None
        text, self._pending = self._pending + text, ""
        if self._start:
            return self._opening(text)
        return self._inside(text)

    def _opening(self, text: str) -> str | None:
        """Look for an opening tag in all of the text so far."""
        stripped = text.lstrip()
        tags = self._tags
        if any(tag.startswith(stripped) and stripped != tag for tag in tags):
            self._pending = text
            return "" if self.thought and not text else None
        # Where one tag begins with another, the longer one is meant.
        tag = max((tag for tag in tags if stripped.startswith(tag)), key=len, default=None)
        if tag is None and len(tags) > 1 and (variant := VARIANT.match(stripped)):
            tag = variant[0]
            tags[tag] = ThoughtFormat(open=tag, close=f"</{variant[1]}>")
        if tag is None and not self.thought:
            # Only so far, however much text comes at once, and not in code or quotes: an answer may speak of tags.
            near = stripped[: LATEST + 1].partition("`")[0]
            later = [(near.find(tag), -len(tag), tag) for tag in tags if tag.startswith(MARKS) and tag in near]
            later = [place for place in later if opens(stripped, place[0], place[0] - place[1])]
            if not later:
                over = len(stripped) > LATEST + BEHIND or not any(tag.startswith(MARKS) for tag in tags)
                self.phase, self._pending = (Phase.ANSWERING, "") if over else (Phase.UNKNOWN, text)
                return None
            begin, _, tag = min(later)
            stripped = stripped[begin:]
        self._start = False
        if tag is not None:
            self.shown = True
            if not self.format.opened:
                self.format = tags[tag]
                if self._close != _NEVER:
                    self._close, self._first = self.format.close, self.format.close[0]
            self.phase, self.thought = Phase.THINKING, True
            text = stripped.removeprefix(tag)
        return self._inside(text) if text else None

    def _inside(self, text: str) -> str | None:
        """The text of the thought up to its closing tag, or up to what may be the beginning of that tag."""
        close = self._close
        if (end_tag := closing_pattern(close).search(text)) is not None:
            self.phase = Phase.ANSWERING
            return text[: end_tag.start()] or None
        begin = begun(text, close)
        self._pending = text[begin:]
        return text[:begin] or None
