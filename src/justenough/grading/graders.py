"""Graders by name: they tell whether an answer is right."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Final, Protocol

from justenough.errors import InputError
from justenough.signal.answers import after_thought, extract_answer

# Exponents of four digits and more are not answers, and such numbers would fill the memory.
_LARGE: Final = 10**1000
_NUMBER: Final = re.compile(r"[-+]?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?(?:\s*/\s*\d+)?%?")
_SPACED: Final = re.compile(r"(?<=[\d,])\\[!,;:](?=\d)")
_INTEGER: Final = re.compile(r"[-+]?\d[\d,]*")
_CHOICE: Final = re.compile(r"\(?\b([A-Z])\b\)?")


class Grader(Protocol):
    """Extracts an answer from model output, and tells whether an answer is right."""

    def extract(self, text: str) -> str | None:
        """The answer in canonical form, by default the stated answer as text; None: unanswered."""
        return extract_answer(text)

    def grade(self, answer: str, target: str) -> bool:
        """Whether an extracted answer is right."""

    def close(self) -> None:
        """Free all resources; most graders have none."""
        return


class Exact(Grader):
    """Whole numbers and other numbers, compared by value; other targets as text without case and white space."""

    def extract(self, text: str) -> str | None:
        """The last number of the answer if it has one, else its text."""
        answer = extract_answer(text) or ""
        numbers = _numbers(answer)
        return (_canonical_number(numbers[-1]) if numbers else _folded(answer)) or None

    def grade(self, answer: str, target: str) -> bool:
        """Equal as numbers if the whole target is a number, else equal as text."""
        expected = _plain(target.strip())
        if not _NUMBER.fullmatch(expected):
            return answer == _folded(expected)
        value = _value(answer)
        return answer == _canonical_number(expected) or (value is not None and value == _value(expected))


def _numbers(text: str) -> list[str]:
    return _NUMBER.findall(_plain(text))


def _plain(text: str) -> str:
    """The text without the marks that LaTeX puts into numbers: spaces (`8,\\!000`), braces, `\\$`, a long minus."""
    return _SPACED.sub("", text).replace("{,}", ",").replace("\\$", "$").replace("−", "-")


def _canonical_number(number: str) -> str:
    """A whole number without marks and leading zeros; any other number as its text: 2.5 is not 5."""
    plain = number.replace("$", "").removesuffix("%")
    if not _INTEGER.fullmatch(plain):
        value = _value(plain)
        whole = value is not None and value.denominator == 1 and abs(value) < _LARGE
        return str(value) if whole else _folded(number)
    sign, digits = ("-", plain[1:]) if plain.startswith("-") else ("", plain.removeprefix("+"))
    # Without int(), which refuses thousands of digits; a model that repeats itself writes them.
    digits = digits.replace(",", "").lstrip("0")
    return sign + digits if digits else "0"


def _folded(text: str) -> str:
    return "".join(text.split()).casefold()


class Number(Grader):
    """Decimal numbers, fractions and percentages, equal to one part in a million."""

    def extract(self, text: str) -> str | None:
        """The last number of the answer."""
        numbers = _numbers(extract_answer(text) or "")
        return numbers[-1].strip() if numbers else None

    def grade(self, answer: str, target: str) -> bool:
        """Equal within one part in a million."""
        left, right = _value(answer), _value(target)
        return left is not None and right is not None and abs(left - right) <= abs(right) / 1_000_000


def _value(text: str) -> Fraction | None:
    """The value of the last number in a text."""
    numbers = _numbers(text)
    if not numbers:
        return None
    plain = numbers[-1].replace(",", "").replace("$", "").replace(" ", "")
    try:
        value = Fraction(plain.removesuffix("%"))
    except (ValueError, ZeroDivisionError):
        return None
    return value / 100 if plain.endswith("%") else value


class Choice(Grader):
    """The letter of a multiple-choice answer."""

    def extract(self, text: str) -> str | None:
        """The last capital letter that stands alone in the answer."""
        letters = _CHOICE.findall(extract_answer(text) or "")
        return letters[-1] if letters else None

    def grade(self, answer: str, target: str) -> bool:
        """Equal letters."""
        return answer == target.strip().strip("()").upper()


class JsonAnswer(Grader):
    """JSON values; white space and the order of keys do not matter."""

    def extract(self, text: str) -> str | None:
        """The first JSON value after the thought, in canonical form."""
        rest = after_thought(text)
        for match in re.finditer(r"[\[{]", rest):
            try:
                value, _ = json.JSONDecoder().raw_decode(rest, match.start())
            except (ValueError, RecursionError):
                continue
            return _canonical(value)
        return None

    def grade(self, answer: str, target: str) -> bool:
        """Equal values."""
        try:
            return answer == _canonical(json.loads(target))
        except ValueError as error:
            raise InputError(f"the target {target!r} is not JSON: {error}", hint="correct the task file") from error


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Custom(Grader):
    """A function `(answer, target) -> bool` of the user."""

    def __init__(self, function: Callable[[str, str], bool]) -> None:
        self._function = function

    def grade(self, answer: str, target: str) -> bool:
        """The result of the function."""
        return bool(self._function(answer, target))


def open_grader(spec: str = "exact") -> Grader:
    """`exact`, `number`, `choice`, `math` (extra `math`), `json`, or `module:function`."""
    if spec == "math":
        from justenough.grading.mathematics import MathGrader

        return MathGrader()
    plain: dict[str, type[Grader]] = {"exact": Exact, "number": Number, "choice": Choice, "json": JsonAnswer}
    if spec in plain:
        return plain[spec]()
    module, colon, name = spec.partition(":")
    if not colon:
        raise InputError(f"unknown grader {spec!r}", hint="exact, number, choice, math, json, or module:function")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"cannot load the grader {spec}: {error}", hint="module:function, importable from here"
        ) from error
    if not callable(function):
        raise InputError(f"{spec} is not a function", hint="def grade(answer: str, target: str) -> bool")
    return Custom(function)
