"""`justenough collect`.

Each line of a task file in JSON Lines is {"id": …, "problem": …, "target": …, "family": …?, "group": …?}. CSV and
Parquet files have the same columns. `question` and `answer` may replace `problem` and `target`; without an id, the
number of the row is the id. In JSON Lines and Parquet, a list of targets gives several right answers.

Each finished step is saved at once in OUT.part.jsonl. After a stop, the same command resumes.

Without --shape, a served model (openai, llamacpp, hf) is asked the first problem: a thought, in tags or in a field of
its own, gives the streaming shape with the format of that thought; otherwise the shape is sequential.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Final

from justenough.cli import arguments, running
from justenough.cli.paths import COLLECTION, input_file, name_or_file
from justenough.cli.terminal import ProgressLine, print_json, say, show
from justenough.stats.text import counted, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from justenough.grading import Grader, Problem
    from justenough.rules.live import LiveRule
    from justenough.runner import RunSettings
    from justenough.trace import Json

SERVED: Final = ("openai", "llamacpp", "hf")
"""Models that are tried: those that applications ask for one answer."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    from justenough.grading.tasks import built_in_tasks

    tasks = built_in_tasks()
    width = max(map(len, tasks), default=0)
    rows = [f"  {name:{width}}  {task.summary}" for name, task in tasks.items()]
    parser.epilog = "\n".join([parser.epilog or "", "built-in tasks:", *rows])
    shape = "streaming for a served model that thinks before it answers, otherwise sequential"
    arguments.add_model(parser, shape=shape)
    option = arguments.add_option
    option(parser, "--tasks", type=name_or_file, metavar="NAME|FILE", required=True, help=arguments.TASKS)
    limit = "run the first N problems (default: all; 600 of a built-in task)"
    option(parser, "--limit", type=int, metavar="N", help=limit)
    steps = "steps of each problem (default: 4; the whole thought in the streaming shape)"
    option(parser, "--steps", type=int, metavar="K", help=steps)
    gate = "stop each problem by the gate of this calibration (default: record all steps)"
    option(parser, "--gate", type=input_file, metavar="CALIBRATION", help=gate)
    arguments.add_rule(parser)
    option(parser, "--out", type=COLLECTION, required=True, metavar="FILE", help="FILE.parquet or FILE.jsonl")
    group = parser.add_argument_group("budget (sequential steps only)")
    option(group, "--budget", metavar="N", help="spend at most N completion tokens, or calls, in total")
    arguments.add_unit(group)
    option(group, "--policy", default="greedy", metavar="NAME", help="which problems get further steps")
    fit = "labelled traces of other problems, to estimate the gain of a step"
    option(group, "--fit", type=input_file, metavar="TRACES", help=fit)
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the problems and write their traces."""
    from justenough.errors import InputError
    from justenough.files import is_stdout, require_writable
    from justenough.grading import open_grader, read_tasks

    if is_stdout(options.out):
        raise InputError("collect needs a file, because it resumes from it", hint="--out FILE.parquet")
    rule = arguments.live_rule(options)
    if (options.gate, rule, options.budget).count(None) < 2:
        raise InputError("more than one of --gate, --rule and --budget decides which steps are taken", hint="give one")
    if options.budget is None and (options.fit is not None or (options.policy, options.unit) != ("greedy", "tokens")):
        raise InputError("--policy, --fit and --unit divide a budget", hint="give --budget N, or leave them out")
    problems = read_tasks(options.tasks, limit=options.limit)
    running.check_run(options, model=options.model, steps=options.steps)
    require_writable(options.out.parent)
    if options.budget is None:
        return asyncio.run(_collect(options, problems, rule))
    options.shape = options.shape or "sequential"
    options.steps = running.STEPS if options.steps is None else options.steps
    running.warn_of_idle(options)
    settings = running.run_settings(options, steps=options.steps)
    with closing(open_grader(options.grader)) as grader:
        return asyncio.run(_spend(options, problems, settings, grader))


async def choose_shape(options: argparse.Namespace, problems: Sequence[Problem]) -> None:
    """Set the shape, the format of the thought and the server's model where they are open, and say why.

    A run that goes on keeps the shape and the format that it began with.
    """
    from justenough.calibration.calibration import load_calibration
    from justenough.runner.journal import begun
    from justenough.runner.trial import try_thought
    from justenough.runner.walk import require_readable
    from justenough.signal.thought import name_of, thought_format

    if options.shape is not None:
        return
    options.shape = "sequential"
    if options.gate is not None:
        options.shape = load_calibration(options.gate).shape
        return
    if options.model.partition(":")[0] not in SERVED or options.extend != "refine":
        return
    known = None if options.thought is None else thought_format(options.thought)
    async with running.backends(options) as (backend, _):
        if options.model.partition(":")[0] == "openai":
            # The model is opened once more, and must be the same one then.
            options.model = f"openai:{backend.model}"
        own, thought = backend.prompts, known
        if (earlier := begun(options.out)) is not None:
            options.shape, thought = earlier.shape, (earlier.prompts or own).thought
            reason = f"as in {options.out}, which this command goes on with"
        else:
            problem = require_readable(backend, problems) or problems[0]
            trial = await try_thought(backend, problem, running.run_settings(options, steps=1), known=known)
            options.shape, thought = trial.shape, trial.thought
            reason = f"seen in {trial.tokens} tokens of a trial"
    if options.shape == "sequential" or thought is None:
        say(f"shape: sequential, because the model answers without a thought ({reason})")
        return
    if known is None and (thought.tags != own.thought.tags or (thought.opened and not own.thought.opened)):
        options.thought = name_of(thought)
        own = own.with_thought(thought)
    say(
        f"shape: streaming, because the model thinks in {' … '.join(thought.tags)} before it answers ({reason});"
        f" a thought that is stopped is closed with {own.close!r}"
    )


async def _collect(options: argparse.Namespace, problems: list[Problem], rule: LiveRule | None) -> int:
    from justenough.backends.layers.backend import LayerExitBackend
    from justenough.backends.protocol import CONTEXT, REFUSED
    from justenough.calibration.calibration import load_calibration
    from justenough.errors import InputError
    from justenough.gate import GateSettings
    from justenough.runner import signal_of
    from justenough.runner.collect import collect

    await choose_shape(options, problems)
    running.warn_of_idle(options)
    settings = running.run_settings(options, steps=options.steps)
    gate = None
    async with running.backends(options) as (backend, cascade):
        task = problems[0].task
        scope = backend.scope if isinstance(backend, LayerExitBackend) else None
        if scope is not None and settings.shape != "sequential":
            hint = "--shape sequential, or --leave MEASURE@NUMBER"
            raise InputError("the threshold is certified only for sequential steps", hint=hint)
        if scope is not None and scope.task != task:
            say(f"warning: the threshold is certified for the task {scope.task}, not for {task}")
        if options.gate is not None:
            calibration = load_calibration(options.gate)
            calibration.check_run(backend.model, signal_of(backend, settings), settings.shape)
            gate = GateSettings.of(calibration)
        result = await collect(
            problems,
            options.out,
            backend=backend,
            settings=settings,
            grader=options.grader,
            gate=gate,
            rule=rule,
            cascade=cascade,
            concurrency=options.concurrency,
            progress=ProgressLine("collect"),
        )
    not_begun = {
        CONTEXT: "conversations were longer than the model's context",
        REFUSED: "problems are outside the language of the model, and count as unanswered",
    }
    for finish, what in not_begun.items():
        if number := sum(trace.steps[-1].finish == finish for trace in result.traces):
            say(f"warning: {number} of {len(result.traces)} {what}")
    right = sum(trace.steps[-1].is_correct for trace in result.traces)
    # The first step of a stream that may be stopped has an answer only if a rule looked at it.
    unknown = settings.shape == "streaming" and (rule is not None or gate is not None)
    first = None if unknown else sum(trace.steps[0].is_correct for trace in result.traces) / len(result.traces)
    summary: dict[str, Json] = {
        "out": str(options.out),
        "model": result.traces[0].model,
        "shape": settings.shape,
        "problems": len(result.traces),
        "reused": result.reused,
        "tokens": result.tokens,
        "seconds": result.seconds,
        "accuracy_first": first,
        "accuracy_full": right / len(result.traces),
        "unanswered": sum(trace.steps[-1].is_unanswered for trace in result.traces),
        "settings": result.traces[0].settings,
    }
    if options.json:
        print_json(summary)
    else:
        show(
            f"{counted(len(result.traces), 'problem')} in {options.out}"
            + (f", {result.reused} of them from an earlier run" if result.reused else "")
            + f"; {counted(result.tokens, 'token')} generated in {result.seconds:.1f} s"
        )
    return 0


async def _spend(options: argparse.Namespace, problems: list[Problem], settings: RunSettings, grader: Grader) -> int:
    """Run under a budget. The ledger and the journal stay next to the output; a larger budget continues from them."""
    from justenough.budget import Expectation
    from justenough.cli.terminal import SpendingLine
    from justenough.runner import Runner
    from justenough.runner.collect import settings_digest
    from justenough.runner.spending import Spender
    from justenough.trace.files import read_traces

    total = arguments.whole_budget(options.budget)
    expectation = None
    if options.fit is not None:
        expectation = Expectation.fit(read_traces(options.fit).traces, max_steps=options.steps)
    async with running.backends(options) as (backend, cascade):
        digest = settings_digest(backend, settings, grader=options.grader, cascade=cascade)
        spender = Spender(
            Runner(backend, settings, grader=grader, cascade=cascade),
            digest=f"{digest}/{options.policy}",
            policy=options.policy,
            expectation=expectation,
            unit=options.unit,
            concurrency=options.concurrency,
        )
        with closing(SpendingLine(options.unit)) as line:
            result = await spender.spend(problems, options.out, total=total, progress=line)
    histogram = [len(problems) - len(result.traces)]
    histogram += [sum(len(trace.steps) == k for trace in result.traces) for k in range(1, options.steps + 1)]
    right = sum(trace.steps[-1].is_correct for trace in result.traces)
    summary: dict[str, Json] = {
        "out": str(options.out),
        "model": backend.model,
        "problems": len(problems),
        "budget": result.total,
        "spent": result.spent,
        "unit": options.unit,
        "policy": options.policy,
        "accuracy": right / len(problems),
        "steps_histogram": list(histogram),
        "cut": result.cut,
        "overrun": result.overrun,
        "seconds": result.seconds,
    }
    if histogram[0]:
        say(
            f"warning: the budget ended before {histogram[0]} of {len(problems)} problems had an answer;"
            " run the same command with a larger --budget to continue"
        )
    if result.overrun:
        say(f"warning: the server reports {counted(result.overrun, 'token')} more than the limits of the requests")
    if options.json:
        print_json(summary)
    else:
        steps = ", ".join(f"{count} with {number}" for number, count in enumerate(histogram) if count)
        show(
            f"{result.spent:,} of {result.total:,} {options.unit} spent on {counted(len(problems), 'problem')}:"
            f" {percent(right / len(problems))} right; steps: {steps}"
        )
    return 0
