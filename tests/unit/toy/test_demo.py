"""The demo's second process: what it says of a failure is what the failure was."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.toy.demo import collect_in_process


def test_what_cannot_be_used_is_no_interruption(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no embedded model 'nosuch'"):
        asyncio.run(collect_in_process("embedded:nosuch", "arithmetic", 2, tmp_path / "traces.parquet", steps=1))
    assert not (tmp_path / "traces.parquet").exists()
