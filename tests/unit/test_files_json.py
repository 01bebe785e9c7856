"""JSON values as typed values: errors name the place, the value and what is expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
from msgspec import Meta

from justenough.errors import InputError
from justenough.files import Json, is_shallow, read_as, shown


@dataclass(frozen=True, kw_only=True)
class Point:
    name: str
    places: tuple[Annotated[int, Meta(ge=0, le=9)], ...] = ()
    inner: Point | None = None
    weight: float | None = None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (7, "point is 7, expected an object"),
        ({}, "point.name is missing"),
        ({"name": 7}, "point.name is 7, expected text"),
        ({"name": "a", "places": "b"}, "point.places is 'b', expected a list"),
        ({"name": "a", "places": [1, True]}, "point.places[1] is True, expected a whole number"),
        ({"name": "a", "places": [1, -1]}, "point.places[1] is -1, expected a whole number, at least 0"),
        ({"name": "a", "places": [10]}, "point.places[0] is 10, expected a whole number, at most 9"),
        ({"name": "a", "inner": {"name": None}}, "point.inner.name is None, expected text"),
        ({"name": "a", "weight": "b"}, "point.weight is 'b', expected a finite number or null"),
        ({"name": "a", "weight": 10**400}, f"point.weight is 1{'0' * 76}…, expected a finite number"),
    ],
)
def test_an_error_names_the_place_the_value_and_what_is_expected(value: Json, sentence: str) -> None:
    with pytest.raises(InputError) as error:
        read_as(value, Point, where="point", hint="see the docs")
    assert str(error.value) == f"{sentence} (see the docs)"


def test_a_valid_value_is_converted() -> None:
    assert read_as({"name": "a", "places": [1]}, Point, where="point") == Point(name="a", places=(1,))


def test_deep_values_are_neither_shallow_nor_shown() -> None:
    deep: Json = []
    for _ in range(100_000):
        deep = [deep]
    assert not is_shallow(deep)
    assert shown(deep) == "nested too deeply"
    assert is_shallow([{"a": [1, "b", None]}])
