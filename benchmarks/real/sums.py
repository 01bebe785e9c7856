"""Sums of two numbers, the same for the same seed, for models too weak for stories.

The level sets how many digits the numbers have and whether the sum is an addition, a subtraction or a multiplication.
It is recorded as the `group` of the problem.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

TASK: Final = "sums"


class Level(NamedTuple):
    """How hard a sum is."""

    sign: str
    """One of `+`, `-` and `*`."""
    first: tuple[int, int]
    """Smallest and largest first number."""
    second: tuple[int, int]


LEVELS: Final = (
    Level("+", (2, 20), (2, 20)),
    Level("-", (20, 99), (2, 19)),
    Level("+", (21, 99), (21, 99)),
    Level("*", (2, 12), (2, 12)),
    Level("+", (100, 999), (21, 99)),
)
"""Levels 1 to 5."""


class Sum(NamedTuple):
    """One problem with its answer."""

    text: str
    answer: int
    level: int


def sums(*, seed: int) -> Iterator[Sum]:
    """The levels in turn, until one has no sum that is not yet drawn."""
    draw = random.Random(f"{TASK}-{seed}")
    levels = [_all_of(level, number) for number, level in enumerate(LEVELS, 1)]
    for each in levels:
        draw.shuffle(each)
    for turn in zip(*levels, strict=False):
        yield from turn


def _all_of(level: Level, number: int) -> list[Sum]:
    pairs = [
        (first, second)
        for first in range(level.first[0], level.first[1] + 1)
        for second in range(level.second[0], level.second[1] + 1)
    ]
    return [
        Sum(f"What is {first} {level.sign} {second}?", _result(first, level.sign, second), number)
        for first, second in pairs
    ]


def _result(first: int, sign: str, second: int) -> int:
    return {"+": first + second, "-": first - second, "*": first * second}[sign]


def task_lines(count: int, *, seed: int) -> list[str]:
    """`count` problems as lines of a task file that `justenough collect --tasks` reads."""
    return [
        json.dumps(
            {
                "id": f"sum-{seed}-{index}",
                "problem": problem.text,
                "target": str(problem.answer),
                "task": TASK,
                "family": problem.text.split()[3],
                "group": f"level-{problem.level}",
            }
        )
        for index, problem in enumerate(islice(sums(seed=seed), count))
    ]
