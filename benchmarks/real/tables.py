"""Writes the tables of RESULTS.md and README.md from the files in `benchmarks/results/real`; `--check` compares them.

    python -m benchmarks.real.tables
    python -m benchmarks.real.tables --check

The table of all files stands between `<!-- files -->` and `<!-- /files -->`, the rules of one file between
`<!-- rules: FILE -->` and `<!-- /rules -->`, the main table, of all files in the paper's shape
(`MODEL.TASK.sequential`), between `<!-- real -->` and `<!-- /real -->`, and the live runs between `<!-- live -->` and
`<!-- /live -->`. Every figure is what `diagnose`, `evaluate` and `make real` print.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.real.leash import ROOT
from benchmarks.real.live import Row, compare
from justenough.evaluation import evaluate
from justenough.evaluation.diagnosis import diagnose
from justenough.stats import Estimate
from justenough.stats.text import percent
from justenough.trace.files import read_traces

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


def main_table(files: Path) -> list[str]:
    """One row for each file in the paper's shape: is the signal there, and what do two ways to stop save and change?"""
    lines = [
        "| model, task (n) | right: step 1, all 4 | AUROC | verdict | entropy mean, 10 labels: saved; change | step 1"
        " always: saved; change |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted(files.glob("*.sequential.parquet")):
        traces = read_traces(path).traces
        diagnosis: Mapping[str, Any] = diagnose(traces).to_json()
        evaluation: Mapping[str, Any] = evaluate(traces).to_json()
        model, task = path.name.removesuffix(".sequential.parquet").rsplit(".", 1)
        cells = [
            f"{model}, {task} ({len(traces)})",
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
        rows = [msgspec.json.decode(line, type=Row) for line in path.read_bytes().splitlines()[1:]]
        done = {(row.way, row.id): row for row in rows}
        ids = [row.id for row in rows if row.way == "alone" and ("gateway", row.id) in done]
        if not ids:
            continue
        live = compare([(done["alone", id], done["gateway", id]) for id in ids])
        model, task, shape = path.name.removesuffix(".live.jsonl").rsplit(".", 2)
        cells = [
            f"{model}, {task}, {shape} ({live.problems})",
            f"{live.tokens_alone:,} → {live.tokens_gateway:,}",
            _fraction(live.saving),
            f"{percent(live.accuracy_alone)} → {percent(live.accuracy_gateway)}",
            _points(live.accuracy_change),
            _fraction(live.time_saving),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _fraction(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return "–"
    text = f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
    return text.replace("-", "−")


def _points(estimate: Estimate) -> str:
    limits = None if estimate.interval is None else list(estimate.interval)
    return points({"accuracy_change": estimate.value, "accuracy_change_ci": limits})


def outcome(row: Mapping[str, Any]) -> str:
    """What a rule saves, in percent, and how it changes the accuracy, in points."""
    low, high = row["saving_ci"]
    saved = f"{100 * row['saving']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{saved}; {points(row)}".replace("-", "−")


def points(row: Mapping[str, Any]) -> str:
    """A change of the accuracy in points, with its interval if it has one."""
    text = f"{100 * row['accuracy_change']:+.1f}"
    if row["accuracy_change_ci"] is not None:
        low, high = row["accuracy_change_ci"]
        text += f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return text.replace("-", "−")


def rule_table(path: Path) -> list[str]:
    """The rules of one file against all steps."""
    evaluation: Mapping[str, Any] = evaluate(read_traces(path).traces).to_json()
    lines = ["| rule | accuracy | change (points) | saving against all steps | harm |", "|---|---:|---|---:|---:|"]
    for name, label in RULES.items():
        row = evaluation["rules"].get(name)
        if row is None:
            continue
        cells = [label, percent(row["accuracy"]), points(row), percent(row["saving"]), percent(row["harm"])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


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
    stale = {path: fresh for path in PAGES if (fresh := rewritten(page := path.read_text(encoding="utf-8"))) != page}
    if options.check and stale:
        names = ", ".join(path.name for path in stale)
        print(f"the tables of {names} are stale; run: python -m benchmarks.real.tables", file=sys.stderr)
        return 1
    for path, fresh in stale.items():
        path.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
