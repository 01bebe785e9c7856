"""Graded arithmetic word problems, the same for the same seed, for models too weak for school mathematics.

A problem is a short story: somebody has a number of things, one to four events change it, and the question asks how
many are left. The level sets how many events there are, of which kinds, and how large the numbers get. It is recorded
as the `group` of the problem, so that a signal can be judged within a level and not only across levels.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

TASK: Final = "word-problems"

_PEOPLE: Final = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo", "Iris", "Jonas", "Lena", "Omar")
_THINGS: Final = ("apples", "books", "cards", "coins", "eggs", "marbles", "pencils", "shells", "stamps", "stickers")
_PLACES: Final = ("at the market", "in the garden", "from an uncle", "from a neighbour", "on the way home")


class Event(NamedTuple):
    """What happens to the count: a sentence and the count after it."""

    sentence: str
    after: int


EventKind = Callable[[random.Random, str, str, int, int], Event]
"""Draws an event from `(random, person, things, count, largest)`; the count never falls below 1."""


def _gain(draw: random.Random, person: str, things: str, count: int, largest: int) -> Event:
    more = draw.randint(2, largest)
    return Event(f"{person} gets {more} more {things} {draw.choice(_PLACES)}.", count + more)


def _lose(draw: random.Random, person: str, things: str, count: int, largest: int) -> Event:
    if count < 3:
        return _gain(draw, person, things, count, largest)
    fewer = draw.randint(2, min(largest, count - 1))
    way = draw.choice(("gives {} {} to a friend", "loses {} {}", "sells {} {}"))
    return Event(f"{person} {way.format(fewer, things)}.", count - fewer)


def _packs(draw: random.Random, person: str, things: str, count: int, largest: int) -> Event:
    packs, each = draw.randint(2, 9), draw.randint(2, max(3, largest // 4))
    return Event(f"{person} buys {packs} boxes with {each} {things} in each box.", count + packs * each)


def _times(draw: random.Random, person: str, things: str, count: int, largest: int) -> Event:
    factor = draw.randint(2, 4)
    word = {2: "twice", 3: "three times", 4: "four times"}[factor]
    return Event(f"A week later {person} has {word} as many {things}.", count * factor)


def _share(draw: random.Random, person: str, things: str, count: int, largest: int) -> Event:
    parts = [part for part in range(2, 10) if count % part == 0 and count > part]
    if not parts:
        return _packs(draw, person, things, count, largest)
    part = draw.choice(parts)
    return Event(f"{person} puts all {things} into {part} equal piles and keeps one pile.", count // part)


@dataclass(frozen=True, slots=True)
class Level:
    """How hard a problem is."""

    events: int
    """How often the count changes."""
    largest: int
    """The largest number that is added or taken away."""
    kinds: tuple[EventKind, ...]


LEVELS: Final = (
    Level(1, 10, (_gain, _lose)),
    Level(2, 20, (_gain, _lose)),
    Level(2, 40, (_gain, _lose, _packs, _times)),
    Level(3, 60, (_lose, _packs, _times, _share)),
    Level(4, 90, (_lose, _packs, _times, _share)),
)
"""Levels 1 to 5."""


class WordProblem(NamedTuple):
    """One problem with its answer."""

    text: str
    answer: int
    level: int


def word_problems(*, seed: int) -> Iterator[WordProblem]:
    """Problems without end, no text twice, the levels in turn."""
    draw = random.Random(f"{TASK}-{seed}")
    seen: set[str] = set()
    while True:
        for level in range(1, len(LEVELS) + 1):
            problem = _problem(draw, level)
            while problem.text in seen:
                problem = _problem(draw, level)
            seen.add(problem.text)
            yield problem


def _problem(draw: random.Random, number: int) -> WordProblem:
    level = LEVELS[number - 1]
    person, things = draw.choice(_PEOPLE), draw.choice(_THINGS)
    count = draw.randint(3, level.largest)
    sentences = [f"{person} has {count} {things}."]
    last: EventKind | None = None
    for _ in range(level.events):
        # Two events of one kind in a row read like a mistake.
        kind = draw.choice([kind for kind in level.kinds if kind is not last])
        event = kind(draw, person, things, count, level.largest)
        sentences.append(event.sentence)
        count, last = event.after, kind
    sentences.append(f"How many {things} does {person} have now?")
    return WordProblem(" ".join(sentences), count, number)


def task_lines(count: int, *, seed: int) -> list[str]:
    """`count` problems as lines of a task file that `justenough collect --tasks` reads."""
    return [
        json.dumps(
            {
                "id": f"word-{seed}-{index}",
                "problem": problem.text,
                "target": str(problem.answer),
                "task": TASK,
                "family": "word",
                "group": f"level-{problem.level}",
            }
        )
        for index, problem in enumerate(islice(word_problems(seed=seed), count))
    ]
