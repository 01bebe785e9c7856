"""`justenough collect`."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.terminal import ProgressLine, print_json, say
from justenough.stats.text import percent

if TYPE_CHECKING:
    from justenough.grading import Grader, Problem
    from justenough.runner import Runner, RunSettings
    from justenough.trace import Json

EPILOG = """\
built-in tasks (for the embedded model):
  arithmetic              all families, held-out problems
  arithmetic-calibration  all families, problems set apart for calibration
  product, sum, remainder one family, held-out problems

a task file is JSONL: {"id": …, "problem": …, "target": …, "family": …?, "group": …?}

Each finished problem is kept at once in OUT.part.jsonl: the same command goes on where it was stopped.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    arguments.add_model(parser)
    parser.add_argument("--tasks", metavar="NAME|FILE", required=True, help="a built-in task or a JSONL file")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N problems (built-in tasks: 600)")
    parser.add_argument("--steps", type=int, default=4, metavar="K", help="steps recorded for each problem (default 4)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.parquet or FILE.jsonl")
    group = parser.add_argument_group("under a budget (sequential steps)")
    group.add_argument("--budget", metavar="N", help="spend at most so many completion tokens, or calls, in all")
    arguments.add_unit(group)
    group.add_argument("--policy", default="greedy", metavar="NAME", help="who gets further steps (default greedy)")
    group.add_argument(
        "--fit", type=Path, metavar="TRACES", help="labelled traces of other problems, from which gains are expected"
    )
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Collect."""
    from justenough.grading import open_grader, read_tasks

    problems = read_tasks(options.tasks, limit=options.limit)
    settings = arguments.run_settings(options, steps=options.steps)
    grader = open_grader(options.grader)
    try:
        return asyncio.run(_collect(options, problems, settings, grader))
    finally:
        grader.close()


async def _collect(options: argparse.Namespace, problems: list[Problem], settings: RunSettings, grader: Grader) -> int:
    from justenough.runner import Runner
    from justenough.runner.collect import Collector, settings_digest

    async with arguments.backends(options) as (backend, cascade):
        runner = Runner(backend, settings, grader=grader, cascade=cascade)
        digest = settings_digest(backend, settings, grader=options.grader, cascade=cascade)
        if options.budget is not None:
            return await _spend(options, runner, problems, digest=digest)
        collector = Collector(runner, digest=digest, concurrency=options.concurrency)
        done = await collector.collect(problems, options.out, progress=ProgressLine("collect"))
    right = sum(trace.steps[-1].is_correct for trace in done.traces)
    summary: dict[str, Json] = {
        "out": str(options.out),
        "model": backend.model,
        "problems": len(done.traces),
        "reused": done.reused,
        "tokens": done.tokens,
        "seconds": done.seconds,
        "accuracy_first": sum(trace.steps[0].is_correct for trace in done.traces) / len(done.traces),
        "accuracy_full": right / len(done.traces),
        "unanswered": sum(trace.steps[-1].is_unanswered for trace in done.traces),
        "settings": digest,
    }
    if options.json:
        print_json(summary)
    else:
        say(
            f"{len(done.traces)} problems in {options.out}"
            + (f", {done.reused} of them from before" if done.reused else "")
            + f"; {done.tokens:,} tokens generated in {done.seconds:.1f} s"
        )
    return 0


async def _spend(options: argparse.Namespace, runner: Runner, problems: list[Problem], *, digest: str) -> int:
    """Spend a budget; its ledger and journal stay beside the output, so that a larger budget goes on from there."""
    from justenough.budget import Expectation, policy_named
    from justenough.cli.terminal import SpendingLine
    from justenough.errors import BudgetError
    from justenough.runner.spending import Spender
    from justenough.trace.files import read_traces

    total = arguments.whole_budget(options.budget)
    expectation = None
    if options.fit is not None:
        expectation = Expectation.fit(read_traces(options.fit).traces, max_steps=options.steps)
    elif policy_named(options.policy).expects:
        raise BudgetError(
            f"{options.policy} needs to know what further steps bring",
            hint="--fit TRACES with labelled traces of other problems, or --policy entropy-proportional",
        )
    spender = Spender(
        runner,
        digest=f"{digest}/{options.policy}",
        policy=options.policy,
        expectation=expectation,
        unit=options.unit,
        concurrency=options.concurrency,
    )
    line = SpendingLine(options.unit)
    try:
        done = await spender.spend(problems, options.out, total=total, progress=line)
    finally:
        line.end()
    histogram = [len(problems) - len(done.traces)]
    histogram += [sum(len(trace.steps) == k for trace in done.traces) for k in range(1, options.steps + 1)]
    right = sum(trace.steps[-1].is_correct for trace in done.traces)
    summary: dict[str, Json] = {
        "out": str(options.out),
        "model": runner.backend.model,
        "problems": len(problems),
        "budget": done.total,
        "spent": done.spent,
        "unit": options.unit,
        "policy": options.policy,
        "accuracy": right / len(problems),
        "steps_histogram": list(histogram),
        "cut": done.cut,
        "overrun": done.overrun,
        "seconds": done.seconds,
    }
    if histogram[0]:
        say(
            f"warning: the budget ended before {histogram[0]} of {len(problems)} problems had an answer;"
            " with a larger --budget the same command goes on"
        )
    if done.overrun:
        say(f"warning: the server says it generated {done.overrun:,} tokens beyond the limits it was given")
    if options.json:
        print_json(summary)
    else:
        steps = ", ".join(f"{count} with {number}" for number, count in enumerate(histogram) if count)
        say(
            f"{done.spent:,} of {done.total:,} {options.unit} spent on {len(problems)} problems:"
            f" {percent(right / len(problems))} right; steps: {steps}"
        )
    return 0
