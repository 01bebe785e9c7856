"""What two answers to the same question must have in common: everything but a few members that are named."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

CHANGING: Final[Mapping[str, type]] = MappingProxyType({"id": str, "created": int, "timings": dict})
"""Whose an answer is, when it was given and how fast; a token's `id` is a number and stays."""


def steady(value: Any, changing: Mapping[str, type] = CHANGING) -> Any:
    """A JSON value without the members of these names and types, at any depth."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not isinstance(item, changing.get(key, ()))}
        return {key: steady(item, changing) for key, item in kept.items()}
    return [steady(item, changing) for item in value] if isinstance(value, list) else value
