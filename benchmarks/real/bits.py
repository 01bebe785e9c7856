"""Which bits? The same first steps measured in several kinds of bits, from the recorded log-probabilities.

    python -m benchmarks.real.bits runs/MODEL.TASK.parquet runs/MODEL.TASK.top20.jsonl.gz

Traces keep the paper's bits alone: the 20 largest log-probabilities, renormalised. The record of `record.py` holds the
log-probabilities themselves. A step belongs to its record by its number and its text.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from justenough.signal.entropy import token_entropy
from justenough.stats.effects import auroc, cohens_d
from justenough.trace import Trace
from justenough.trace.files import read_traces

Floats = NDArray[np.float64]
Kind = Callable[[Floats], Floats]


def after_temperature(block: Floats, temperature: float) -> Floats:
    """Natural log-probabilities (T, k) of the distribution that tokens are drawn from, among the k alone."""
    scaled = block / temperature
    return scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)


KINDS: Final[dict[str, Kind]] = {
    "top-20 renormalised (the paper's)": lambda block: token_entropy(block),
    "top-20, the rest as one symbol": lambda block: token_entropy(block, tail="bucket"),
    "top-5 renormalised": lambda block: token_entropy(block, top_k=5),
    "top-5, the rest as one symbol": lambda block: token_entropy(block, tail="bucket", top_k=5),
    "top-20 after temperature 0.7": lambda block: token_entropy(after_temperature(block, 0.7)),
}


class Row(NamedTuple):
    """One kind of bits over all first steps."""

    kind: str
    mean: float
    rank_correlation: float
    """Spearman's, with the paper's bits."""
    threshold: float
    """The entropy mean: the mean over right answers."""
    d: float | None
    auroc: float | None


def read_record(path: Path) -> dict[tuple[int, str], Floats]:
    """Log-probabilities (T, k) of each completion by turn and text."""
    found: dict[tuple[int, str], Floats] = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            row = json.loads(line)
            widths = {len(top) for top in row["top_logprobs"]}
            if len(widths) == 1:
                found[row["turn"], row["text"]] = np.minimum(np.array(row["top_logprobs"]), 0.0)
    return found


def compare(traces: Sequence[Trace], record: dict[tuple[int, str], Floats]) -> tuple[list[Row], int]:
    """A row for each kind, and how many first steps were found in the record."""
    pairs = [
        (record[1, trace.steps[0].text], trace.steps[0].is_correct)
        for trace in traces
        if (1, trace.steps[0].text) in record
    ]
    correct = np.array([right for _, right in pairs], dtype=bool)
    bits = {name: np.array([kind(block).mean() for block, _ in pairs]) for name, kind in KINDS.items()}
    papers = next(iter(bits.values()))
    rows = [
        Row(
            name,
            float(values.mean()),
            float(spearmanr(papers, values).statistic),
            float(values[correct].mean()),
            cohens_d(values[correct], values[~correct]),
            auroc(values[correct], values[~correct]),
        )
        for name, values in bits.items()
    ]
    return rows, len(pairs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path)
    parser.add_argument("record", type=Path)
    options = parser.parse_args()
    traces = read_traces(options.traces).traces
    rows, found = compare(traces, read_record(options.record))
    print(f"{found} of {len(traces)} first steps are in the record\n")
    print("| bits | mean | rank correlation with the paper's | entropy-mean threshold | d | AUROC |")
    print("|---|---:|---:|---:|---:|---:|")
    for row in rows:
        d = "n/a" if row.d is None else f"{row.d:.3f}"
        area = "n/a" if row.auroc is None else f"{row.auroc:.3f}"
        print(f"| {row.kind} | {row.mean:.3f} | {row.rank_correlation:.3f} | {row.threshold:.3f} | {d} | {area} |")


if __name__ == "__main__":
    main()
