"""`justenough demo`: its files and its output; the demo itself has an end-to-end test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from justenough.toy import demo as toy
from tests.unit.cli.invoke import run


@dataclass
class Call:
    """The arguments of `run_demo`."""

    out: Path | None = None
    sizes: toy.Sizes | None = None
    command: str = ""


class Result:
    """The result of a demo, as JSON."""

    def to_json(self) -> dict[str, object]:
        """A JSON object."""
        return {"problems": 1}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    call = Call()

    async def run_demo(out: Path, *, sizes: toy.Sizes, progress: Callable[[str], Any], command: str) -> Result:
        call.out, call.sizes, call.command = out, sizes, command
        progress("demo").update(done=1, total=1, steps=0, tokens=0)
        return Result()

    monkeypatch.setattr(toy, "run_demo", run_demo)
    monkeypatch.setattr("justenough.cli.demo.demo_text", lambda demo: "the results")
    return call


def test_results_go_to_stdout_and_the_files_are_named_on_stderr(call: Call, tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path)
    assert (result.code, result.out) == (0, "the results\n")
    assert call.out == tmp_path
    assert call.sizes == toy.Sizes()
    assert call.command == f"justenough demo --out {tmp_path}"
    assert f"report: {tmp_path}/report.html; figures: {tmp_path}/summary.json; " in result.err
    assert "demo: 1/1 problems" in result.err


def test_a_quick_demo_has_its_own_folder_and_sizes(call: Call, tmp_path: Path) -> None:
    result = run("demo", "--quick", "--out", tmp_path, "--json")
    assert result.json == {"problems": 1}
    assert call.out == tmp_path / "quick"
    assert call.sizes == toy.QUICK
    assert call.command.endswith(" --quick")


def test_a_folder_that_cannot_be_made_is_one_line() -> None:
    result = run("demo", "--quick", "--out", "/proc/demo")
    assert result.code == 2
    assert result.error.startswith("justenough demo: cannot write /proc/demo/quick: ")
