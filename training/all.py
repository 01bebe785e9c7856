"""Trains all models in order: `python -m training.all`; with `--siblings` only the two siblings of the base.

The base is trained from nothing, the confidently wrong sibling from the base's exported form, and the repaired sibling
from the confidently wrong one. The command exports all three, calibrates the base and prints what each can do. Then it
learns AdaDec's thresholds, the off-ramps and CALM's margins. It skips runs that have a `model.pt`, so an interrupted
sequence goes on from there.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

RUNS: Final = Path("training/runs")
BASE: Final = "embedded"
SEQUENCE: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (BASE, ("training.train", "--seed", "0")),
    (
        "overconfident",
        (
            *("training.train", "--start", f"models/{BASE}", "--forgetful", "1.0"),
            *("--tokens", "1500000", "--peak", "2e-3", "--seed", "1"),
        ),
    ),
    ("repaired", ("training.reinforce", "--start", f"{RUNS}/overconfident/model.pt", "--seed", "0")),
)
"""Name of the run, its module and arguments, without `--out`."""


def commands(*, problems: int, fresh: bool, siblings: bool = False) -> list[tuple[str, ...]]:
    """The modules to run, with their arguments, in order."""
    result: list[tuple[str, ...]] = []
    models = [(name, command) for name, command in SEQUENCE if not (siblings and name == BASE)]
    for name, command in models:
        run = RUNS / name
        if fresh or not (run / "model.pt").exists():
            result.append((*command, "--out", str(run)))
        result.append(("training.export", f"{run}/model.pt", "--name", name))
        if name == BASE:
            result.append(("training.calibration",))
        result.append(("training.assess", f"{run}/model.pt", "--problems", str(problems)))
    # For the rules that need a live model, learned from the models that ship.
    result.append(("training.adadec", "--models", *(name for name, _ in models)))
    if not siblings:
        result += [("training.offramps",), ("training.calm",)]
    return result


def main() -> None:
    """Run the sequence in the repository's root; stop at the first command that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=600, help="problems for the assessment of each model")
    parser.add_argument("--fresh", action="store_true", help="train models again that are already trained")
    parser.add_argument("--siblings", action="store_true", help="train only the siblings, from the base that ships")
    options = parser.parse_args()
    for command in commands(problems=options.problems, fresh=options.fresh, siblings=options.siblings):
        print("python -m", *command, flush=True)
        subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()
