"""`justenough report`."""

from __future__ import annotations

import argparse
import shlex
import sys

from justenough.cli import arguments
from justenough.cli.paths import REPORT
from justenough.cli.terminal import say


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_traces(parser)
    arguments.add_evaluation(parser)
    about = "the report: .html, .md, .txt or .json"
    arguments.add_option(parser, "--out", type=REPORT, required=True, metavar="FILE.html", help=about)


def run(options: argparse.Namespace) -> int:
    """Write the report."""
    from justenough.evaluation import evaluate
    from justenough.report import write_report

    traces, calibration, prices = arguments.evaluation_inputs(options)
    evaluation = evaluate(traces, calibration=calibration, seed=options.seed, prices=prices)
    command = shlex.join(["justenough", *sys.argv[1:]])
    write_report(evaluation, traces, options.out, calibration=calibration, command=command)
    arguments.say_skipped(traces)
    say(f"wrote {options.out}")
    return 0
