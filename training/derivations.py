"""The thoughts that the embedded model learns: first a quick answer, then checks digit by digit.

A step is one paragraph that ends in `=RESULT`. The first step is quick. It gives the result directly, or by partial
results (`47*36=1410+282=1692`, `41+93-28=134-28=106`). Later steps work in columns. They use the operands in the given
order and swapped in turn, so a check does not repeat the one before.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from justenough.toy.families import Question


class Thought(NamedTuple):
    """One paragraph and its result."""

    text: str
    result: int


def quick(question: Question, *, result: int | None = None) -> Thought:
    """The first step: the answer after at most a few partial results. `result` replaces the right answer."""
    value = question.answer if result is None else result
    ways = "".join(f"={way}" for way in _partial(question))
    return Thought(f"{question.text}{ways}={value}", value)


def _partial(question: Question) -> list[str]:
    """Partial results of a quick first step."""
    operands = question.operands
    if question.family == "product" and question.level == 3:
        left, right = operands
        return [f"{left * (right // 10)}0+{left * (right % 10)}"]
    if question.family == "sum":
        splits = [(sum(operands[:count]), operands[count:]) for count in range(2, len(operands))]
        return [f"{total}" + "".join(f"{term:+d}" for term in rest) for total, rest in splits]
    return []


def check(question: Question, step: int, *, slip: Random | None = None) -> Thought:
    """A later step in columns. Every second check swaps the operands; `slip` makes one column wrong."""
    swapped = step % 2 == 1
    columns = _Columns(slip)
    if question.family == "product":
        left, right = question.operands[::-1] if swapped else question.operands
        body, result = columns.product(left, right)
        head = f"{left}*{right}"
    elif question.family == "remainder":
        body, result = columns.remainder(*question.operands, tens=swapped)
        head = question.text
    else:
        terms = _reordered(question.operands) if swapped else question.operands
        body, result = columns.chain(terms)
        head = Question("sum", question.level, terms).text
    return Thought(f"{head}:{body}={result}", result)


def _reordered(terms: tuple[int, ...]) -> tuple[int, ...]:
    """The same sum with its additions first and reversed, so no partial sum is below zero."""
    plus = [term for term in terms if term > 0]
    minus = [term for term in terms if term < 0]
    return (*plus[::-1], *minus[::-1])


class _Columns:
    """Column arithmetic as text. With a `Random`, one column of the whole derivation is wrong."""

    def __init__(self, slip: Random | None) -> None:
        self._slip = slip

    def _value(self, value: int) -> int:
        """The value of a column. An error occurs once, at a random column, and later columns use it."""
        if self._slip is not None and self._slip.random() < 0.25:
            wrong = abs(value + self._slip.choice((-10, -2, -1, 1, 2, 10)))
            self._slip = None
            return wrong
        return value

    def digit_times(self, digit: int, number: int) -> tuple[str, int]:
        """`6*7=42,6*4=24+4=28,282`: the product and the carry of each digit, then the result."""
        parts: list[str] = []
        carry, place, result = 0, 1, 0
        rest = number
        while rest:
            rest, low = divmod(rest, 10)
            product = self._value(digit * low)
            parts.append(f"{digit}*{low}={product}" + (f"+{carry}={product + carry}" if carry else ""))
            carry, out = divmod(product + carry, 10)
            result += out * place
            place *= 10
        result += carry * place
        return ",".join(parts), result

    def product(self, left: int, right: int) -> tuple[str, int]:
        """The left factor times each digit of the right one, units first; then the sum of the two partial products."""
        if left < 10:
            return self.digit_times(left, right)
        if right < 10:
            return self.digit_times(right, left)
        low_text, low = self.digit_times(right % 10, left)
        high_text, high = self.digit_times(right // 10, left)
        sum_text, result = self.add(low, high * 10)
        return f"{low_text},{low};{high_text},{high}0;{sum_text}", result

    def add(self, left: int, right: int) -> tuple[str, int]:
        """`7+6=13,4+9+1=14,1`: columns from the right, with the carry as a third addend."""
        parts: list[str] = []
        carry, place, result = 0, 1, 0
        while left or right:
            left, x = divmod(left, 10)
            right, y = divmod(right, 10)
            total = self._value(x + y + carry)
            parts.append(f"{x}+{y}" + ("+1" if carry else "") + f"={total}")
            carry = min(total // 10, 1)
            result += total % 10 * place
            place *= 10
        return ",".join(parts), result + carry * place

    def subtract(self, left: int, right: int) -> tuple[str, int]:
        """`13-8=5,3-1-1=1`: columns from the right; they borrow ten if needed, and subtract the borrow."""
        parts: list[str] = []
        borrow, place, result = 0, 1, 0
        while left or right:
            left, x = divmod(left, 10)
            right, y = divmod(right, 10)
            lent = x - y - borrow < 0
            difference = self._value(x + 10 * lent - y - borrow) % 10
            parts.append(f"{x + 10 * lent}-{y}" + ("-1" if borrow else "") + f"={difference}")
            result += difference * place
            borrow = int(lent)
            place *= 10
        return ",".join(parts), result

    def chain(self, terms: tuple[int, ...]) -> tuple[str, int]:
        """One addition or subtraction after the other, with the running total between them."""
        parts: list[str] = []
        total = terms[0]
        for index, term in enumerate(terms[1:]):
            text, total = self.add(total, term) if term > 0 else self.subtract(max(total, -term), -term)
            parts.append(text if index == len(terms) - 2 else f"{text},{total}")
        return ";".join(parts), total

    def remainder(self, number: int, divisor: int, *, tens: bool) -> tuple[str, int]:
        """Long division: `7*4=28,34-28=6;7*9=63,67-63=4`; with `tens` the subtracted parts keep their zeros."""
        parts: list[str] = []
        if tens:
            rest = number
            for place in (1000, 100, 10, 1):
                if rest >= divisor * place:
                    part = divisor * (rest // (divisor * place)) * place
                    after = self._value(rest - part)
                    parts.append(f"{divisor}*{rest // (divisor * place) * place}={part},{rest}-{part}={after}")
                    rest = after
            return ";".join(parts) or f"{number}", rest % divisor
        rest = 0
        for digit in str(number):
            current = rest * 10 + int(digit)
            if current >= divisor:
                part = divisor * (current // divisor)
                rest = self._value(current - part)
                parts.append(f"{divisor}*{current // divisor}={part},{current}-{part}={rest}")
            else:
                rest = current
        return ";".join(parts) or f"{number}", rest % divisor
