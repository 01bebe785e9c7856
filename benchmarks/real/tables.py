"""Writes tables of RESULTS.md and README.md and the cards of the models, from the files in `benchmarks/results/real`.

    python -m benchmarks.real.tables
    python -m benchmarks.real.tables --check

The table of all files stands between `<!-- files -->` and `<!-- /files -->`, the rules of one file between
`<!-- rules: FILE -->` and `<!-- /rules -->`, the main table, of all files in the paper's shape
(`MODEL.TASK.sequential`), between `<!-- real -->` and `<!-- /real -->`, and the live runs between `<!-- live -->` and
`<!-- /live -->`. `--check` compares and writes nothing. Every figure is what `diagnose`, `evaluate` and `make real`
print.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final

from benchmarks.real.cards import cards
from benchmarks.real.figures import (
    change,
    diagnosis_of,
    evaluation_of,
    fraction,
    live_of,
    number,
    outcome,
    points,
    traces_of,
)
from benchmarks.real.leash import ROOT
from justenough.files import write_text
from justenough.stats.text import percent

PAGE: Final = Path(__file__).with_name("RESULTS.md")
PAGES: Final = (PAGE, ROOT / "README.md")
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
_BLOCK: Final = re.compile(
    r"(<!-- (files|real|live|rules: (\S+)) -->\n).*?(<!-- /(?:files|real|live|rules) -->)", re.DOTALL
)


def rewritten(page: str, files: Path = FILES) -> str:
    """The page with its tables computed from the files."""

    def table(block: re.Match[str]) -> str:
        tables = {"files": file_table, "real": main_table, "live": live_table}
        lines = tables[block[2]](files) if block[2] in tables else rule_table(files / f"{block[3]}.parquet")
        return block[1] + "".join(f"{line}\n" for line in lines) + block[4]

    return _BLOCK.sub(table, page)


def file_table(files: Path) -> list[str]:
    """One row for each file: what the models answer, and whether the signal is there."""
    lines = [
        "| file | n | right at step 1 | after all | d | AUROC | within groups | verdict |",
        "|---|---:|---:|---:|---|---|---|---|",
    ]
    for path in sorted(files.glob("*.parquet")):
        traces, diagnosis = traces_of(path), diagnosis_of(path)
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


def main_table(files: Path) -> list[str]:
    """One row for each file in the paper's shape: is the signal there, and what do two ways to stop save and change?"""
    lines = [
        "| model, task (n) | right: step 1, all 4 | AUROC | verdict | entropy mean, 10 labels: saved; change | step 1"
        " always: saved; change |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(files.glob("*.sequential.parquet")):
        diagnosis, evaluation = diagnosis_of(path), evaluation_of(path)
        model, task = path.name.removesuffix(".sequential.parquet").rsplit(".", 1)
        cells = [
            f"{model}, {task} ({len(traces_of(path))})",
            f"{percent(evaluation['accuracy_first'])}, {percent(evaluation['accuracy_full'])}",
            number(diagnosis, "auroc", digits=3),
            diagnosis["verdict"],
            *(outcome(evaluation["rules"][rule]) for rule in ("entropy-mean", "always-one-step")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def live_table(files: Path) -> list[str]:
    """One row for each live run: the same problems by the server alone and through the gateway."""
    lines = [
        "| model, task, shape (n) | tokens, alone → gateway | saved | right | change, points | time saved |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted((files / "live").glob("*.live.jsonl")):
        live = live_of(path)
        if live is None:
            continue
        model, task, shape = path.name.removesuffix(".live.jsonl").rsplit(".", 2)
        cells = [
            f"{model}, {task}, {shape} ({live.problems})",
            f"{live.tokens_alone:,} → {live.tokens_gateway:,}",
            fraction(live.saving),
            f"{percent(live.accuracy_alone)} → {percent(live.accuracy_gateway)}",
            change(live.accuracy_change),
            fraction(live.time_saving),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def rule_table(path: Path) -> list[str]:
    """The rules of one file against all steps."""
    evaluation = evaluation_of(path)
    lines = ["| rule | accuracy | change (points) | saving against all steps | harm |", "|---|---:|---|---:|---:|"]
    for name, label in RULES.items():
        row = evaluation["rules"].get(name)
        if row is None:
            continue
        cells = [label, percent(row["accuracy"]), points(row), percent(row["saving"]), percent(row["harm"])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> int:
    """Write the tables and cards, or check whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a page is stale")
    options = parser.parse_args()
    fresh = {path: rewritten(path.read_text(encoding="utf-8")) for path in PAGES} | cards(FILES)
    stale = {path: page for path, page in fresh.items() if not path.is_file() or path.read_text("utf-8") != page}
    if options.check and stale:
        names = ", ".join(path.name for path in stale)
        print(f"{names}: stale; run: python -m benchmarks.real.tables", file=sys.stderr)
        return 1
    for path, page in stale.items():
        write_text(path, page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
