"""JSON values, and how they become typed values: an error names the key, the value and what is expected."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from justenough.errors import InputError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
T = TypeVar("T")

MOST_DEPTH: Final = 100
"""Lists and objects inside each other; more than that would exhaust the stack of Python."""

_PLACE: Final = re.compile(r"\.(\w+)|\[(\d+)\]")
_EXPECTED: Final = re.compile(r"Expected `([^`]+)`(?: (>=|<=) (\S+))?")
_WORDS: Final = {
    "int": "a whole number",
    "float": "a finite number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
_BOUNDS: Final = {">=": "at least", "<=": "at most"}


def read_as(value: object, kind: type[T], *, where: str, hint: str = "") -> T:
    """Convert a JSON value or the rows of a database to a type that msgspec knows.

    Raises `InputError` that begins with `where`.
    """
    try:
        return msgspec.convert(value, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise InputError(_sentence(str(error), value, where), hint=hint) from error


def shown(value: object) -> str:
    """The value for an error message, at most 80 characters."""
    try:
        text = repr(value)
    except RecursionError:
        return "nested too deeply"
    return text if len(text) <= 80 else f"{text[:77]}…"


def is_shallow(value: Json, *, depth: int = MOST_DEPTH) -> bool:
    """Whether a value has at most `depth` lists and objects inside each other."""
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(is_shallow(item, depth=depth - 1) for item in inner)


def _sentence(message: str, value: object, where: str) -> str:
    """Our words for an error of msgspec, which gives the place and the expected type, but not the value."""
    reason, _, path = message.partition(" - at `$")
    for name, place in _PLACE.findall(path.partition("[...]")[0]):
        where += f".{name}" if name else f"[{place}]"
        if isinstance(value, dict):
            value = value[name]
        elif isinstance(value, list | tuple):
            value = value[int(place)]
    if reason.startswith("Object missing required field"):
        return f"{where}.{reason.split('`')[1]} is missing"
    expected = "a finite number"
    if match := _EXPECTED.match(reason):
        expected = " or ".join(_WORDS.get(name, name) for name in match[1].split(" | "))
        expected += f", {_BOUNDS[match[2]]} {match[3]}" if match[2] else ""
    return f"{where} is {shown(value)}, expected {expected}"
