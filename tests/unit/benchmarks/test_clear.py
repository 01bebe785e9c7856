"""CLEAR on real models: the published rows come from the committed traces."""

from __future__ import annotations

import pytest

from benchmarks.timing import RESULTS
from justenough.budget import Recorded, sweep
from justenough.stats.text import points
from justenough.trace.files import TraceFile

PAGE = (RESULTS.parents[1] / "docs/explanation/systems.md").read_text()
ROWS = (
    ("smollm2-135m.capitals", 5_400),
    ("smollm2-135m.sums", 5_116),
    ("qwen2.5-coder-0.5b.word-problems", 44_000),
    ("qwen2.5-coder-0.5b.capitals", 3_390),
    ("qwen2.5-coder-1.5b.capitals", 2_094),
)


@pytest.mark.parametrize(("name", "total"), ROWS)
def test_a_published_row_comes_from_its_traces(name: str, total: int) -> None:
    recorded = Recorded.of(TraceFile(RESULTS / "real" / f"{name}.sequential.parquet"))
    comparison = sweep(recorded, policies=("uniform", "greedy", "clear"), totals=[total])
    rows = {row.policy: row for row in comparison.rows}
    clear, greedy = ((points(rows[policy].against_uniform), rows[policy].spent) for policy in ("clear", "greedy"))
    same = clear == greedy
    shown = [clear[0], f"{clear[1]:,.0f}", "the same" if same else f"{greedy[0]}, {greedy[1]:,.0f} spent"]
    row = f"| `{name}` ({len(recorded.ids)}), {total:,} | {' | '.join(shown)} |"
    assert row.replace(" to ", ", ") in PAGE


def test_every_row_of_the_page_is_checked() -> None:
    table = PAGE.split("| file (n), total |")[1].split("\n\n")[0]
    assert len(table.splitlines()) == len(ROWS) + 2
