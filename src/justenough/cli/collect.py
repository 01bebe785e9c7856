"""`justenough collect`."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.terminal import ProgressLine, print_json, say, show
from justenough.stats.text import percent

if TYPE_CHECKING:
    from justenough.grading import Grader, Problem
    from justenough.runner import RunSettings
    from justenough.trace import Json

EPILOG = """\
built-in tasks:
{tasks}

A task file is JSONL: {{"id": …, "problem": …, "target": …, "family": …?, "group": …?}}

Each finished step is saved at once in OUT.part.jsonl. After a stop, the same command resumes.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from justenough.grading.tasks import built_in_tasks

    tasks = built_in_tasks()
    width = max(map(len, tasks), default=0)
    parser.epilog = EPILOG.format(tasks="\n".join(f"  {name:{width}}  {task.summary}" for name, task in tasks.items()))
    arguments.add_model(parser)
    parser.add_argument("--tasks", metavar="NAME|FILE", required=True, help="a built-in task or a JSONL file")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="run the first N problems (default: all; 600 of a built-in task)"
    )
    parser.add_argument("--steps", type=int, default=4, metavar="K", help="steps of each problem (default 4)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.parquet or FILE.jsonl")
    group = parser.add_argument_group("budget (sequential steps only)")
    group.add_argument("--budget", metavar="N", help="spend at most N completion tokens, or calls, in total")
    arguments.add_unit(group)
    group.add_argument(
        "--policy", default="greedy", metavar="NAME", help="which problems get further steps (default greedy)"
    )
    group.add_argument(
        "--fit", type=Path, metavar="TRACES", help="labelled traces of other problems, to estimate the gain of a step"
    )
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the problems and write their traces."""
    from justenough.grading import open_grader, read_tasks

    problems = read_tasks(options.tasks, limit=options.limit)
    settings = arguments.run_settings(options, steps=options.steps)
    if options.budget is None:
        return asyncio.run(_collect(options, problems, settings))
    grader = open_grader(options.grader)
    try:
        return asyncio.run(_spend(options, problems, settings, grader))
    finally:
        grader.close()


async def _collect(options: argparse.Namespace, problems: list[Problem], settings: RunSettings) -> int:
    from justenough.backends.protocol import CONTEXT
    from justenough.runner.collect import collect

    async with arguments.backends(options) as (backend, cascade):
        done = await collect(
            problems,
            options.out,
            backend=backend,
            settings=settings,
            grader=options.grader,
            cascade=cascade,
            concurrency=options.concurrency,
            progress=ProgressLine("collect"),
        )
    if overlong := sum(trace.steps[-1].finish == CONTEXT for trace in done.traces):
        say(f"warning: {overlong} of {len(done.traces)} conversations were longer than the model's context")
    right = sum(trace.steps[-1].is_correct for trace in done.traces)
    summary: dict[str, Json] = {
        "out": str(options.out),
        "model": done.traces[0].model,
        "problems": len(done.traces),
        "reused": done.reused,
        "tokens": done.tokens,
        "seconds": done.seconds,
        "accuracy_first": sum(trace.steps[0].is_correct for trace in done.traces) / len(done.traces),
        "accuracy_full": right / len(done.traces),
        "unanswered": sum(trace.steps[-1].is_unanswered for trace in done.traces),
        "settings": done.traces[0].settings,
    }
    if options.json:
        print_json(summary)
    else:
        show(
            f"{len(done.traces)} problems in {options.out}"
            + (f", {done.reused} of them from an earlier run" if done.reused else "")
            + f"; {done.tokens:,} tokens generated in {done.seconds:.1f} s"
        )
    return 0


async def _spend(options: argparse.Namespace, problems: list[Problem], settings: RunSettings, grader: Grader) -> int:
    """Run under a budget. The ledger and the journal stay next to the output; a larger budget continues from them."""
    from justenough.budget import Expectation, policy_named
    from justenough.cli.terminal import SpendingLine
    from justenough.errors import BudgetError
    from justenough.runner import Runner
    from justenough.runner.collect import settings_digest
    from justenough.runner.spending import Spender
    from justenough.trace.files import read_traces

    total = arguments.whole_budget(options.budget)
    expectation = None
    if options.fit is not None:
        expectation = Expectation.fit(read_traces(options.fit).traces, max_steps=options.steps)
    elif policy_named(options.policy).expects:
        raise BudgetError(
            f"the policy {options.policy} needs an estimate of what further steps gain",
            hint="give --fit TRACES with labelled traces of other problems, or --policy entropy-proportional",
        )
    line = SpendingLine(options.unit)
    async with arguments.backends(options) as (backend, cascade):
        digest = settings_digest(backend, settings, grader=options.grader, cascade=cascade)
        spender = Spender(
            Runner(backend, settings, grader=grader, cascade=cascade),
            digest=f"{digest}/{options.policy}",
            policy=options.policy,
            expectation=expectation,
            unit=options.unit,
            concurrency=options.concurrency,
        )
        try:
            done = await spender.spend(problems, options.out, total=total, progress=line)
        finally:
            line.end()
    histogram = [len(problems) - len(done.traces)]
    histogram += [sum(len(trace.steps) == k for trace in done.traces) for k in range(1, options.steps + 1)]
    right = sum(trace.steps[-1].is_correct for trace in done.traces)
    summary: dict[str, Json] = {
        "out": str(options.out),
        "model": backend.model,
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
            " run the same command with a larger --budget to continue"
        )
    if done.overrun:
        say(f"warning: the server reports {done.overrun:,} tokens more than the limits of the requests")
    if options.json:
        print_json(summary)
    else:
        steps = ", ".join(f"{count} with {number}" for number, count in enumerate(histogram) if count)
        show(
            f"{done.spent:,} of {done.total:,} {options.unit} spent on {len(problems)} problems:"
            f" {percent(right / len(problems))} right; steps: {steps}"
        )
    return 0
