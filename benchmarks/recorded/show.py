"""Figures and tables as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from benchmarks import timing
from justenough.stats import text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    print(text.table(head, rows))


def write_parts(name: str, parts: Mapping[str, object]) -> None:
    """Write a result as JSON with one part on each line, because the tables of all pairs of models are large."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in parts.items()]
    timing.RESULTS.mkdir(exist_ok=True)
    (timing.RESULTS / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
