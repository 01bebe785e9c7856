"""Sums of two or three numbers, the same for the same seed, for models too weak for stories.

The level sets the range of each number and the signs between the numbers. It is recorded as the `group` of the problem.
There are three tasks, so that a model can have one at which it is neither always right nor always wrong.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice, product
from typing import Final, NamedTuple

TASK: Final = "sums"


class Level(NamedTuple):
    """How hard a sum is."""

    signs: str
    """The signs between the numbers, each `+`, `-` or `*`; only the first one may be `*`."""
    numbers: tuple[tuple[int, int], ...]
    """Smallest and largest value of each number."""


LEVELS: Final = {
    TASK: (
        Level("+", ((2, 20), (2, 20))),
        Level("-", ((20, 99), (2, 19))),
        Level("+", ((21, 99), (21, 99))),
        Level("*", ((2, 12), (2, 12))),
        Level("+", ((100, 999), (21, 99))),
    ),
    "easy-sums": (
        Level("+", ((1, 9), (1, 9))),
        Level("-", ((10, 19), (1, 9))),
        Level("+", ((10, 90), (1, 9))),
        Level("*", ((2, 9), (2, 12))),
        Level("*", ((11, 99), (10, 10))),
    ),
    "hard-sums": (
        Level("++", ((5, 30), (5, 30), (5, 30))),
        Level("*", ((13, 99), (3, 9))),
        Level("*+", ((3, 15), (3, 9), (11, 40))),
        Level("*", ((101, 399), (3, 9))),
        Level("*", ((13, 49), (13, 49))),
    ),
}
"""Levels 1 to 5 of each task."""


class Sum(NamedTuple):
    """One problem with its answer."""

    text: str
    answer: int
    level: int


def sums(*, seed: int, task: str = TASK) -> Iterator[Sum]:
    """The levels of a task in turn, until one has no sum that is not yet drawn."""
    draw = random.Random(f"{task}-{seed}")
    levels = [_all_of(level, number) for number, level in enumerate(LEVELS[task], 1)]
    for each in levels:
        draw.shuffle(each)
    for turn in zip(*levels, strict=False):
        yield from turn


def _all_of(level: Level, number: int) -> list[Sum]:
    ranges = (range(smallest, largest + 1) for smallest, largest in level.numbers)
    return [_sum(values, level.signs, number) for values in product(*ranges)]


def _sum(values: tuple[int, ...], signs: str, number: int) -> Sum:
    text, result = f"{values[0]}", values[0]
    for sign, value in zip(signs, values[1:], strict=True):
        text += f" {sign} {value}"
        result = {"+": result + value, "-": result - value, "*": result * value}[sign]
    return Sum(f"What is {text}?", result, number)


def task_lines(count: int, *, seed: int, task: str = TASK) -> list[str]:
    """`count` problems as lines of a task file that `justenough collect --tasks` reads."""
    return [
        json.dumps(
            {
                "id": f"{task.removesuffix('s')}-{seed}-{index}",
                "problem": problem.text,
                "target": str(problem.answer),
                "task": task,
                "family": problem.text.split()[3],
                "group": f"level-{problem.level}",
            }
        )
        for index, problem in enumerate(islice(sums(seed=seed, task=task), count))
    ]
