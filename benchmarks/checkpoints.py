"""Compares rules that may stop at any checkpoint: `python -m benchmarks.checkpoints [TRACES …]`.

Without files the traces are of the embedded model: whole completions, and streams that are cut at paragraphs and at
every 16 tokens. They are collected once, into `benchmarks/results/checkpoints`, with `justenough collect` (half an hour
on one core). Rules are fitted on the first problems of the calibration split and measured on 600 held-out problems.
A file of other traces is divided by problem into two random halves, one to fit on and one to measure on.

Savings are net: a rule pays for the thought, for all its probes and for the final answer. Every rule that labels fit
or tune gets the same labels.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from benchmarks.timing import RESULTS, write
from justenough.calibration.asking import calibrate_by_asking
from justenough.calibration.calibration import calibrate
from justenough.calibration.certified import RiskControlled
from justenough.errors import CalibrationError
from justenough.evaluation import Figures, evaluate
from justenough.evaluation.tuning import TUNED
from justenough.gate import Decide
from justenough.rules.fitted import FITTED
from justenough.rules.rivals import GRIDS, RIVALS
from justenough.stats.text import percent, points
from justenough.trace import Trace
from justenough.trace.files import read_traces

FOLDER: Final = RESULTS / "checkpoints"
SETS: Final = {
    "sequential": (1200, "--steps 4"),
    "streaming": (1200, "--shape streaming --splitter paragraph --steps 8"),
    "streaming-16-tokens": (600, "--shape streaming --splitter tokens:16 --steps 24"),
}
"""Name → number of labelled problems, arguments of `justenough collect`."""
MEASURED: Final = 600
MARGIN: Final = 0.01
"""Most accuracy that the best rule may lose."""


class Gate(NamedTuple):
    """One way to calibrate."""

    method: str
    decide: Decide
    give_up: bool = False


GATES: Final = (
    Gate("mean", "first"),
    *(Gate(method, decide) for decide in ("first", "every") for method in ("risk", "net")),
    Gate("decider", "every"),
    Gate("decider", "every", give_up=True),
)


class Row(NamedTuple):
    """A rule with its figures, or the reason why it has none."""

    rule: str
    figures: Figures | None = None
    reason: str = ""


def collected(name: str, *, task: str, limit: int) -> list[Trace]:
    """The traces of the embedded model; an interrupted collection resumes."""
    path = FOLDER / f"{name}.{task}.parquet"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "justenough", "collect", "--model", "embedded", "--tasks", task]
        subprocess.run([*command, "--limit", str(limit), *SETS[name][1].split(), "--out", path], check=True)
    return read_traces(path).traces


def halves(traces: Sequence[Trace], *, seed: int) -> tuple[list[Trace], list[Trace]]:
    """Two random halves; all runs of a problem are in one of them."""
    ids = sorted({trace.hashed_id for trace in traces})
    first = {ids[place] for place in np.random.default_rng(seed).permutation(len(ids))[: len(ids) // 2]}
    return [one for one in traces if one.hashed_id in first], [one for one in traces if one.hashed_id not in first]


def gated(gate: Gate, labelled: Sequence[Trace], measured: Sequence[Trace], *, max_harm: float, seed: int) -> Row:
    """A gate that is calibrated on the labelled problems."""
    level = "" if gate.method == "mean" else f", harm ≤ {percent(max_harm)}"
    name = f"{gate.method}{', give-up' if gate.give_up else ''}, {gate.decide}{level}"
    try:
        calibration = calibrate(
            labelled, method=gate.method, decide=gate.decide, max_harm=max_harm, give_up=gate.give_up, seed=seed
        )
    except CalibrationError as error:
        return Row(name, reason=str(error))
    return Row(name, evaluate(measured, calibration=calibration, rules="all-steps", draws=1, seed=seed).gated)


def asked(labelled: Sequence[Trace], *, max_harm: float, seed: int) -> str:
    """How many judgements `--ask` takes in place of all of them, for a certificate at every step."""
    grades = {(trace.task, trace.id, step.answer): step.is_correct for trace in labelled for step in trace.steps}
    ungraded = [replace(trace, steps=tuple(replace(step, correct=None) for step in trace.steps)) for trace in labelled]
    method = RiskControlled(max_harm=max_harm)
    try:
        calibration = calibrate_by_asking(ungraded, lambda one: grades[one], method=method, decide="every", seed=seed)
    except CalibrationError as error:
        return str(error)
    return f"{calibration.judged} judgements in place of {calibration.judged_in_full}"


def others(labelled: Sequence[Trace], measured: Sequence[Trace], *, seed: int) -> Iterator[Row]:
    """Rules of other authors, at their settings and tuned, fixed numbers of steps, and the oracles."""
    steps = max(len(trace.steps) for trace in measured)
    fixed = range(1, steps) if steps < 8 else [2**power for power in range((steps - 1).bit_length())]
    names = [*RIVALS, *(f"{head}{TUNED}" for head in (*GRIDS, *FITTED))]
    names += [f"always-{count}-steps" for count in fixed]
    done = evaluate(
        measured, pool=labelled, rules=[*names, "oracle"], decide="every", n=len(labelled), draws=1, seed=seed
    )
    yield from (Row(rule, figures) for rule, figures in done.rules.items() if rule != "oracle")
    yield from (Row(rule, reason=f"not replayed, {missing}") for rule, missing in done.missing.items())
    first = evaluate(measured, rules="oracle", decide="first", draws=1, seed=seed)
    yield from (Row(f"oracle, {one.decide}", one.rules["oracle"]) for one in (first, done))


def rows_of(labelled: Sequence[Trace], measured: Sequence[Trace], *, levels: Sequence[float], seed: int) -> list[Row]:
    """All rules of one set of traces; the certified ones at each level of harm."""
    wanted = [(gate, level) for level in levels for gate in GATES if gate.method != "mean" or level == levels[0]]
    rows = [gated(gate, labelled, measured, max_harm=level, seed=seed) for gate, level in wanted]
    return [*rows, *others(labelled, measured, seed=seed)]


def best(rows: Sequence[Row]) -> str | None:
    """The rule that saves most among those that lose at most the margin; an oracle is no rule."""
    saving = {
        row.rule: row.figures.saving.value
        for row in rows
        if row.figures is not None and row.figures.saving is not None and not row.rule.startswith("oracle")
        if row.figures.accuracy_change.value >= -MARGIN
    }
    # Of two that save the same, the one that needs no label.
    return max(saving, key=lambda rule: (saving[rule], rule.startswith("always"))) if saving else None


def shown(rows: Sequence[Row], n: int) -> str:
    """A table in Markdown, the reasons of rules without figures below it."""
    lines = ["| rule | saving, net | change, points | harm | n |", "|---|---|---|---|---|"]
    for rule, figures, _ in rows:
        if figures is not None:
            harm = percent(figures.harm.value if figures.harm else None)
            lines.append(f"| {rule} | {points(figures.saving)} | {points(figures.accuracy_change)} | {harm} | {n} |")
    return "\n".join([*lines, "", *(f"- {row.rule}: {row.reason}" for row in rows if row.figures is None)])


def overview(name: str, labelled: int, measured: int, rows: Sequence[Row]) -> str:
    """One row of a table in Markdown: the best rule, and the certificate at every step."""
    chosen = best(rows)
    certified = [row.rule for row in rows if row.rule.startswith("risk, every")][:1]
    cells = [f"`{name.removesuffix('.parquet')}`", f"{labelled}, {measured}"]
    for rule in (chosen, *certified):
        figures = next((row.figures for row in rows if row.rule == rule), None)
        cells.append("–" if figures is None else f"{points(figures.saving)}; {points(figures.accuracy_change)}")
    cells[2] = f"{chosen}: {cells[2]}"
    return f"| {' | '.join(cells)} |"


def compare(
    name: str, labelled: Sequence[Trace], measured: Sequence[Trace], *, levels: Sequence[float], seed: int
) -> dict[str, object]:
    """Print the table of one set of traces; returns its figures as JSON."""
    rows = rows_of(labelled, measured, levels=levels, seed=seed)
    right = [sum(trace.steps[at].is_correct for trace in measured) / len(measured) for at in (0, -1)]
    steps = [len(trace.steps) for trace in measured]
    print(
        f"\n## {name}: fitted on {len(labelled)} problems, measured on {len(measured)} others\n\n{measured[0].model}; "
        f"{np.mean(steps):.1f} checkpoints on average, at most {max(steps)};"
        f" right at the first {percent(right[0])}, at the last {percent(right[1])}\n"
    )
    print(shown(rows, len(measured)))
    asking = {f"{level:g}": asked(labelled, max_harm=level, seed=seed) for level in levels}
    for level, answer in asking.items():
        print(f"\n`--ask` for risk, every, harm ≤ {percent(float(level))}: {answer}")
    print(f"\nBest (loses at most {percent(MARGIN)}): {best(rows)}", flush=True)
    return {
        "labelled": len(labelled),
        "measured": len(measured),
        "right": right,
        "best": best(rows),
        "overview": overview(name, len(labelled), len(measured), rows),
        "asked": asking,
        "rules": {row.rule: row.figures.to_json() if row.figures else row.reason for row in rows},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", type=Path, help="files of traces (default: the embedded model's)")
    parser.add_argument("--labels", nargs="+", type=int, default=[300, 1200], help="most problems to fit on")
    parser.add_argument("--max-harm", nargs="+", type=float, default=[0.01, 0.02], help="levels of the certificates")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    levels, seed, results = options.max_harm, options.seed, dict[str, dict[str, object]]()
    for path in options.traces:
        parts = halves(read_traces(path).traces, seed=seed)
        results[path.name] = compare(path.name, *parts, levels=levels, seed=seed)
    if len(options.traces) > 1:
        print("\n| file | fitted, measured | best rule | `risk`, every |\n|---|---|---|---|")
        print("\n".join(str(each["overview"]) for each in results.values()))
    for name, (limit, _) in {} if options.traces else SETS.items():
        labelled = collected(name, task="arithmetic-calibration", limit=limit)
        measured = collected(name, task="arithmetic", limit=MEASURED)
        for count in sorted({min(count, limit) for count in options.labels}):
            results[f"{name}, {count}"] = compare(name, labelled[:count], measured, levels=levels, seed=seed)
    write("checkpoints-files" if options.traces else "checkpoints", results)


if __name__ == "__main__":
    main()
