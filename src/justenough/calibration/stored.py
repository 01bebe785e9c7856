"""Reads the fields of a calibration file; errors name the key."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from typing import Final, Literal, TypedDict, TypeVar, get_args, get_origin, get_type_hints

from justenough.errors import InputError
from justenough.files import read_as, shown
from justenough.prompts import Prompts, prompts_from_json
from justenough.signal.signal import Signal
from justenough.stats import Estimate
from justenough.trace import Json, signal_from_json

T = TypeVar("T")
REMEDY: Final = "make it anew: justenough calibrate"


class _Estimate(TypedDict):
    value: float
    low: float | None
    high: float | None
    n: int


def fields_from_json(value: Json, kind: type) -> dict[str, object]:
    """The fields of the calibration class `kind`; old files do not have the keys of optional fields.

    Raises `InputError`.
    """
    if not isinstance(value, dict) or not {"threshold", "signal"} <= value.keys():
        raise InputError("this is no calibration")
    hints = get_type_hints(kind)
    if missing := [one.name for one in fields(kind) if one.default is MISSING and one.name not in value]:
        raise InputError(f"{', '.join(sorted(missing))}: missing")
    return {one.name: _field(value[one.name], hints[one.name], one.name) for one in fields(kind) if one.name in value}


def _field(value: Json, kind: type, name: str) -> object:
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise InputError(f"{name} is {shown(value)}, expected one of {', '.join(get_args(kind))}")
        return value
    kinds = get_args(kind)
    if kind is Signal:
        if not isinstance(value, dict):
            raise InputError(f"{name} is {shown(value)}, expected an object")
        return signal_from_json(value)
    if value is not None and Prompts in kinds:
        return prompts_from_json(value, where=name)
    if value is not None and Estimate in kinds:
        return Estimate(**_finite(read_as(value, _Estimate, where=name), name))
    return _finite(read_as(value, kind, where=name), name)


def _finite(read: T, name: str) -> T:
    for place, one in read.items() if isinstance(read, dict) else [(None, read)]:
        if isinstance(one, float) and not math.isfinite(one):
            raise InputError(f"{name if place is None else f'{name}.{place}'} is {one!r}, expected a finite number")
    return read
