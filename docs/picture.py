"""Draws the README's picture from the demo's results: `make demo && python docs/picture.py` writes docs/result.svg."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from justenough import read_traces
from justenough.report.data import histogram, scale
from justenough.report.plots import Point, rules_panel, signal_panel, svg

ROOT: Final = Path(__file__).parent.parent
LABELS: Final = {
    "entropy-mean": "entropy mean, 10 labels",
    "recommended": "recommended, 300 labels",
    "always-one-step": "step 1 alone",
    "all-steps": "both steps",
    "oracle": "oracle",
}


def main() -> None:
    """Write the SVG file."""
    summary: dict[str, Any] = json.loads((ROOT / "demo" / "summary.json").read_text())
    traces = read_traces(ROOT / "demo" / "traces.parquet").traces
    bits = np.array([trace.steps[0].bits(trace.signal) for trace in traces], dtype=float)
    correct = np.array([trace.steps[0].is_correct for trace in traces])
    axis = scale(bits)
    signal = signal_panel(
        histogram(bits, correct, axis),
        axis,
        title=f"Entropy of the first step, {len(traces)} held-out problems",
        quantity="entropy, bits",
        threshold=summary["thresholds"]["mean"],
    )
    points = []
    for name, label in LABELS.items():
        row = summary["rules"][name]
        low, high = (summary["accuracy_full"] + limit for limit in row["accuracy_change_ci"])
        main = name in ("entropy-mean", "recommended")
        points.append(Point(label, row["saving"], row["accuracy"], low, high, main))
    rules = rules_panel(points, title="Accuracy and tokens saved")
    picture = svg([signal, rules], label="Entropy of right and wrong answers, and what a threshold saves")
    (ROOT / "docs" / "result.svg").write_text(picture)


if __name__ == "__main__":
    main()
