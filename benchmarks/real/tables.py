"""Writes the tables of RESULTS.md from the Parquet files of `benchmarks/results/real`; `--check` compares them.

    python -m benchmarks.real.tables
    python -m benchmarks.real.tables --check

The table of all files stands between `<!-- files -->` and `<!-- /files -->`. The rules of one file stand between
`<!-- rules: FILE -->` and `<!-- /rules -->`. Every figure is what `diagnose` and `evaluate` print.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.real.leash import ROOT
from justenough.evaluation import evaluate
from justenough.evaluation.diagnosis import diagnose
from justenough.trace.files import read_traces

PAGE: Final = Path(__file__).with_name("RESULTS.md")
FILES: Final = ROOT / "benchmarks" / "results" / "real"
RULES: Final = {
    "all-steps": "all 4 steps",
    "always-one-step": "always step 1",
    "entropy-mean": "entropy mean",
    "entropy-info": "information-theoretic",
    "entropy-bayes": "Bayes-optimal",
    "entropy-universal": "universal",
    "entropy-risk": "`risk`",
    "entropy-net": "`net`",
    "answer-convergence:2": "answer convergence, 2",
    "deepconf": "deepconf",
    "oracle": "oracle",
}
_BLOCK: Final = re.compile(r"(<!-- (files|rules: (\S+)) -->\n).*?(<!-- /(?:files|rules) -->)", re.DOTALL)


def rewritten(page: str, files: Path = FILES) -> str:
    """The page with its tables computed from the files."""

    def table(block: re.Match[str]) -> str:
        name = block[3]
        lines = file_table(files) if name is None else rule_table(files / f"{name}.parquet")
        return block[1] + "".join(f"{line}\n" for line in lines) + block[4]

    return _BLOCK.sub(table, page)


def file_table(files: Path) -> list[str]:
    """One row for each file: what the models answer, and whether the signal is there."""
    lines = [
        "| file | n | right at step 1 | after all | d | AUROC | within groups | verdict |",
        "|---|---:|---:|---:|---|---|---|---|",
    ]
    for path in sorted(files.glob("*.parquet")):
        traces = read_traces(path).traces
        diagnosis: Mapping[str, Any] = diagnose(traces).to_json()
        last = sum(trace.steps[-1].is_correct for trace in traces) / len(traces)
        extended = any(len(trace.steps) > 1 for trace in traces)
        cells = [
            f"`{path.stem}`",
            f"{len(traces)}",
            percent(diagnosis["accuracy_first"]),
            percent(last) if extended else "–",
            number(diagnosis, "cohens_d", digits=2),
            number(diagnosis, "auroc", digits=3),
            number(diagnosis, "auroc_within_groups", digits=3),
            diagnosis["verdict"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def rule_table(path: Path) -> list[str]:
    """The rules of one file against all steps."""
    evaluation: Mapping[str, Any] = evaluate(read_traces(path).traces).to_json()
    lines = ["| rule | accuracy | change (points) | saving against all steps | harm |", "|---|---:|---|---:|---:|"]
    for name, label in RULES.items():
        row = evaluation["rules"].get(name)
        if row is None:
            continue
        points = f"{100 * row['accuracy_change']:+.1f}"
        if row["accuracy_change_ci"] is not None:
            low, high = row["accuracy_change_ci"]
            points += f" [{100 * low:+.1f}, {100 * high:+.1f}]"
        points = points.replace("-", "−")
        cells = [label, percent(row["accuracy"]), points, percent(row["saving"]), percent(row["harm"])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def percent(value: float | None) -> str:
    """A fraction as a percentage."""
    return "–" if value is None else f"{100 * value:.1f} %"


def number(row: Mapping[str, Any], key: str, *, digits: int) -> str:
    """A figure with its interval; a dash if it cannot be estimated."""
    if row[key] is None:
        return "–"
    limits = row.get(f"{key}_ci")
    shown = [row[key], *(limits or ())]
    # With three digits these are areas, and the zero before the point carries nothing.
    texts = [f"{value:.{digits}f}".replace("-", "−") for value in shown]
    texts = [text.removeprefix("0") if digits == 3 else text for text in texts]
    return texts[0] if limits is None else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def main() -> int:
    """Write the tables, or check whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a table is stale")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    fresh = rewritten(page)
    if not options.check:
        PAGE.write_text(fresh, encoding="utf-8")
    elif fresh != page:
        print("the tables of RESULTS.md are stale; run: python -m benchmarks.real.tables", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
