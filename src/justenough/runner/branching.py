"""Sampling by branches: a further sample continues a copy of an earlier one from a token with high entropy.

A branch is a step of its own. Its `tokens` are only those after the shared beginning, so a beginning that several
samples share is paid once. `Step.extra["branch"]` names the step (1-based) and the token (0-based) where it begins.
The next branch depends only on the recorded steps, so a run can be resumed and replayed.

Two publications are followed. EAGer (arXiv 2510.11170): `eager:θ` opens one more branch at every token above θ bits.
Entropy-gated branching (arXiv 2503.21961): `entropy-gated:θ[:width]` opens `width` branches at the first token above θ
of each paragraph. Both go from the earliest token to the latest. See docs/explanation/systems.md for what is ours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from justenough.errors import InputError
from justenough.signal.steps import splitter
from justenough.trace import Step

BRANCHINGS: Final = ("eager", "entropy-gated")
"""The names of the branchings."""
_THRESHOLD: Final = 2.0
"""In bits; EAGer's program suggests 2.0 to 2.4, in a unit that we do not know."""
_WIDTH: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Branching:
    """Where further samples begin."""

    threshold: float = _THRESHOLD
    """A token of more bits than this is uncertain."""
    width: int = 1
    """Branches at one token."""
    by_paragraph: bool = False
    """Only the first uncertain token of each paragraph opens branches."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < math.inf or self.width < 1:
            raise InputError(
                f"the branching has the threshold {self.threshold!r} and the width {self.width!r}",
                hint="a threshold in bits, at least 0, and at least one branch at a token",
            )


class Branch(NamedTuple):
    """The place where the next sample begins."""

    step: int
    """The step that it copies, 1-based."""
    token: int
    """The token of this step that it draws again, 0-based."""
    position: int
    """Tokens of the shared beginning."""
    prefix: str
    """Text of the shared beginning."""


def branching_named(spec: str) -> Branching:
    """The branching of `eager[:θ]` or `entropy-gated[:θ[:width]]`; raises `InputError` for any other text."""
    name, *numbers = spec.split(":")
    by_paragraph = name == "entropy-gated"
    try:
        if name not in BRANCHINGS or len(numbers) > 1 + by_paragraph:
            raise ValueError(spec)
        threshold = float(numbers[0]) if numbers else _THRESHOLD
        width = int(numbers[1]) if len(numbers) > 1 else _WIDTH if by_paragraph else 1
    except ValueError as error:
        raise InputError(f"unknown branching {spec!r}", hint="eager[:BITS] or entropy-gated[:BITS[:WIDTH]]") from error
    return Branching(threshold=threshold, width=width, by_paragraph=by_paragraph)


def next_branch(steps: Sequence[Step], branching: Branching) -> Branch | None:
    """Where the sample after `steps` begins: the earliest uncertain token with less than `width` branches, or None."""
    opened = Counter(_origin(step) for step in steps)
    depths: list[int] = []
    best: tuple[int, int, int] | None = None
    for number, step in enumerate(steps, 1):
        origin = _origin(step)
        depths.append(0 if origin is None else depths[origin[0] - 1] + origin[1])
        for token in _uncertain(step, branching):
            if opened[number, token] < branching.width:
                place = (depths[-1] + token, number, token)
                best = place if best is None else min(best, place)
                break
    if best is None:
        return None
    position, number, token = best
    step = steps[number - 1]
    rest = "".join((step.token_texts or ())[token:])
    return Branch(number, token, position, step.text[: len(step.text) - len(rest)])


def _origin(step: Step) -> tuple[int, int] | None:
    """The step and the token where a branch begins; None for a whole sample."""
    match step.extra.get("branch"):
        case [int(number), int(token)]:
            return number, token
    return None


def _uncertain(step: Step, branching: Branching) -> Iterator[int]:
    """Uncertain tokens of a step, in order. A branch does not branch again where it begins."""
    texts, entropies = step.token_texts, step.entropies
    # Without the text of each token, the beginning that is to be continued is unknown.
    if texts is None or entropies is None or len(texts) != len(entropies):
        return
    is_branch = _origin(step) is not None
    ends = splitter("paragraph")
    free = not is_branch
    for token, (text, bits) in enumerate(zip(texts, entropies, strict=True)):
        if bits > branching.threshold and free and not (is_branch and token == 0):
            yield token
            free = False
        free = not branching.by_paragraph or ends.feed(text) or free
