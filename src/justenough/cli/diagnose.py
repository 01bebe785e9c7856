"""`justenough diagnose`."""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.terminal import ProgressLine, print_json, say
from justenough.stats.text import percent, points, spread, table

if TYPE_CHECKING:
    from justenough.evaluation.diagnosis import Diagnosis
    from justenough.trace import Trace

EPILOG = """\
verdicts: separates; weak; absent; cannot tell: need N more. Exit code 1 unless the signal separates.
With --model and --tasks the problems are run first, step 1 only. Traces of several models are diagnosed each apart,
in one table; the exit code is then 0 only where all separate.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    arguments.add_traces(parser, optional=True)
    parser.add_argument("--model", metavar="SPEC", help=arguments.SPEC)
    parser.add_argument("--tasks", metavar="NAME|FILE", help="a built-in task or a JSONL file")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N problems (default 300)", default=300)
    parser.add_argument("--steps", type=int, default=1, metavar="K", help="steps to run (default 1)")
    parser.add_argument("--answered-only", action="store_true", help="leave unanswered problems out")
    arguments.add_run(parser)
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Diagnose."""
    from justenough.errors import InputError
    from justenough.evaluation.diagnosis import diagnose

    if (options.traces is None) == (options.model is None):
        raise InputError("diagnose takes TRACES, or --model and --tasks", hint="give one of the two")
    if options.model is not None and options.tasks is None:
        raise InputError("--model needs --tasks", hint="for the embedded model: --tasks arithmetic")
    traces = arguments.load_traces(options) if options.traces is not None else asyncio.run(_run_first(options))
    by_model: dict[str, list[Trace]] = {}
    for trace in traces:
        by_model.setdefault(trace.model, []).append(trace)
    if len(by_model) <= 1:
        made = diagnose(traces, answered_only=options.answered_only)
        if options.json:
            print_json(made.to_json())
        else:
            say(diagnosis_text(made))
        return 0 if made.advisable else 1
    found: dict[str, Diagnosis] = {}
    failed: dict[str, str] = {}
    for model, own in by_model.items():
        try:
            found[model] = diagnose(own, answered_only=options.answered_only)
        except InputError as error:
            # One model of which nothing can be said does not silence the others.
            failed[model] = str(error)
    if options.json:
        told = {model: one.to_json() for model, one in found.items()}
        print_json({"models": {**told, **{model: {"error": reason} for model, reason in failed.items()}}})
    else:
        say(diagnoses_table(found.values()))
        for model, reason in failed.items():
            say(f"{model}: {reason}")
    return 0 if not failed and all(one.advisable for one in found.values()) else 1


async def _run_first(options: argparse.Namespace) -> list[Trace]:
    from justenough.grading import open_grader, read_tasks
    from justenough.runner import Runner
    from justenough.runner.collect import run_all

    problems = read_tasks(options.tasks, limit=options.limit)
    grader = open_grader(options.grader)
    try:
        async with arguments.backends(options) as (backend, cascade):
            runner = Runner(
                backend, arguments.run_settings(options, steps=options.steps), grader=grader, cascade=cascade
            )
            runs = await run_all(
                runner,
                problems,
                concurrency=options.concurrency or backend.concurrency,
                progress=ProgressLine("diagnose"),
            )
    finally:
        grader.close()
    return [run.trace for run in runs]


def diagnosis_text(made: Diagnosis) -> str:
    """The diagnosis for people."""
    found = made.separation
    advice = "a gate is advisable" if made.advisable else "a gate is not advisable"
    lines = [
        f"{made.model}: {found.sentence}; {advice}",
        f"{made.measured} of {made.problems} problems measured, {percent(made.accuracy_first)} right at step 1",
        f"d {spread(found.cohens_d)}, AUROC {spread(found.auroc, digits=3)}, within groups"
        f" {spread(found.within_groups, digits=3)}",
    ]
    if made.extension_gain is not None:
        lines.append(f"extending to the last step changes accuracy by {points(made.extension_gain)} points")
    if made.length_auroc is not None and made.auroc_within_lengths is not None:
        lines.append(
            f"length alone: AUROC {made.length_auroc:.3f}; the signal within length quintiles:"
            f" {made.auroc_within_lengths:.3f}"
        )
    lines += [
        f"defect: {defect.kind} ({defect.problems} of {made.problems}): {defect.detail}" for defect in made.defects
    ]
    return "\n".join(lines)


def diagnoses_table(made: Iterable[Diagnosis]) -> str:
    """Several models' diagnoses, the best separated first."""
    ordered = sorted(made, key=lambda one: -one.separation.cohens_d.value if one.separation.cohens_d else math.inf)
    rows = [
        [
            one.model,
            str(one.measured),
            percent(one.accuracy_first),
            spread(one.separation.cohens_d),
            spread(one.separation.auroc, digits=3),
            spread(one.separation.within_groups, digits=3),
            "–" if one.auroc_within_lengths is None else f"{one.auroc_within_lengths:.3f}",
            one.separation.sentence,
            ", ".join(defect.kind for defect in one.defects) or "–",
        ]
        for one in ordered
    ]
    head = ["model", "measured", "right", "d", "AUROC", "within groups", "within lengths", "verdict", "defects"]
    return table(head, rows)
