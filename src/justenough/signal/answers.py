r"""Finds the answer in a model's text. The graders, the pooling `answer-span` and the gateway all use it.

The rules, in order of precedence:

1. Only the text after the thought counts; a thought that does not end has no answer.
2. Statements of an answer are `\boxed{…}` with its closing brace, and a cue with the rest of its line: "Answer: 8",
   "The answer is 8", "answer = 8". The statement that begins last is the answer. A cue with nothing behind it is passed
   over. Where all statements are empty there is no answer.
3. Without a statement the last line is the answer, if the text is an answer: always in `extract_answer`, but in
   `answer_span` only after a closed thought or if the text was elicited as an answer.

White space, `*`, a back quote and `$` around the answer, `####` before it and a period after it are not part of it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from justenough.signal.thought import answer_begin

_CUE: Final = re.compile(r"answer\b[*`]*\s*(?:is\b|:|=)[\s:=]*(.*)", re.IGNORECASE)
_BRACE: Final = re.compile(r"(\\boxed\s*)?\{|\}")
_AROUND: Final = "*`$ \t\r\n\f\v"


class Statement(NamedTuple):
    """A place where a text states its answer."""

    at: int
    """Where the cue or the box begins."""
    begin: int
    end: int
    boxed: bool


def extract_answer(text: str) -> str | None:
    """The stated answer, else the last line; None if there is none."""
    begin = answer_begin(text)
    span = None if begin is None else _answer(text, begin, last_line=True)
    return None if span is None else text[slice(*span)]


def answer_span(text: str, *, elicited: bool = False) -> tuple[int, int] | None:
    """The position of the answer, as (begin, end) in `text`; None if the answer cannot be separated from the thought.

    `elicited`: whether the text was elicited as an answer, so all of it may be one.
    """
    begin = answer_begin(text)
    # A segment of an open thought may state an answer, but its last line is not one.
    return _answer(text, begin or 0, last_line=bool(begin) or elicited)


def after_thought(text: str) -> str:
    """The text after the thought; empty if the thought never ends."""
    begin = answer_begin(text)
    return "" if begin is None else text[begin:]


def _answer(text: str, begin: int, *, last_line: bool) -> tuple[int, int] | None:
    statements = [*_boxes(text, begin), *_cues(text, begin)]
    if statements:
        statements.sort(reverse=True)
        for statement in statements:
            # A line between the cue and its answer may hold a box, which then is the later statement.
            if (span := _tidy(text, statement.begin, statement.end)) or statement.boxed:
                return span
        return None
    lines = list(re.finditer(r"[^\n\r\v\f]*\S[^\n\r\v\f]*", text[begin:])) if last_line else []
    return _tidy(text, begin + lines[-1].start(), begin + lines[-1].end()) if lines else None


def _cues(text: str, begin: int) -> list[Statement]:
    return [Statement(cue.start(), *cue.span(1), False) for cue in _CUE.finditer(text, begin)]


def _boxes(text: str, begin: int) -> list[Statement]:
    """The boxes whose braces are balanced; a box that is cut short is not an answer."""
    boxes: list[Statement] = []
    opened: list[re.Match[str]] = []
    for brace in _BRACE.finditer(text, begin):
        if brace[0] != "}":
            opened.append(brace)
        elif opened and (box := opened.pop())[1]:
            boxes.append(Statement(box.start(), box.end(), brace.start(), True))
    return boxes


def _tidy(text: str, begin: int, end: int) -> tuple[int, int] | None:
    """The span without marks around it; None if nothing is left."""

    def strip_left(marks: str) -> None:
        nonlocal begin
        begin = end - len(text[begin:end].lstrip(marks))

    strip_left(_AROUND)
    if text.startswith("####", begin, end):
        begin += 4
        strip_left(_AROUND)
    end = begin + len(text[begin:end].rstrip(_AROUND + "."))
    return (begin, end) if begin < end else None
