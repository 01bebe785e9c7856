"""What a budget counts."""

from __future__ import annotations

from typing import Final, Literal

Unit = Literal["tokens", "calls", "cost"]

UNITS: Final[tuple[Unit, ...]] = ("tokens", "calls", "cost")
