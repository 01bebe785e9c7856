"""No value in a record, whatever its type, leads to an error that is not our own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from justenough.importing import ImportOptions
from justenough.importing.servers import SERVERS
from justenough.trace import Json
from tests.unit.importing.samples import chunks, inspect_log, loaded, model_event, sample
from tests.unit.importing.test_formats import CONTENTS

ODD: tuple[Json, ...] = (None, True, -1, 0.5, float("nan"), "", "{", [], {}, [[None]], {"a": [{}]}, 10**30, "\ud800")


def mutated(value: Json) -> Iterator[Json]:
    """The value with one of its parts replaced by an odd one."""
    yield from ODD
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        for other in mutated(part):
            copy = value.copy()  # type: ignore[union-attr]
            copy[key] = other  # type: ignore[index]
            yield copy


def content_of(values: Iterable[Json]) -> bytes:
    return "\n".join(map(json.dumps, values)).encode()


@pytest.mark.parametrize("format", [name for name in CONTENTS if name not in ("records", "inspect")])
def test_each_odd_value_is_a_trace_or_a_bad_line(tmp_path: Path, format: str) -> None:
    content = CONTENTS[format]
    value: Json = json.loads(content) if isinstance(content, bytes) else content
    values = list(mutated(value[0] if isinstance(value, list) else value))
    options = ImportOptions(model="all", split="paragraph" if format in (*SERVERS, "log") else None)
    _, bad = loaded(tmp_path / "in", format, content_of(values), options)
    assert bad
    assert all(1 <= line.line <= len(values) and line.reason for line in bad)


def test_odd_values_in_a_sample_of_inspect(tmp_path: Path) -> None:
    _, bad = loaded(tmp_path / "in", "inspect", inspect_log(*mutated(sample(1, model_event("5")))))
    assert bad


def test_odd_values_in_chunks(tmp_path: Path) -> None:
    values = [value for piece in chunks() for value in mutated(piece)]
    _, bad = loaded(tmp_path / "in", "openai", content_of(values), ImportOptions(model="all"))
    assert bad
