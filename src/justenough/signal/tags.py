"""How tags of thoughts look in a text: variants of them, where one opens a thought, and what closes one. No I/O."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

LATEST: Final = 40
"""Characters of other text that may stand before an opening tag."""
BEHIND: Final = 2
"""Characters behind an opening tag that tell whether it opens a thought."""
MARKS: Final = ("<", "[", "◁")
"""What a tag begins with. An opening that is a sentence stands at the beginning of the text or is none."""
VARIANT: Final = re.compile(
    r"<((?:\w{1,16}[_:])?(?:think|thinking|thought|reasoning)(?:_\w{1,16})?)(?:\s[^<>]*)?>", re.IGNORECASE
)
"""A tag in other letters, or with attributes, such as `<Thought>`, `<think_fast>` and `<think lang="en">`."""
_ENDS: Final = (".", "!", "?", "…", "。", "！", "？", "\n")
"""What ends a sentence or a line. Within a sentence a tag is only spoken of."""
_SPEAKS: Final = frozenset(" ,.;:!?)")
"""What goes on with a sentence behind a tag."""


def opens(text: str, begin: int, end: int) -> bool:
    """Whether the tag in a text opens a thought; False while there is too little text behind the tag to tell.

    Behind other text a thought begins at once, or with a new line or a sentence. An answer that speaks of a tag goes on
    with the next word or a comma.
    """
    before, after = text[:begin], text[end : end + BEHIND]
    if after.startswith("\n"):
        return True
    ended = before.rstrip(" ").endswith(_ENDS)
    if after[:1].isalnum() or after[1:].isupper():
        return ended or before.endswith(" ")
    # Behind a sentence or a line a thought may also begin with another sign.
    return ended and after.strip() != "" and after[0] not in _SPEAKS


@lru_cache(maxsize=64)
def closing_pattern(close: str) -> re.Pattern[str]:
    """What closes a thought: this tag in any case, also with spaces before its last character, or exactly this cue."""
    if not close.startswith(MARKS):
        return re.compile(re.escape(close))
    return re.compile(f"{re.escape(close[:-1])} {{0,{LATEST}}}{re.escape(close[-1])}", re.IGNORECASE)


def begun(text: str, close: str) -> int:
    """Where at the end of a text something begins that may become this tag or cue; the text's length if nowhere."""
    is_tag = close.startswith(MARKS)
    close = close.lower() if is_tag else close
    end = text.rstrip(" ") if is_tag and len(text) - len(text.rstrip(" ")) <= LATEST else text
    for size in range(min(len(close) - 1, len(end)), 0, -1):
        tail = end[-size:].lower() if is_tag else end[-size:]
        # Spaces may stand only before the last character.
        if tail == close[:size] and (end == text or size == len(close) - 1):
            return len(end) - size
    return len(text)
