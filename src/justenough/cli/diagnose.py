"""`justenough diagnose`.

The verdict is `separates`, `weak`, `absent` or `cannot tell: need N more`. The exit code is 1 unless the signal
separates. With --model and --tasks, the command runs step 1 of the problems first. Traces of several models are
diagnosed separately and shown in one table; the exit code is then 0 only if the signal of every model separates.
"""

from __future__ import annotations

import argparse
import asyncio
import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from justenough.cli import arguments, running
from justenough.cli.next_steps import after_diagnosis
from justenough.cli.paths import name_or_file
from justenough.cli.tables import separation_cells, separation_text
from justenough.cli.terminal import ProgressLine, print_json, show
from justenough.files import write_text
from justenough.stats.text import counted, percent, points, table

if TYPE_CHECKING:
    from justenough.evaluation.diagnosis import Diagnosis
    from justenough.trace import Json, Trace
    from justenough.trace.files import Traces


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_traces(parser, optional=True)
    option = arguments.add_option
    option(parser, "--model", metavar="SPEC", help=arguments.SPEC)
    option(parser, "--tasks", type=name_or_file, metavar="NAME|FILE", help=arguments.TASKS)
    option(parser, "--limit", default=300, metavar="N", help="run the first N problems")
    option(parser, "--steps", default=1, metavar="K", help="steps to run")
    arguments.add_flag(parser, "--answered-only", help="leave out problems without an answer")
    arguments.add_run(parser)
    arguments.add_plot(parser, about="the first answers of each model by their signal")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Diagnose the traces, or problems that are run first."""
    from justenough.errors import InputError
    from justenough.evaluation.diagnosis import diagnose
    from justenough.trace.files import TraceFile, items_of, models_of

    if (options.traces is None) == (options.model is None):
        raise InputError("diagnose needs either TRACES, or --model and --tasks", hint="give one of the two")
    if options.model is not None and options.tasks is None:
        raise InputError("--model needs --tasks", hint="for the embedded model: --tasks arithmetic")
    traces: Traces = arguments.open_traces(options) if options.traces is not None else asyncio.run(_run_first(options))
    # The models come first: the traces of a file are read again for each of them, and never all in memory.
    models = list(dict.fromkeys(model for item in items_of(traces) for model in models_of(item)))
    if isinstance(traces, TraceFile):
        arguments.say_skipped(traces)
        if not models:
            raise InputError(f"{options.traces} has no trace that can be read", hint="see the line above")
    diagnoses: dict[str, Diagnosis] = {}
    failures: dict[str, str] = {}
    for model in models:
        try:
            diagnoses[model] = diagnose(
                (trace for trace in traces if trace.model == model), answered_only=options.answered_only
            )
        except InputError as error:
            # A model that cannot be diagnosed must not hide the others.
            if len(models) == 1:
                raise
            failures[model] = str(error)
    if options.plot is not None:
        write_text(options.plot, _plot(traces, list(diagnoses)))
    alone = next(iter(diagnoses.values())) if len(models) == 1 else None
    if options.json:
        results: dict[str, Json] = {model: diagnosis.to_json() for model, diagnosis in diagnoses.items()}
        results |= {model: {"error": reason} for model, reason in failures.items()}
        print_json({"models": results} if alone is None else alone.to_json())
    elif alone is not None:
        show(f"{diagnosis_text(alone)}\n{after_diagnosis(alone, options.traces)}")
    else:
        reasons = [f"{model}: {reason}" for model, reason in failures.items()]
        step = "next: calibrate each model whose signal separates on a file of its own traces"
        show("\n".join([diagnoses_table(diagnoses.values()), *reasons, step]))
    return 0 if not failures and all(diagnosis.advisable for diagnosis in diagnoses.values()) else 1


async def _run_first(options: argparse.Namespace) -> list[Trace]:
    from justenough.grading import open_grader, read_tasks
    from justenough.runner import Runner
    from justenough.runner.collect import run_all

    problems = read_tasks(options.tasks, limit=options.limit)
    running.warn_of_idle(options)
    settings = running.run_settings(options, steps=options.steps)
    with closing(open_grader(options.grader)) as grader:
        async with running.backends(options) as (backend, cascade):
            runner = Runner(backend, settings, grader=grader, cascade=cascade)
            concurrency = options.concurrency or backend.concurrency
            runs = await run_all(runner, problems, concurrency=concurrency, progress=ProgressLine("diagnose"))
    return [run.trace for run in runs]


def _plot(traces: Traces, models: Sequence[str]) -> str:
    import numpy as np

    from justenough.report.data import histogram, scale
    from justenough.report.plots import signal_panel, svg
    from justenough.trace.building import columns_of

    panels = []
    for model in models:
        columns = columns_of((trace for trace in traces if trace.model == model), measure="first")
        first, unit = columns.first, columns.signal.unit
        usable = columns.graded[first] & np.isfinite(columns.bits[first])
        bits, right = columns.bits[first][usable], columns.right[first][usable]
        axis = scale(bits)
        quantity = "entropy of step 1, bits" if unit == "bits" else f"{unit} of step 1"
        panels.append(signal_panel(histogram(bits, right, axis), axis, title=model, quantity=quantity))
    return svg(panels, label="first answers by their signal")


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """The diagnosis as text."""
    separation = diagnosis.separation
    advice = "a gate is advisable" if diagnosis.advisable else "a gate is not advisable"
    lines = [
        f"{diagnosis.model}: {separation.sentence}; {advice}",
        f"{diagnosis.measured} of {counted(diagnosis.problems, 'problem')} measured,"
        f" {percent(diagnosis.accuracy_first)} right at step 1",
        separation_text(separation),
        *filter(None, [separation.shortfall]),
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

    def distance(diagnosis: Diagnosis) -> float:
        d = diagnosis.separation.cohens_d
        return d.value if d is not None else -math.inf

    rows = [
        [
            diagnosis.model,
            str(diagnosis.measured),
            percent(diagnosis.accuracy_first),
            *separation_cells(diagnosis.separation),
            "–" if diagnosis.auroc_within_lengths is None else f"{diagnosis.auroc_within_lengths:.3f}",
            diagnosis.separation.sentence,
            ", ".join(defect.kind for defect in diagnosis.defects) or "–",
        ]
        for diagnosis in sorted(diagnoses, key=distance, reverse=True)
    ]
    head = ["model", "measured", "right", "d", "AUROC", "within groups", "within lengths", "verdict", "defects"]
    return table(head, rows)
