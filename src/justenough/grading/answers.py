"""Answers out of model output."""

from __future__ import annotations

import re
from typing import Final

CLOSE: Final = "</think>"
"""Ends a thought."""
_CUE: Final = re.compile(r"answer\b[*`]*\s*(?:is\b|:|=)[\s:=]*(.*)", re.IGNORECASE)


def extract_answer(text: str) -> str | None:
    """The stated answer: the last `\\boxed{…}`, else the last `Answer: …`, else the last line; None: there is none.

    What stands inside `<think>…</think>` is no answer, and a thought that never ended has none.
    """
    said = after_thought(text)
    if (boxed := _boxed(said)) is not None:
        return boxed or None
    # "Answer:" with nothing behind it is a text cut short, not an answer.
    cues = _CUE.findall(said)
    if cues:
        return next((answer for cue in reversed(cues) if (answer := _tidy(cue))), None)
    lines = [line for line in said.splitlines() if line.strip()]
    return (_tidy(lines[-1]) or None) if lines else None


def after_thought(text: str) -> str:
    """What stands after the thought; nothing where the thought never ended."""
    return text.rpartition(CLOSE)[2] if CLOSE in text else "" if "<think>" in text else text


def _boxed(text: str) -> str | None:
    """The content of the last `\\boxed{…}` with its braces balanced."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for index in range(begin, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            if depth == 0:
                return text[begin:index].strip()
            depth -= 1
    return None


def _tidy(text: str) -> str:
    return text.strip().strip("*`$ ").removeprefix("####").strip().rstrip(".*`$ ")
