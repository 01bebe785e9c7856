"""Writes the embedded model's results from `demo/summary.json` into the tutorial and the README.

`make demo && python docs/results.py`; `--check` tests whether they are up to date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from justenough import GateSettings, read_traces
from justenough.calibration.calibration import load_calibration
from justenough.rules.rules import EntropyGate, stopped_at
from justenough.stats import Estimate, resampled_sums

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


def table(summary: dict[str, Any], mixture: Estimate) -> str:
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
        f"{mixture_text(mixture)} In this mixture some problems, drawn at random, get one step and the others two, so"
        " that its tokens are those of the gate.",
        "",
        f"A single draw of 10 labels proves little. Over {draws['draws']} draws the entropy mean saves"
        f" {percent(draws['saving']['mean'])} (5th to 95th percentile {percent(draws['saving']['p5'])} to"
        f" {percent(draws['saving']['p95'])}) and changes accuracy by"
        f" {100 * draws['accuracy_change']['mean']:+.1f} points"
        f" ({100 * draws['accuracy_change']['p5']:+.1f} to {100 * draws['accuracy_change']['p95']:+.1f}).",
        f"In live runs, where generation is really stopped, {live['equal_to_replay']} of {live['problems']} runs equal"
        f" the replay token for token. They took {live['tokens_gated']:,} of the {live['tokens_full']:,} tokens of"
        f" both steps. {live['right_gated']} answers are right; with both steps it is {live['right_full']}.",
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


def at_equal_tokens() -> Estimate:
    """The paper's gate against a random mixture of one and two steps with the same total of tokens.

    The difference in accuracy as a fraction; the mixture is fitted again to the tokens of every resample of problems.
    """
    traces = read_traces(ROOT / "demo" / "traces.parquet").traces
    gate = EntropyGate("gate", GateSettings.of(load_calibration(ROOT / "demo" / "calibration.json")))
    rows = [
        number
        for trace in traces
        for stop in (gate.replay(trace), stopped_at(trace, 1), stopped_at(trace, 2))
        for number in (stop.correct, stop.tokens)
    ]
    columns = np.array(rows, dtype=float).reshape(len(traces), 6)

    def more_right(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        right, tokens, right_first, tokens_first, right_both, tokens_both = sums.T
        share = (tokens - tokens_first) / (tokens_both - tokens_first)
        more: NDArray[np.float64] = right - right_first - share * (right_both - right_first)
        return more

    low, high = np.quantile(more_right(resampled_sums(columns)), (0.025, 0.975)) / len(traces)
    return Estimate(float(more_right(columns.sum(axis=0, keepdims=True))[0]) / len(traces), low, high, len(traces))


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


def mixture_text(mixture: Estimate) -> str:
    """The gate against a mixture of fixed numbers of steps."""
    change = interval(mixture.value, [mixture.low or 0.0, mixture.high or 0.0])
    return (
        f"At equal tokens, the accuracy of the entropy mean is {change} points above that of the best mixture of one"
        f" and two steps (n = {mixture.n})."
    )


def sentence(summary: dict[str, Any], mixture: Estimate) -> str:
    """The main figures, for the README."""
    row = summary["rules"]["entropy-mean"]
    return (
        f"A toy model of 0.89 M parameters does arithmetic in steps. On {summary['problems']} held-out problems,"
        f" entropy separates right from wrong answers with AUROC {number(summary, 'auroc', 3)}. The paper's threshold"
        f" (entropy mean, 10 labels) saves"
        f" {interval(row['saving'], row['saving_ci'], sign=False)} % of the tokens of two steps and changes"
        f" accuracy by {interval(row['accuracy_change'], row['accuracy_change_ci'])} points."
        f" {mixture_text(mixture)}"
    )


def main() -> int:
    """Write the results, or check whether they are up to date."""
    summary = json.loads((ROOT / "demo" / "summary.json").read_text())
    mixture, stale = at_equal_tokens(), []
    for path, text in (
        (ROOT / "docs" / "tutorial.md", table(summary, mixture)),
        (ROOT / "README.md", sentence(summary, mixture)),
    ):
        page = path.read_text()
        head, rest = page.split(BEGIN)
        fresh = f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}"
        if fresh == page:
            continue
        stale.append(path.name)
        if "--check" not in sys.argv[1:]:
            path.write_text(fresh)
    if "--check" not in sys.argv[1:]:
        return 0
    print(f"stale: {', '.join(stale)}; run: python docs/results.py" if stale else "up to date", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
