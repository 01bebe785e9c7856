"""`justenough demo`: where it writes, and what it shows; the demo itself has an end-to-end test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from justenough.toy import demo as toy
from tests.unit.cli.invoke import run


@dataclass
class Asked:
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
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    seen = Asked()

    async def run_demo(out: Path, *, sizes: toy.Sizes, progress: Callable[[str], Any], command: str) -> Result:
        seen.out, seen.sizes, seen.command = out, sizes, command
        progress("demo").update(done=1, total=1, steps=0, tokens=0)
        return Result()

    monkeypatch.setattr(toy, "run_demo", run_demo)
    monkeypatch.setattr("justenough.cli.demo.demo_text", lambda demo: "the results")
    return seen


def test_results_go_to_stdout_and_the_files_are_named_on_stderr(asked: Asked, tmp_path: Path) -> None:
    shown = run("demo", "--out", tmp_path)
    assert (shown.code, shown.out) == (0, "the results\n")
    assert asked.out == tmp_path
    assert asked.sizes == toy.Sizes()
    assert asked.command == f"justenough demo --out {tmp_path}"
    assert f"report: {tmp_path}/report.html; figures: {tmp_path}/summary.json; " in shown.err
    assert "demo: 1/1 problems" in shown.err


def test_a_quick_demo_has_its_own_folder_and_sizes(asked: Asked, tmp_path: Path) -> None:
    shown = run("demo", "--quick", "--out", tmp_path, "--json")
    assert shown.json == {"problems": 1}
    assert asked.out == tmp_path / "quick"
    assert asked.sizes == toy.QUICK
    assert asked.command.endswith(" --quick")
