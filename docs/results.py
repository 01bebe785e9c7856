"""Writes the README's tables from `demo/summary.json`: `make demo && python docs/results.py`; `--check` tests them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
BEGIN, END = "<!-- results: made by docs/results.py -->", "<!-- /results -->"
SHOWN: Final = {
    "always-one-step": "step 1 alone",
    "all-steps": "always both steps",
    "oracle": "oracle",
    "entropy-mean": "**entropy mean** (the paper's), 10 labels",
    "entropy-info": "information-theoretic, 10 labels",
    "entropy-bayes": "Bayes, 10 labels",
    "entropy-universal": "universal, 10 labels",
    "recommended": "**recommended**, 300 labels",
}


def table(summary: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"{summary['problems']} held-out problems, two steps each (an attempt and a check),"
        f" temperature {summary['signal']['temperature']}."
        f" Step 1 is right in {percent(summary['accuracy_first'])}, both steps in {percent(summary['accuracy_full'])}."
        f" Entropy of step 1 separates right from wrong answers with d {number(summary, 'cohens_d')} and"
        f" AUROC {number(summary, 'auroc', 3)}; within difficulty levels the AUROC is"
        f" {number(summary, 'auroc_within_groups', 3)}.",
        "",
        "| rule | accuracy | change, points (95 %) | tokens saved (95 %) | stopped wrong, last step right |",
        "|---|---|---|---|---|",
    ]
    for name, label in SHOWN.items():
        row = summary["rules"].get(name)
        if row is None:
            continue
        change = interval(row["accuracy_change"], row["accuracy_change_ci"])
        saving = interval(row["saving"], row["saving_ci"], sign=False)
        lines.append(f"| {label} | {percent(row['accuracy'])} | {change} | {saving} | {percent(row['harm'])} |")
    draws, live = summary["draws"], summary["live"]
    lines += [
        "",
        f"A single draw of 10 labels proves little. Over {draws['draws']} draws the entropy mean saves"
        f" {percent(draws['saving']['mean'])} (5th to 95th percentile {percent(draws['saving']['p5'])} to"
        f" {percent(draws['saving']['p95'])}) and changes accuracy by"
        f" {100 * draws['accuracy_change']['mean']:+.1f} points"
        f" ({100 * draws['accuracy_change']['p5']:+.1f} to {100 * draws['accuracy_change']['p95']:+.1f}).",
        f"In live runs, where generation is really stopped, {live['equal_to_replay']} of {live['problems']} runs equal"
        f" the replay token for token. They took {live['tokens_gated']:,} of the {live['tokens_full']:,} tokens of"
        f" both steps, and {live['right_gated']} instead of {live['right_full']} are right.",
        "",
        "| model | problems | step 1 right | d (95 %) | AUROC (95 %) | within levels (95 %) | gate advisable |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in {"embedded": summary, **summary["siblings"]}.items():
        label = "embedded" if name == "embedded" else f"embedded:{name}"
        advisable = "yes" if row.get("advisable", row["verdict"] == "separates") else "no"
        lines.append(
            f"| `{label}` | {row['problems']} | {percent(row['accuracy_first'])} | {number(row, 'cohens_d')} |"
            f" {number(row, 'auroc', 3)} | {number(row, 'auroc_within_groups', 3)} | {advisable} |"
        )
    return "\n".join(lines)


def percent(value: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * value:.1f} %"


def interval(value: float, limits: list[float], *, sign: bool = True) -> str:
    """A figure in percentage points with its interval."""
    style = "+.1f" if sign else ".1f"
    return f"{100 * value:{style}} [{100 * limits[0]:{style}}, {100 * limits[1]:{style}}]"


def number(row: dict[str, Any], key: str, digits: int = 2) -> str:
    """A figure with its interval, if it has one."""
    limits = row.get(f"{key}_ci")
    text = f"{row[key]:.{digits}f}"
    return text if limits is None else f"{text} [{limits[0]:.{digits}f}, {limits[1]:.{digits}f}]"


def main() -> int:
    """Write the tables, or check whether they are up to date."""
    summary = json.loads((ROOT / "demo" / "summary.json").read_text())
    path = ROOT / "README.md"
    page = path.read_text()
    head, rest = page.split(BEGIN)
    fresh = f"{head}{BEGIN}\n{table(summary)}\n{END}{rest.split(END)[1]}"
    if "--check" in sys.argv[1:]:
        print(
            "up to date" if fresh == page else "README's results are stale; run: python docs/results.py",
            file=sys.stderr,
        )
        return int(fresh != page)
    path.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
