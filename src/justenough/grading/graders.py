"""Right or wrong: graders by name, behind one protocol."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Final, Protocol

from justenough.errors import InputError
from justenough.signal.answers import after_thought, extract_answer

# Exponents of four digits and more are no answers, and their numbers would fill the memory.
_LARGE: Final = 10**1000
_NUMBER: Final = re.compile(r"[-+]?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?(?:\s*/\s*\d+)?%?")
_SPACED: Final = re.compile(r"(?<=[\d,])\\[!,;:](?=\d)")
_INTEGER: Final = re.compile(r"[-+]?\d[\d,]*")
_CHOICE: Final = re.compile(r"\(?\b([A-Z])\b\)?")


class Grader(Protocol):
    """From model output to an answer, and from an answer to right or wrong."""

    def extract(self, text: str) -> str | None:
        """The answer in canonical form; None: unanswered."""

    def grade(self, answer: str, target: str) -> bool:
        """Whether an extracted answer is right."""

    def close(self) -> None:
        """Free what is held."""


class _Plain:
    def close(self) -> None:
        """Nothing is held."""


class Exact(_Plain):
    """Whole numbers, compared as numbers; other targets as text without case and white space."""

    def extract(self, text: str) -> str | None:
        """The whole number where the answer has one, else its text."""
        answer = extract_answer(text)
        if answer is None:
            return None
        found = _numbers(answer)
        return (_integer(found[-1]) if found else _folded(answer)) or None

    def grade(self, answer: str, target: str) -> bool:
        """Equal as whole numbers, or as text."""
        wanted = _plain(target.strip())
        return answer == (_integer(wanted) if _INTEGER.fullmatch(wanted) else _folded(wanted))


def _numbers(text: str) -> list[str]:
    return _NUMBER.findall(_plain(text))


def _plain(text: str) -> str:
    """The text without the marks that LaTeX puts into numbers: spaces (`8,\\!000`), braces, `\\$`, a long minus."""
    return _SPACED.sub("", text).replace("{,}", ",").replace("\\$", "$").replace("−", "-")


def _integer(number: str) -> str:
    """A whole number in canonical form; one with a fraction as its text, so that 2.5 is not taken for 5."""
    plain = number.replace("$", "").removesuffix("%")
    if not _INTEGER.fullmatch(plain):
        value = _fraction(plain)
        if value is None or value.denominator != 1 or abs(value) >= _LARGE:
            return _folded(number)
        return str(value)
    sign, digits = ("-", plain[1:]) if plain.startswith("-") else ("", plain.removeprefix("+"))
    # Not by int(), which refuses thousands of digits, and a model that repeats itself writes them.
    digits = digits.replace(",", "").lstrip("0")
    return sign + digits if digits else "0"


def _folded(text: str) -> str:
    return "".join(text.split()).casefold()


class Number(_Plain):
    """Decimal numbers, fractions and percentages, equal to one part in a million."""

    def extract(self, text: str) -> str | None:
        """The last number of the answer."""
        answer = extract_answer(text)
        found = _numbers(answer) if answer is not None else []
        return found[-1].strip() if found else None

    def grade(self, answer: str, target: str) -> bool:
        """Equal within one part in a million."""
        left, right = _fraction(answer), _fraction(target)
        return left is not None and right is not None and abs(left - right) <= abs(right) / 1_000_000


def _fraction(text: str) -> Fraction | None:
    found = _numbers(text)
    if not found:
        return None
    plain = found[-1].replace(",", "").replace("$", "").replace(" ", "")
    try:
        value = Fraction(plain.removesuffix("%"))
    except (ValueError, ZeroDivisionError):
        return None
    return value / 100 if plain.endswith("%") else value


class Choice(_Plain):
    """The letter of a multiple-choice answer."""

    def extract(self, text: str) -> str | None:
        """The last capital letter that stands alone in the answer."""
        answer = extract_answer(text)
        found = _CHOICE.findall(answer) if answer is not None else []
        return found[-1] if found else None

    def grade(self, answer: str, target: str) -> bool:
        """Equal letters."""
        return answer == target.strip().strip("()").upper()


class JsonAnswer(_Plain):
    """JSON values, equal whatever their white space and order of keys."""

    def extract(self, text: str) -> str | None:
        """The first JSON value in what was said after the thought, in canonical form."""
        said = after_thought(text)
        for match in re.finditer(r"[\[{]", said):
            try:
                value, _ = json.JSONDecoder().raw_decode(said, match.start())
            except (ValueError, RecursionError):
                continue
            return _canonical(value)
        return None

    def grade(self, answer: str, target: str) -> bool:
        """Equal values."""
        try:
            return answer == _canonical(json.loads(target))
        except ValueError as error:
            raise InputError(f"the target {target!r} is no JSON: {error}", hint="mend the task file") from error


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


class Custom(_Plain):
    """A function `(answer, target) -> bool` of the user's own."""

    def __init__(self, function: Callable[[str, str], bool]) -> None:
        self._function = function

    def extract(self, text: str) -> str | None:
        """The stated answer as text."""
        return extract_answer(text)

    def grade(self, answer: str, target: str) -> bool:
        """What the function says."""
        return bool(self._function(answer, target))


def open_grader(spec: str = "exact") -> Grader:
    """`exact`, `number`, `choice`, `math` (extra `math`), `json`, or `module:function`."""
    plain: dict[str, Callable[[], Grader]] = {"exact": Exact, "number": Number, "choice": Choice, "json": JsonAnswer}
    if spec in plain:
        return plain[spec]()
    if spec == "math":
        from justenough.grading.mathematics import MathGrader

        return MathGrader()
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
        raise InputError(f"{spec} is no function", hint="def grade(answer: str, target: str) -> bool")
    return Custom(function)
