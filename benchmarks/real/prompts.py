"""The prompts of `make real`: shorter than the library's, because small models lose themselves in a long answer.

`plugin` writes a package description that makes them known to `justenough collect --prompts NAME`, as an installed
plug-in would. The gateway reads them from the calibration.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from justenough.backends.notation import GROUP, General, Notation, notation_for
from justenough.prompts import GENERAL
from justenough.signal.thought import thought_format

_SENTENCE: Final = "{problem} Answer in one short sentence."
SENTENCE: Final = General(
    replace(
        GENERAL,
        name="real-sentence",
        ask=_SENTENCE,
        think=_SENTENCE,
        refine="Check your answer, and correct it if it is wrong. Answer again in one short sentence.",
    )
)
"""For facts, and for models that do not follow a longer instruction."""

_FORM: Final = "short sentences, then a last line with `Answer:` and the number."
_STEPS: Final = (
    "Example: Tom has 5 pears. Tom gets 4 more pears. Tom eats 2 pears. How many pears does Tom have now?\n"
    "Tom has 5 pears. With 4 more he has 5 + 4 = 9. After eating 2 he has 9 - 2 = 7.\n"
    "Answer: 7\n\n"
    "Problem: {problem}\n\n"
    f"Solve the problem in the form of the example: {_FORM}"
)
STEPS: Final = General(
    replace(
        GENERAL,
        name="real-steps",
        ask=_STEPS,
        think=_STEPS,
        refine=f"Solve the problem again from the beginning, and correct what was wrong: {_FORM}",
    )
)
"""For arithmetic in the sequential shape. Without the example, the models write twice as much and seldom the cue."""

CUE: Final = General(replace(STEPS.prompts, name="real-cue").with_thought(thought_format("until:Answer:")))
"""As `STEPS`, for the streaming shape of a model without tags: its thought is the text before `Answer:`."""

NOTATIONS: Final[dict[str, Notation]] = {each.name: each for each in (SENTENCE, STEPS, CUE)}


def notation(name: str) -> Notation:
    """The prompts of this name: from here, or any that are installed."""
    return NOTATIONS.get(name) or notation_for("", prompts=name)


def plugin(folder: Path) -> Path:
    """Describe the prompts as an installed package in `folder`, which must then be on the path; returns the folder."""
    description = folder / "justenough_real-1.dist-info"
    description.mkdir(parents=True, exist_ok=True)
    (description / "METADATA").write_text("Metadata-Version: 2.1\nName: justenough-real\nVersion: 1\n")
    constants = {value.name: name for name, value in globals().items() if isinstance(value, General)}
    lines = [f"{name} = {__name__}:{constant}" for name, constant in sorted(constants.items())]
    (description / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
    return folder
