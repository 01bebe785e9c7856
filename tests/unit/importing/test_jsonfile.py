"""Values of files, plain and gzipped, one or many."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from justenough.trace import Json
from tests.unit.importing.samples import (
    chat,
    lines,
    loaded,
)


@pytest.mark.parametrize("form", ["array", "pretty array", "lines", "pretty", "gzip lines"])
def test_every_way_that_responses_lie_in_files(tmp_path: Path, form: str) -> None:
    values: list[Json] = [chat(identity="a"), chat(identity="b")]
    content = {
        "array": json.dumps(values).encode(),
        "pretty array": json.dumps(values, indent=1).encode(),
        "lines": lines(*values, ""),
        "pretty": json.dumps(values[0], indent=1).encode(),
        "gzip lines": gzip.compress(lines("", *values)),
    }[form]
    found = loaded(tmp_path / "in", "openai", content)
    assert [trace.id for trace in found.traces] == ["a", "b"][: 1 if form == "pretty" else 2]
    assert found.bad == []
