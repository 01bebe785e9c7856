"""The demo's second process: its failures become the right errors."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from justenough.errors import InputError, Interrupted
from justenough.toy.demo import collect_in_process


def test_an_input_error_is_not_an_interruption(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no embedded model 'nosuch'"):
        asyncio.run(collect_in_process("embedded:nosuch", "arithmetic", 2, tmp_path / "traces.parquet", steps=1))
    assert not (tmp_path / "traces.parquet").exists()


def program(folder: Path, lines: str) -> str:
    """A program that stands for `python -m justenough collect …`."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{lines}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("echo progress >&2; echo 'the model is gone' >&2; exit 3", "exit code 3: the model is gone"),
        ("exit 1", "exit code 1: no message"),
        ("kill -9 $$", "exit code -9: no message"),
    ],
)
def test_another_failure_is_an_interruption_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, message: str
) -> None:
    monkeypatch.setattr("sys.executable", program(tmp_path, lines))
    with pytest.raises(Interrupted, match=message) as error:
        asyncio.run(collect_in_process("embedded", "arithmetic", 2, tmp_path / "traces.parquet", steps=1))
    assert "run the same command again" in str(error.value)


def test_the_process_gets_the_arguments_of_collect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", program(tmp_path, f"echo $* > {tmp_path}/arguments"))
    asyncio.run(collect_in_process("embedded:repaired", "sum", 5, tmp_path / "t.parquet", steps=3))
    assert (tmp_path / "arguments").read_text().split() == [
        *("-m", "justenough", "collect", "--model", "embedded:repaired", "--tasks", "sum"),
        *("--limit", "5", "--steps", "3", "--out", f"{tmp_path}/t.parquet"),
    ]


def test_a_cancelled_demo_ends_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", program(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60"))

    async def run() -> int:
        task = asyncio.create_task(collect_in_process("embedded", "sum", 5, tmp_path / "t.parquet", steps=3))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return int((tmp_path / "pid").read_text())

    pid = asyncio.run(asyncio.wait_for(run(), 20))
    assert not Path(f"/proc/{pid}").exists()
