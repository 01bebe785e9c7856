"""Does post-training make the signal? One small model before and after it learns from its own answers.

    python -m benchmarks.real.posttraining --run --cache ~/.cache/justenough-real      # hours on one core, resumable
    python -m benchmarks.real.posttraining --table                                     # from the committed traces

The base model answers each training problem several times. `lora.py` trains from these answers, once for each arm and
seed. Every model then answers the same test problems through `justenough collect`. `--table` prints the tables that
stand between `<!-- post-training -->` marks in RESULTS.md; `--write` puts them there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

from benchmarks.real import sums
from benchmarks.real.leash import ROOT, environment
from benchmarks.real.packages import catalogue, obtain
from benchmarks.real.posttraining_tables import ARMS, tables
from benchmarks.real.prompts import SENTENCE, plugin
from benchmarks.real.tables import PAGE
from justenough.trace import Trace
from justenough.trace.files import read_traces, write_traces

FILES: Final = ROOT / "benchmarks" / "results" / "real" / "posttraining"
MODEL: Final = "smollm2-135m"
TESTED: Final = 200
TRAINED: Final = 150
LEVELS: Final = ("level-1", "level-3", "level-4")
"""Of the training problems: in a first try the base model was right in 4 of 75 and 0 of 69 answers to the others."""
SAMPLES: Final = 4
"""Answers of the base model to each training problem."""
_MARKS: Final = ("<!-- post-training -->\n", "<!-- /post-training -->")


def task_files(folder: Path) -> tuple[Path, Path]:
    """Write the test problems, and the training problems several times; returns both files.

    No training problem is a test problem, also not with its two numbers in the other order.
    """
    lines = [json.loads(line) for line in sums.task_lines(600, seed=0)]
    tested = {_unordered(line["problem"]) for line in lines[:TESTED]}
    free = (line for line in lines[TESTED:] if line["group"] in LEVELS and _unordered(line["problem"]) not in tested)
    trained = [line | {"id": f"{line['id']}-{copy}"} for line in islice(free, TRAINED) for copy in range(SAMPLES)]
    files = folder / "test.jsonl", folder / "train.jsonl"
    for path, each in zip(files, (lines[:TESTED], trained), strict=True):
        path.write_text("".join(f"{json.dumps(line)}\n" for line in each))
    return files


def _unordered(problem: str) -> tuple[str, frozenset[str]]:
    """The sign and the two numbers of `What is 2 + 3?`."""
    _, _, first, sign, second = problem.rstrip("?").split()
    return sign, frozenset((first, second))


class Run:
    """All commands in turn; what a file already holds is not done again."""

    def __init__(self, folder: Path, weights: Path) -> None:
        self.folder, self.weights = folder, weights
        folder.mkdir(parents=True, exist_ok=True)
        self.tests, self.training = task_files(folder)
        self.environment = environment([plugin(folder / "plugin")]) | {"OMP_NUM_THREADS": "1"}

    def all(self, arms: Sequence[str], seeds: int, steps: int) -> None:
        """Convert, sample, then train and test each arm, seed by seed."""
        base = self._made("base", ["--model", str(self.weights)])
        samples = self._collected(base, self.training, self.folder / "samples.parquet", steps=1)
        self._tested(base, steps)
        for seed in range(seeds):
            for arm in arms:
                if not (self.folder / f"{arm}-{seed}.parquet").exists():
                    options = ["--model", str(base), "--samples", str(samples), "--arm", arm, "--seed", str(seed)]
                    trained = self._made(f"{arm}-{seed}", options)
                    self._tested(trained, steps)
                    shutil.rmtree(trained)

    def _made(self, name: str, options: Sequence[str]) -> Path:
        out = self.folder / name
        if not (out / "tokenizer.json").exists():
            self._ran(["-m", "benchmarks.real.lora", *options, "--out", str(out)])
        return out

    def _tested(self, model: Path, steps: int) -> None:
        out = self._collected(model, self.tests, model.with_suffix(".parquet"), steps=steps)
        FILES.mkdir(parents=True, exist_ok=True)
        write_traces([light(trace) for trace in read_traces(out).traces], FILES / out.name)

    def _collected(self, model: Path, tasks: Path, out: Path, *, steps: int) -> Path:
        if not out.exists():
            command = ["-m", "justenough", "collect", "--model", f"hf:{model}", "--shape", "sequential"]
            command += ["--tasks", str(tasks), "--steps", str(steps), "--grader", "number", "--out", str(out)]
            command += ["--prompts", SENTENCE.prompts.name, "--temperature", "0.3", "--max-tokens", "48"]
            self._ran([*command, "--limit", "100000", "--concurrency", "32"])
        return out

    def _ran(self, arguments: Sequence[str]) -> None:
        print(" ".join(arguments), file=sys.stderr, flush=True)
        subprocess.run([sys.executable, *arguments], check=True, env=self.environment)


def light(trace: Trace) -> Trace:
    """The trace with the entropy of each token in place of its log-probabilities."""
    steps = tuple(
        replace(step, entropies=step.token_bits(trace.signal), top_logprobs=None, logprobs=None, confidences=None)
        for step in trace.steps
    )
    return replace(trace, steps=steps)


def rewritten(page: str, folder: Path = FILES) -> str:
    """The page with its tables computed from the traces; a page without the marks stays as it is."""
    if _MARKS[0] not in page:
        return page
    before, _, rest = page.partition(_MARKS[0])
    _, _, after = rest.partition(_MARKS[1])
    return before + _MARKS[0] + tables(folder) + _MARKS[1] + after


def main() -> int:
    """Run, print the tables or write them into RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS)[1:], default=["right", "any"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="of a test problem; with 1 there is no gate to measure")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "justenough-real")
    options = parser.parse_args()
    if options.run:
        weights = obtain(catalogue()[MODEL], options.cache / "models")
        Run(options.cache / "posttraining", weights).all(options.arms, options.seeds, options.steps)
    if options.table:
        print(tables(FILES), end="")
    if options.write:
        PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
