"""docs/notebook.ipynb runs from top to bottom, has no stored output, and its links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]


def test_it_runs_from_top_to_bottom(capsys: pytest.CaptureFixture[str]) -> None:
    """As in Jupyter: one namespace and one event loop for all cells, and `await` outside of a function."""
    names: dict[str, object] = {"__name__": "__main__"}

    async def run() -> None:
        for number, cell in enumerate(CELLS):
            if cell["cell_type"] == "code":
                code = compile("".join(cell["source"]), f"cell {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                waiting = eval(code, names)
                if waiting is not None:
                    await waiting

    asyncio.run(run())
    shown = capsys.readouterr().out
    assert "40 and 40 problems" in shown
    assert re.search(r"stop at or below 0\.\d+ bits", shown)
    saving = re.search(r"entropy-mean +right \d+%, saving +(\d+\.\d)%", shown)
    assert saving is not None
    assert 10 < float(saving[1]) < 90
    assert shown.rstrip().endswith("stop")


def test_it_stores_no_output() -> None:
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)


def test_its_links_lead_to_files() -> None:
    text = "".join("".join(cell["source"]) for cell in CELLS)
    assert [link for link in re.findall(r"\]\(([^)#]+)", text) if not (NOTEBOOK.parent / link).exists()] == []
