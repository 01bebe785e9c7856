"""`justenough demo`."""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.tables import evaluation_text
from justenough.cli.terminal import ProgressLine, print_json, say
from justenough.stats.text import percent, points, spread, table

if TYPE_CHECKING:
    from justenough.toy.demo import Demo

EPILOG = """\
Writes traces.parquet, calibration.json, summary.json and report.html into --out. 600 held-out problems, all four steps
recorded; calibrated on 10 examples that are not among them; the gated run is also done live.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="default: demo")
    parser.add_argument("--quick", action="store_true", help="fewer problems, in under half a minute")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the demo."""
    from justenough.toy.demo import QUICK, Sizes, run_demo

    begun = time.monotonic()
    command = f"justenough demo --out {options.out}" + (" --quick" if options.quick else "")
    sizes = QUICK if options.quick else Sizes()
    out = options.out / "quick" if options.quick else options.out
    made = asyncio.run(run_demo(out, sizes=sizes, progress=ProgressLine, command=command))
    if options.json:
        print_json(made.to_json())
        return 0
    print(demo_text(made))
    say(f"\n{out}/report.html to look at; {out}/summary.json for the figures; {time.monotonic() - begun:.0f} s in all")
    return 0


def demo_text(made: Demo) -> str:
    """The demo at a glance."""
    evaluation, live, calibration = made.evaluation, made.live, made.calibration
    families = [
        [name, f"{row['problems']:.0f}", percent(row["accuracy_first"]), percent(row["accuracy_full"])]
        for name, row in evaluation.families.items()
    ]
    siblings = [
        [
            f"embedded:{name}",
            percent(found.accuracy_first),
            spread(found.separation.cohens_d),
            spread(found.separation.auroc, digits=3),
            spread(found.separation.within_groups, digits=3),
            "yes" if found.advisable else "no",
        ]
        for name, found in made.siblings.items()
    ]
    chosen = made.recommendation.settings
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
            f"the paper's gate (entropy mean, {calibration.n} examples, seed {calibration.seed}): {threshold};"
            f" saving {percent(gated.saving.value if gated.saving else None)},"
            f" change {points(gated.accuracy_change)} points;"
            f" saves more than {percent(made.percentile)} of {evaluation.draws.draws} draws",
            f"the recommended gate ({made.recommendation.n} labels, pooling {chosen.signal.pooling},"
            f" decide {chosen.decide}): {recommended}",
            f"live, generation really stopped: {live.equal_to_replay} of {live.problems} runs equal the replay token"
            f" for token; {live.seconds_gated:.1f} s and {live.tokens_gated:,} tokens against"
            f" {live.seconds_full:.1f} s and {live.tokens_full:,} for all steps",
            "",
            "siblings, step 1 only (by construction: one confidently wrong, one repaired by reinforcement):",
            table(["model", "step 1 right", "d", "AUROC", "within groups", "gate advisable"], siblings),
        ]
    )
