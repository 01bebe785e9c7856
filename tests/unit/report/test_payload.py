"""The data for the script of the page."""

from __future__ import annotations

from typing import cast

import pytest

from justenough.report import payload
from justenough.trace import Json
from tests.reports import Case, contents_of


def test_what_has_no_room_is_left_out(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    found = contents_of(case)
    monkeypatch.setattr(payload, "ROOM", 3000)
    monkeypatch.setattr(payload, "PROBLEMS", 30)
    rows = cast("list[dict[str, Json]]", payload.problems(found))
    assert len(rows) == 30
    assert rows[0]["steps"] is not None
    assert rows[-1]["steps"] is None
