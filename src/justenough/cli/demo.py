"""`justenough demo`.

Writes traces.parquet, calibration.json, summary.json and report.html to --out. The demo records two steps of 600
problems, an attempt and a check, calibrates on 10 examples that are not among them, and also runs the gate live.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.paths import folder
from justenough.cli.tables import evaluation_text, separation_cells
from justenough.cli.terminal import ProgressLine, print_json, say, show
from justenough.stats.text import percent, points, table

if TYPE_CHECKING:
    from justenough.toy.demo import Demo


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_option(parser, "--out", type=folder, default="demo", metavar="DIR", help="folder of the results")
    arguments.add_flag(parser, "--quick", help="use fewer problems; takes less than half a minute")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the demo and show the results."""
    from justenough.toy.demo import QUICK, Sizes, run_demo

    start = time.monotonic()
    command = f"justenough demo --out {options.out}" + (" --quick" if options.quick else "")
    sizes = QUICK if options.quick else Sizes()
    out = options.out / "quick" if options.quick else options.out
    demo = asyncio.run(run_demo(out, sizes=sizes, progress=ProgressLine, command=command))
    if options.json:
        print_json(demo.to_json())
        return 0
    show(demo_text(demo))
    say(f"\nreport: {out}/report.html; figures: {out}/summary.json; {time.monotonic() - start:.0f} s in total")
    return 0


def demo_text(demo: Demo) -> str:
    """The results of the demo as text."""
    evaluation, live, calibration = demo.evaluation, demo.live, demo.calibration
    families = [
        [name, f"{row['problems']:.0f}", percent(row["accuracy_first"]), percent(row["accuracy_full"])]
        for name, row in evaluation.families.items()
    ]
    siblings = [
        [
            f"embedded:{name}",
            percent(diagnosis.accuracy_first),
            *separation_cells(diagnosis.separation),
            "yes" if diagnosis.advisable else "no",
        ]
        for name, diagnosis in demo.siblings.items()
    ]
    chosen = demo.recommendation.settings
    threshold = "never stop" if calibration.threshold is None else f"τ = {calibration.threshold:.4f} bits"
    recommended = "never stop" if chosen.threshold is None else f"τ = {chosen.threshold:.4f} bits"
    gated = evaluation.gated
    return "\n".join(
        [
            "",
            evaluation_text(evaluation),
            "",
            table(["family", "problems", "step 1 right", "all steps right"], families),
            "",
            f"the gate of the paper (entropy mean, {calibration.n} examples, seed {calibration.seed}): {threshold};"
            f" saving {percent(gated.saving.value if gated.saving else None)},"
            f" change {points(gated.accuracy_change)} points;"
            f" saves more than {percent(demo.percentile)} of {evaluation.draws.draws} draws",
            f"the recommended gate ({demo.recommendation.n} labels, pooling {chosen.signal.pooling},"
            f" decide {chosen.decide}): {recommended}",
            f"live run, in which the model really stops: {live.equal_to_replay} of {live.problems} runs have the same"
            f" tokens as the replay; {live.seconds_gated:.1f} s and {live.tokens_gated:,} tokens instead of"
            f" {live.seconds_full:.1f} s and {live.tokens_full:,} for all steps; right {live.right_gated} instead of"
            f" {live.right_full}",
            "",
            "other embedded models, step 1 only (one is confidently wrong, one is repaired by reinforcement learning):",
            table(["model", "step 1 right", "d", "AUROC", "within groups", "gate advisable"], siblings),
        ]
    )
