"""Which pooling of the token entropies separates best, and how far label-free calibration is from the labelled one.

    python -m benchmarks.signals traces.parquet calibration-traces.parquet

The first file is for evaluation, the second for calibration. Intervals are 95 % bootstrap; differences are paired.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.timing import write
from justenough.calibration.calibration import calibrate
from justenough.errors import CalibrationError
from justenough.evaluation import Table, evaluate, table_of
from justenough.signal.combination import fit_rows, inputs_of
from justenough.signal.pooling import POOLINGS
from justenough.stats import auroc, separation
from justenough.trace import Trace
from justenough.trace.files import read_traces

RESAMPLES = 1000


def difference(table: Table, base: Table) -> tuple[float, float, float]:
    """AUROC of one signal minus another's on the same problems, with a paired interval."""
    correct = table.correct[:, 0]
    right, wrong = np.flatnonzero(correct), np.flatnonzero(~correct)
    rng = np.random.default_rng(0)

    def gap(of_right: np.ndarray, of_wrong: np.ndarray) -> float:
        mine = auroc(table.bits[of_right, 0], table.bits[of_wrong, 0]) or 0.0
        theirs = auroc(base.bits[of_right, 0], base.bits[of_wrong, 0]) or 0.0
        return mine - theirs

    draws = [gap(rng.choice(right, len(right)), rng.choice(wrong, len(wrong))) for _ in range(RESAMPLES)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return gap(right, wrong), float(low), float(high)


def poolings(traces: Sequence[Trace], labelled: Sequence[Trace]) -> dict[str, object]:
    """Separation of each pooling and of a combination fitted on labelled traces, and differences from the mean."""
    base = table_of(traces, traces[0].signal)
    results: dict[str, object] = {}
    print(f"{len(traces)} problems of {traces[0].model}: step 1, right against wrong")
    print(f"{'pooling':>16}  {'AUROC':^20}  {'within groups':^20}  difference from the mean")
    signals = [replace(traces[0].signal, pooling=name) for name in POOLINGS]
    graded = np.array([trace.steps[0].is_correct for trace in labelled])
    rows = [inputs_of(trace.steps[0].measured(trace.signal)) for trace in labelled]
    fitted = fit_rows(np.array(rows, dtype=np.float64), graded)
    signals.append(replace(traces[0].signal, pooling="combination", combination=fitted))
    for signal in signals:
        name, table = signal.pooling, table_of(traces, signal)
        result = separation(table.bits[:, 0], table.correct[:, 0], groups=table.groups)
        gap, low, high = difference(table, base)
        area, inside = result.auroc, result.within_groups
        if area is None or inside is None:
            continue
        shown = [f"{x.value:.3f} [{x.low or 0:.3f}, {x.high or 0:.3f}]" for x in (area, inside)]
        print(f"{name:>16}  {shown[0]:^20}  {shown[1]:^20}  {gap:+.3f} [{low:+.3f}, {high:+.3f}]")
        results[name] = {"auroc": area._asdict(), "within": inside._asdict(), "difference": [gap, low, high]}
    return results


def label_free(traces: Sequence[Trace], labelled: Sequence[Trace]) -> dict[str, object]:
    """Thresholds from grades and from agreement with the last step, and the effect of each."""
    results: dict[str, object] = {}
    agreed = np.mean([trace.steps[0].answer == trace.steps[-1].answer for trace in labelled])
    right = np.mean([trace.steps[0].is_correct for trace in labelled])
    print(f"\n{len(labelled)} problems to calibrate on: step 1 right {right:.1%}, agrees with the last {agreed:.1%}")
    print(f"{'method':>10}  {'labels':>9}  {'τ, bits':>8}  {'saving':>7}  change, points")
    for method in ("mean", "info", "bayes", "universal"):
        for labels in ("graded", "agreement"):
            try:
                calibration = calibrate(labelled, method=method, labels="graded" if labels == "graded" else "agreement")
            except CalibrationError as error:
                print(f"{method:>10}  {labels:>9}  none: {error}")
                continue
            gated = evaluate(traces, calibration=calibration, rules="all-steps", draws=1).gated
            low, high = gated.accuracy_change.interval or (0.0, 0.0)
            saving = gated.saving.value if gated.saving is not None else 0.0
            threshold = "never" if calibration.threshold is None else f"{calibration.threshold:.4f}"
            change = f"{100 * gated.accuracy_change.value:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
            print(f"{method:>10}  {labels:>9}  {threshold:>8}  {saving:>7.1%}  {change}")
            results[f"{method}/{labels}"] = {
                "threshold": calibration.threshold,
                "saving": saving,
                "change": [gated.accuracy_change.value, low, high],
            }
    return results


def main() -> None:
    """Print both tables."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    traces, labelled = (read_traces(Path(name)).traces for name in sys.argv[1:])
    write("signals", {"poolings": poolings(traces, labelled), "label_free": label_free(traces, labelled)})


if __name__ == "__main__":
    main()
