"""Studies the recorded answers of 51 models: `python -m benchmarks.records PATH/mmlu_pro_answers.parquet`.

The data: github Linwei94/LLM-Calibration-Study at ddc349e3 (MIT), one row for each answer. The signal is a stand-in:
one minus the mean probability of the chosen tokens under greedy decoding. It is not an entropy; no figure here is in
bits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.recorded import gain, labelfree, pairs, samples, scalars, transfer
from benchmarks.recorded.data import PAPERS, Records, load, pair_table, rounded
from benchmarks.recorded.emergence import KINDS, by_kind, diagnoses, kind_of, known_figures
from benchmarks.recorded.show import table, write_parts
from justenough.evaluation.diagnosis import Diagnosis
from justenough.stats.text import percent, points, spread

PARTS: Final = ("known", "emergence", "pairs", "transfer", "samples", "gain", "labelfree", "signals")


def show_known(records: Records) -> object:
    """The figures of SOURCES.md, computed again."""
    print("\n== Known figures (6,016 rows): d and AUROC, to the printed digits")
    figures = known_figures(records)
    table(
        ["model", "rows", "d", "known", "AUROC", "known", "same"],
        [
            [
                figure.model,
                "answered" if figure.answered_only else "all",
                figure.d,
                figure.expected[0],
                figure.auroc,
                figure.expected[1],
                {True: "yes", False: "NO", None: "other rows"}[figure.same],
            ]
            for figure in figures
        ],
    )
    return [figure._asdict() | {"same": figure.same} for figure in figures]


def show_emergence(records: Records, *, resamples: int) -> object:
    """The separation of every model, and of each kind of post-training."""
    print("\n== Emergence: answered rows only; intervals are 95 % bootstrap within class")
    results = diagnoses(records, resamples=resamples)
    rows: list[list[str]] = []
    out: dict[str, object] = {}
    for kind in KINDS:
        members = {model: item for model, item in results.items() if kind_of(model) == kind}
        for model, item in sorted(members.items(), key=lambda pair: _order(pair[1])):
            if isinstance(item, str):
                rows.append([model, kind, "–", "–", "–", "–", "–", "–", f"left out: {item}"])
                out[model] = {"kind": kind, "left_out": item}
                continue
            parts = item.separation
            rows.append(
                [
                    model,
                    kind,
                    str(item.measured),
                    percent(item.accuracy_first),
                    spread(parts.cohens_d),
                    spread(parts.auroc, digits=3),
                    spread(parts.within_groups, digits=3),
                    f"{item.length_auroc:.3f}/{item.auroc_within_lengths:.3f}"
                    if item.length_auroc is not None and item.auroc_within_lengths is not None
                    else "–",
                    parts.sentence,
                ]
            )
            out[model] = {"kind": kind, **item.to_json()}
    table(["model", "kind", "n", "right", "d", "AUROC", "within category", "length alone/within", "verdict"], rows)
    kinds = by_kind(results)
    print()
    table(
        ["kind", "models", "separates", "weak", "absent", "median d", "median AUROC"],
        [
            [
                kind,
                *(str(row[key]) for key in ("models", "separates", "weak", "absent")),
                f"{row['median_d']:.2f}",
                f"{row['median_auroc']:.3f}",
            ]
            for kind, row in kinds.items()
        ],
    )
    return {"models": out, "kinds": kinds}


def _order(item: Diagnosis | str) -> float:
    if isinstance(item, str) or item.separation.cohens_d is None:
        return np.inf
    return -item.separation.cohens_d.value


def show_pairs(records: Records, *, resamples: int) -> object:
    """The results of every threshold on every pair."""
    print(
        "\n== Stop or extend: thresholds fitted on one half of the questions, applied to the other, in turn;"
        f" risk: harm ≤ {pairs.RISK:g} at 95 %.\nAll rows; a missing answer counts as wrong. Saving against step 2"
        " alone,\nin tokens only if both steps are of one model; `step 2` is the share of its tokens not generated"
    )
    out: dict[str, object] = {}
    for pair, stoppings in pairs.all_stoppings(records, resamples=resamples).items():
        whole = pair_table(records, *pair)
        right = [float(whole.correct[:, column].mean()) for column in (0, -1)]
        free = pairs.oracle_stops(whole)
        print(f"\n{pair.name}: {percent(right[0])} → {percent(right[1])}, {percent(free)} could stop without loss")
        shown = []
        for name, stopping in stoppings.items():
            figures = stopping.figures
            verdict = figures.non_inferiority.verdict if figures.non_inferiority is not None else "–"
            known = [f"{value:.4f}" for value in stopping.thresholds if value is not None]
            shown.append(
                [
                    name,
                    " ".join(known) or stopping.reasons[0],
                    percent(figures.stopped),
                    percent(figures.saving_vs_last) if pair.effort else "–",
                    percent(stopping.calls_saved),
                    points(figures.accuracy_change),
                    percent(figures.harm.value if figures.harm else None, digits=2),
                    percent(figures.rescue.value if figures.rescue else None, digits=2),
                    verdict,
                ]
            )
        table(["method", "τ", "stopped", "saving", "step 2", "change (points)", "harm", "rescue", "at 1 point"], shown)
        out[pair.name] = {
            "accuracy": right,
            "free_stops": free,
            "methods": {
                name: {
                    "thresholds": stopping.thresholds,
                    "reasons": stopping.reasons,
                    "step_2_tokens_saved": stopping.calls_saved,
                    **stopping.figures.to_json(),
                }
                for name, stopping in stoppings.items()
            },
        }
    return out


def show_samples(records: Records, *, draws: int) -> object:
    """The thresholds for each number of labels."""
    print(
        f"\n== Labels: {draws} draws of each size, evaluated on the other questions; equivalent: two one-sided"
        "\ntests at 5 % against the threshold from all data, within"
        f" {samples.SIGNAL_MARGIN:g} standard deviations of the signal and within 1 point"
    )
    out: dict[str, object] = {}
    for pair in pairs.STUDIED:
        if pair.first not in records.by_model or pair.then not in records.by_model:
            print(f"\n{pair.name}: left out, not in the table")
            continue
        whole = pair_table(records, *pair)
        results: dict[str, object] = {}
        rows = []
        for method in PAPERS:
            threshold, by_size = samples.sizes(whole, method, draws=draws)
            results[method] = {
                "threshold": threshold,
                "sizes": [
                    {
                        **row._asdict(),
                        **{
                            key: None if value is None else value._asdict() | {"equivalent": value.equivalent}
                            for key, value in (("signal", row.signal), ("accuracy", row.accuracy))
                        },
                    }
                    for row in by_size
                ],
            }
            for row in by_size:
                fitted = row.threshold
                rows.append(
                    [
                        method,
                        str(row.n),
                        percent(row.refused, digits=0),
                        "–" if fitted is None else f"{fitted.mean:.4f} ({fitted.p5:.4f} to {fitted.p95:.4f})",
                        f"{percent(row.saving.mean, digits=0)} ({percent(row.saving.p5, digits=0)}"
                        f" to {percent(row.saving.p95, digits=0)})",
                        f"{100 * row.change.mean:+.1f} ({100 * row.change.p5:+.1f} to {100 * row.change.p95:+.1f})",
                        "–"
                        if row.signal is None
                        else f"{'yes' if row.signal.equivalent else 'no'} ({row.signal.p:.2f})",
                        f"{'yes' if row.accuracy.equivalent else 'no'} ({100 * row.accuracy.needed_margin:.1f})",
                    ]
                )
            rows.append([method, "all", "", "–" if threshold is None else f"{threshold:.4f}", "", "", "", ""])
        print(f"\n{pair.name}: mean (5–95 %)")
        head = [
            "method",
            "n",
            "none",
            "τ",
            "saving vs step 2",
            "change (points)",
            "τ same (p)",
            "accuracy same (needs)",
        ]
        table(head, rows)
        out[pair.name] = results
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the selected parts; return 1 if a known figure is not reproduced."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples (default 1000)")
    parser.add_argument("--draws", type=int, default=500, help="calibration draws of each size (default 500)")
    options = parser.parse_args(arguments)
    wanted = options.parts.split(",")
    if not set(wanted) <= set(PARTS):
        parser.error(f"--parts accepts {', '.join(PARTS)}")
    records = load(options.path)
    answers = sum(len(traces) for traces in records.by_model.values())
    print(f"{options.path.name}: {answers} answers of {len(records.by_model)} models, {records.bad} bad rows")
    results: dict[str, object] = {"answers": answers, "models": len(records.by_model), "bad": records.bad}
    parts = {
        "known": lambda: show_known(records),
        "emergence": lambda: show_emergence(records, resamples=options.resamples),
        "pairs": lambda: show_pairs(records, resamples=options.resamples),
        "transfer": lambda: transfer.show(records, resamples=options.resamples),
        "samples": lambda: show_samples(records, draws=options.draws),
        "gain": lambda: gain.show(records),
        "labelfree": lambda: labelfree.show(records, resamples=options.resamples),
        "signals": lambda: scalars.show(records),
    }
    for name in wanted:
        begun = time.perf_counter()
        results[name] = rounded(parts[name]())
        print(f"\n({name}: {time.perf_counter() - begun:.0f} s)", flush=True)
    write_parts("records" if wanted == list(PARTS) else f"records-{'-'.join(wanted)}", results)
    return int(any(figure.same is False for figure in known_figures(records)))


if __name__ == "__main__":
    raise SystemExit(main())
