"""The problems that the embedded model can read: three families of integer arithmetic, in levels of difficulty.

| family | problem | levels |
|---|---|---|
| `product` | `47*36` | 1: one digit by two · 2: one by three · 3: two by two |
| `sum` | `41+93-28` | 1: two terms · 2: three terms · 3: four terms, each of two digits |
| `remainder` | `5821%7` | 1: two digits by one · 2: three by one · 3: four by one |

Every problem belongs to exactly one split. The split depends only on a hash of the operands, so that no generator, seed
or order can put a held-out problem into the training data.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Final, Literal

from justenough.errors import InputError, ProblemRefused

Split = Literal["train", "calibration", "test"]

FAMILIES: Final = ("product", "sum", "remainder")
LEVELS: Final = (1, 2, 3)
GRAMMAR: Final = (
    "products of one digit by two or three digits, or of two by two digits, such as 7*18 and 47*36; "
    "sums of two to four numbers of two digits that never go below zero, such as 41+93-28; "
    "remainders of two to four digits by one digit from 2 to 9, such as 5821%7"
)


@dataclass(frozen=True, slots=True)
class Question:
    """One problem of a family: its operands (signed, for a sum) and its level of difficulty."""

    family: str
    level: int
    operands: tuple[int, ...]

    @property
    def text(self) -> str:
        """The canonical text that the model reads."""
        first, *rest = self.operands
        if self.family == "sum":
            return str(first) + "".join(f"{term:+d}" for term in rest)
        return f"{first}{'*' if self.family == 'product' else '%'}{rest[0]}"

    @property
    def answer(self) -> int:
        """The correct answer."""
        if self.family == "sum":
            return sum(self.operands)
        left, right = self.operands
        return left * right if self.family == "product" else left % right


_PRODUCTS: Final[dict[tuple[int, ...], int]] = {(1, 2): 1, (1, 3): 2, (2, 2): 3}
"""Digits of the two operands, in ascending order → level."""
_WORDS: Final = (
    (r"^(what is|what's|compute|calculate|solve|evaluate)\b", ""),
    (r"\b(times|multiplied by)\b|[×·⋅]|(?<=\d)\s*x\s*(?=\d)", "*"),
    (r"\bplus\b", "+"),
    (r"\bminus\b|[−–]", "-"),
    (r"\b(modulo|mod)\b", "%"),
)


def parse(problem: str) -> Question:
    """Parse a problem, also in forms such as `47 × 36`, `What is 47 times 36?` or `5821 mod 7`.

    Raises `ProblemRefused` for any other text; the error explains what the model reads.
    """
    text = problem.strip().lower()
    for pattern, symbol in _WORDS:
        text = re.sub(pattern, symbol, text)
    text = re.sub(r"[\s=?.]+", "", text)
    if re.fullmatch(r"\d{1,4}([*%]\d{1,4}|([+-]\d{1,4})+)", text):
        family = "product" if "*" in text else "remainder" if "%" in text else "sum"
        operands = tuple(int(term) for term in re.findall(r"[+-]?\d+", text))
        if level := _level(family, operands):
            return Question(family, level, operands)
    raise ProblemRefused(f"the embedded model cannot read {problem!r}", hint=f"it reads {GRAMMAR}")


def _level(family: str, operands: tuple[int, ...]) -> int:
    """The level of the operands, or 0 if they are outside the family."""
    digits = tuple(len(str(abs(operand))) for operand in operands)
    if family == "product":
        return _PRODUCTS.get(tuple(sorted(digits)), 0) if min(operands) >= 2 else 0
    if family == "remainder":
        return digits[0] - 1 if 2 <= operands[1] <= 9 and 2 <= digits[0] <= 4 else 0
    never_negative = all(running >= 0 for running in accumulate(operands))
    return len(operands) - 1 if never_negative and 2 <= len(operands) <= 4 and set(digits) == {2} else 0


def split_of(question: Question) -> Split:
    """The split of a problem: 12.5 % test, 12.5 % calibration, the rest train.

    The hash uses the operands in sorted order, because the derivations swap operands to check a result: `36*47` must
    not be in training while `47*36` is held out.
    """
    key = question.operands if question.family == "remainder" else tuple(sorted(question.operands))
    bucket = hashlib.sha256(f"justenough/{question.family}/{key}".encode()).digest()[0] % 8
    return "test" if bucket == 0 else "calibration" if bucket == 1 else "train"


def draw(family: str, level: int, random: Random) -> Question:
    """Draw one problem of a family and level, of any split."""
    if family == "product":
        small, large = {1: (1, 2), 2: (1, 3), 3: (2, 2)}[level]
        pair = [_number(small, random), _number(large, random)]
        random.shuffle(pair)
        return Question(family, level, tuple(pair))
    if family == "remainder":
        return Question(family, level, (_number(level + 1, random), random.randint(2, 9)))
    if family != "sum":
        raise InputError(f"unknown family {family!r}", hint=f"use one of {', '.join(FAMILIES)}")
    while True:
        terms = (_number(2, random), *(random.choice((1, -1)) * _number(2, random) for _ in range(level)))
        if _level(family, terms):
            return Question(family, level, terms)


def _number(digits: int, random: Random) -> int:
    return random.randint(2 if digits == 1 else 10 ** (digits - 1), 10**digits - 1)


def questions(split: Split, *, seed: int = 0, families: tuple[str, ...] = FAMILIES) -> Iterator[Question]:
    """Yield distinct problems of a split, with families and levels in turn; the same seed gives the same problems.

    A family and level without new problems is skipped. The iterator ends when there are no new problems at all.
    """
    random = Random(f"{split}/{seed}")
    earlier: set[str] = set()
    cells = [(family, level) for level in LEVELS for family in families]
    while cells:
        for cell in list(cells):
            for _ in range(2000):
                question = draw(*cell, random)
                if question.text not in earlier and split_of(question) == split:
                    earlier.add(question.text)
                    yield question
                    break
            else:
                cells.remove(cell)
