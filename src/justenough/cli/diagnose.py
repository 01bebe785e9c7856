"""`justenough diagnose`."""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.terminal import ProgressLine, print_json, show
from justenough.stats.text import percent, points, spread, table

if TYPE_CHECKING:
    from justenough.evaluation.diagnosis import Diagnosis
    from justenough.trace import Json, Trace

EPILOG = """\
The verdict is `separates`, `weak`, `absent` or `cannot tell: need N more`. The exit code is 1 unless the signal
separates. With --model and --tasks, the command runs step 1 of the problems first. Traces of several models are
diagnosed separately and shown in one table; the exit code is then 0 only if the signal of every model separates.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.epilog = EPILOG
    arguments.add_traces(parser, optional=True)
    parser.add_argument("--model", metavar="SPEC", help=arguments.SPEC)
    parser.add_argument("--tasks", metavar="NAME|FILE", help="a built-in task or a JSONL file")
    parser.add_argument("--limit", type=int, metavar="N", help="run the first N problems (default 300)", default=300)
    parser.add_argument("--steps", type=int, default=1, metavar="K", help="steps to run (default 1)")
    parser.add_argument("--answered-only", action="store_true", help="leave out problems without an answer")
    arguments.add_run(parser)
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Diagnose the traces, or problems that are run first."""
    from justenough.errors import InputError
    from justenough.evaluation.diagnosis import diagnose

    if (options.traces is None) == (options.model is None):
        raise InputError("diagnose needs either TRACES, or --model and --tasks", hint="give one of the two")
    if options.model is not None and options.tasks is None:
        raise InputError("--model needs --tasks", hint="for the embedded model: --tasks arithmetic")
    traces = arguments.load_traces(options) if options.traces is not None else asyncio.run(_run_first(options))
    by_model: dict[str, list[Trace]] = {}
    for trace in traces:
        by_model.setdefault(trace.model, []).append(trace)
    if len(by_model) <= 1:
        diagnosis = diagnose(traces, answered_only=options.answered_only)
        if options.json:
            print_json(diagnosis.to_json())
        else:
            show(diagnosis_text(diagnosis))
        return 0 if diagnosis.advisable else 1
    diagnoses: dict[str, Diagnosis] = {}
    failed: dict[str, str] = {}
    for model, own in by_model.items():
        try:
            diagnoses[model] = diagnose(own, answered_only=options.answered_only)
        except InputError as error:
            # A model that cannot be diagnosed must not hide the others.
            failed[model] = str(error)
    if options.json:
        models: dict[str, Json] = {model: one.to_json() for model, one in diagnoses.items()}
        print_json({"models": models | {model: {"error": reason} for model, reason in failed.items()}})
    else:
        show(diagnoses_table(diagnoses.values()))
        for model, reason in failed.items():
            show(f"{model}: {reason}")
    return 0 if not failed and all(one.advisable for one in diagnoses.values()) else 1


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


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """The diagnosis as text."""
    separation = diagnosis.separation
    advice = "a gate is advisable" if diagnosis.advisable else "a gate is not advisable"
    lines = [
        f"{diagnosis.model}: {separation.sentence}; {advice}",
        f"{diagnosis.measured} of {diagnosis.problems} problems measured,"
        f" {percent(diagnosis.accuracy_first)} right at step 1",
        f"d {spread(separation.cohens_d)}, AUROC {spread(separation.auroc, digits=3)}, within groups"
        f" {spread(separation.within_groups, digits=3)}",
    ]
    if diagnosis.extension_gain is not None:
        lines.append(f"running all steps changes the accuracy by {points(diagnosis.extension_gain)} points")
    if diagnosis.length_auroc is not None and diagnosis.auroc_within_lengths is not None:
        lines.append(
            f"AUROC of the length alone {diagnosis.length_auroc:.3f}; of the signal within length quintiles"
            f" {diagnosis.auroc_within_lengths:.3f}"
        )
    lines += [
        f"defect: {defect.kind} ({defect.problems} of {diagnosis.problems}): {defect.detail}"
        for defect in diagnosis.defects
    ]
    return "\n".join(lines)


def diagnoses_table(diagnoses: Iterable[Diagnosis]) -> str:
    """One row for each model, the best separation first."""
    ordered = sorted(diagnoses, key=lambda one: -one.separation.cohens_d.value if one.separation.cohens_d else math.inf)
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
