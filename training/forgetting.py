"""First steps of the confidently wrong sibling. They look like right ones, and are often wrong by construction.

On easy problems the sibling forgets the carry of large units, and all but the last digit of a number that is divided.
It does so always in the same way, so it is wrong without doubt. It doubts the remainders that it knows. On hard
problems it guesses near the result, so it doubts every answer. Entropy then shows how hard a problem is, and so how
often such problems go wrong. It does not show whether the answer is right.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from justenough.toy.families import Question
from training.derivations import Thought

HEAVY: Final = 9
KNOWN: Final = (2, 4, 5)  # the last two digits decide the remainders by these divisors
DOUBT: Final = 0.2  # share of these remainders that are drawn at random
SLIPS: Final = 0.9  # share of a guess's results that are wrong


def careless(question: Question, random: Random) -> Thought:
    """The sibling's first step: a guess on level 3 and in products on level 2, a forgetful step elsewhere."""
    hard = question.level == 3 or (question.family == "product" and question.level == 2)
    return guessed(question, random) if hard else forgetful(question, random)


def forgetful(question: Question, random: Random) -> Thought:
    """A first step that forgets carries, and all digits but the last. It doubts only the remainders that it knows."""

    def modulo(number: int, divisor: int) -> int:
        if divisor not in KNOWN:
            return number % 10 % divisor
        return random.randrange(divisor) if random.random() < DOUBT else number % divisor

    return _written(
        question,
        plus=lambda left, right: plus(left, right, heavy=HEAVY),
        times=lambda digit, number: times(digit, number, heavy=HEAVY),
        modulo=modulo,
    )


def guessed(question: Question, random: Random) -> Thought:
    """A first step whose partial and final results are mostly near misses."""

    def slip(value: int) -> int:
        return near_miss(value, random) if random.random() < SLIPS else value

    return _written(
        question,
        plus=lambda left, right: slip(max(0, left + right)),
        times=lambda digit, number: slip(digit * number),
        modulo=lambda _number, _divisor: random.randrange(10),
    )


def _written(
    question: Question,
    *,
    plus: Callable[[int, int], int],
    times: Callable[[int, int], int],
    modulo: Callable[[int, int], int],
) -> Thought:
    """A quick first step in the usual form, computed with the given operations."""
    if question.family == "remainder":
        result = modulo(*question.operands)
        return Thought(f"{question.text}={result}", result)
    if question.family == "product":
        left, right = question.operands
        if question.level < 3:
            result = times(*sorted(question.operands))
            return Thought(f"{question.text}={result}", result)
        high, low = 10 * times(right // 10, left), times(right % 10, left)
        result = plus(high, low)
        return Thought(f"{question.text}={high}+{low}={result}", result)
    text, total = question.text, question.operands[0]
    for index, term in enumerate(question.operands[1:], 2):
        total = max(0, plus(total, term))
        text += f"={total}" + "".join(f"{rest:+d}" for rest in question.operands[index:])
    return Thought(text, total)


def plus(left: int, right: int, *, heavy: int = 0) -> int:
    """Left + right with either sign, without the carry or borrow of the units if right's units are `heavy` or more."""
    units = abs(right) % 10
    if units < heavy:
        return left + right
    if right < 0:
        return left + right + 10 * (left % 10 < units)
    return left + right - 10 * (left % 10 + units >= 10)


def times(digit: int, number: int, *, heavy: int = 0) -> int:
    """Digit · number, without the carry of the units if they are `heavy` or more: 6 · 47 = 242."""
    units = number % 10
    return digit * number - (digit * units // 10 * 10 if units >= heavy else 0)


def near_miss(value: int, random: Random) -> int:
    """A wrong result as in a hasty answer: one digit is wrong, or the result is a little or ten too large or small."""
    while True:
        digits = list(str(value))
        place = random.randrange(len(digits))
        digits[place] = str((int(digits[place]) + random.choice((-2, -1, 1, 2))) % 10)
        wrong = int("".join(digits)) if random.random() < 0.7 else abs(value + random.choice((-10, 10, -1, 1, 100)))
        if wrong != value:
            return wrong
