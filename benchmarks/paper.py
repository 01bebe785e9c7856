"""Runs the paper's experiment: one command for each model, resumable, with a report at the end.

    python -m benchmarks.paper --model openai:openai/gpt-oss-20b --base-url http://localhost:8000/v1 \
        --task aime24=aime_2024.jsonl --task aime25=aime_2025.jsonl --out runs/gpt-oss-20b
    python -m benchmarks.paper --rehearse --out runs/rehearsal

Four steps, top-20, and all four thresholds from 10 problems that are drawn separately. Each task gives traces,
calibrations and a report. `--pilot N` runs N problems of each task and prints the expected tokens of the whole run.
`--rehearse` runs everything on the embedded model behind llama.cpp's own server (extra `llamacpp`), over HTTP like any
model.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from justenough.calibration.calibration import calibrate, load_calibration
from justenough.calibration.thresholds import METHODS
from justenough.cli.main import main as justenough
from justenough.errors import CalibrationError
from justenough.evaluation import evaluate
from justenough.files import write_text
from justenough.grading import read_tasks
from justenough.trace.files import read_traces

PAPER: Final = ("mean", "info", "bayes", "universal")
EXAMPLES: Final = 10
REHEARSAL: Final = {"product": "product", "sum": "sum", "remainder": "remainder"}
GGUF: Final = Path(__file__).parent.parent / "models" / "embedded" / "model.gguf"


def collect(options: argparse.Namespace, name: str, task: str, *, limit: int | None, out: Path) -> int:
    """Collect one task with the command `justenough collect`, as a user would."""
    command = ["collect", "--model", options.model, "--tasks", task, "--steps", "4", "--top-k", "20", "--out", str(out)]
    command += ["--grader", options.grader, "--max-tokens", str(options.max_tokens)]
    command += ["--temperature", str(options.temperature), "--concurrency", str(options.concurrency)]
    if options.base_url:
        command += ["--base-url", options.base_url]
    if limit is not None:
        command += ["--limit", str(limit)]
    print(f"\n== {name}: justenough {' '.join(command)}", flush=True)
    return justenough(command)


def conclude(name: str, traces_path: Path, out: Path, *, seed: int) -> dict[str, object]:
    """All four thresholds from 10 drawn problems, and the effect of each on the other problems."""
    traces = read_traces(traces_path).traces
    row: dict[str, object] = {"task": name, "problems": len(traces)}
    for method in PAPER:
        path = out / f"{name}.{method}.json"
        try:
            calibration = calibrate(
                traces, method=METHODS[method](), n=min(EXAMPLES, len(traces) // 2), seed=seed, force=True
            )
        except CalibrationError as error:
            row[method] = f"no threshold: {error}"
            print(f"{name:>12} {method:>10}: no threshold: {error}")
            continue
        write_text(path, calibration.dumps())
        evaluation = evaluate(traces, calibration=calibration, seed=seed, rules="always-one-step,all-steps,oracle")
        gated = evaluation.gated
        saving = gated.saving.value if gated.saving is not None else 0.0
        change = gated.accuracy_change
        limits = (
            "" if change.interval is None else f" [{100 * change.interval[0]:+.1f}, {100 * change.interval[1]:+.1f}]"
        )
        print(
            f"{name:>12} {method:>10}: saving {saving:.1%}, change {100 * change.value:+.1f}{limits} points on"
            f" {evaluation.problems} problems"
        )
        row[method] = {"saving": saving, "change": change.value, "change_ci": change.interval, "n": evaluation.problems}
        if method == "mean":
            load_calibration(path)
            justenough(["report", str(traces_path), "--calibration", str(path), "--out", str(out / f"{name}.html")])
    return row


def run(options: argparse.Namespace, tasks: dict[str, str]) -> int:
    """Run the pilot, or collect all tasks and conclude."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    if options.pilot:
        expected = 0.0
        for name, task in tasks.items():
            path = out / f"{name}.pilot.parquet"
            if (code := collect(options, name, task, limit=options.pilot, out=path)) != 0:
                return code
            traces = read_traces(path).traces
            mean = sum(trace.tokens for trace in traces) / len(traces)
            size = len(read_tasks(task, limit=options.limit))
            expected += mean * size
            print(f"{name}: {mean:,.0f} tokens per problem in {len(traces)}, so about {mean * size:,.0f} for {size}")
        print(f"expected: {expected:,.0f} completion tokens in all; run again without --pilot")
        return 0
    rows = []
    for name, task in tasks.items():
        path = out / f"{name}.parquet"
        if (code := collect(options, name, task, limit=options.limit, out=path)) != 0:
            return code
        rows.append(conclude(name, path, out, seed=options.seed))
    write_text(out / "summary.json", json.dumps(rows, indent=2) + "\n")
    print(f"\n{out}/summary.json, and one report for each task")
    return 0


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="SPEC, as for justenough collect")
    parser.add_argument("--base-url")
    parser.add_argument("--task", action="append", default=[], metavar="NAME=FILE.jsonl")
    parser.add_argument("--grader", default="math", help="default for AIME; use `choice` for GPQA")
    parser.add_argument("--limit", type=int, help="the first N problems of each task")
    parser.add_argument("--pilot", type=int, default=0, metavar="N")
    parser.add_argument("--max-tokens", type=int, default=16384)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tasks = dict(part.split("=", 1) for part in options.task)
    if options.rehearse:
        options.model, options.grader, options.max_tokens, options.concurrency = f"llamacpp:{GGUF}", "exact", 400, 2
        options.temperature, options.limit = 0.8, options.limit or 60
        tasks = REHEARSAL
    if not options.model or not tasks:
        parser.error("give --model and --task, or --rehearse")
    return run(options, tasks)


if __name__ == "__main__":
    sys.exit(main())
