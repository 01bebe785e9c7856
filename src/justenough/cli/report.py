"""`justenough report`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from justenough.cli import arguments
from justenough.cli.terminal import say


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_traces(parser)
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="the calibration of the gate")
    parser.add_argument("--seed", type=int, default=0, help="seed of draws and resampling (default 0)")
    parser.add_argument(
        "--prices", type=Path, metavar="FILE", help="JSON file: model → input and output price of a million tokens"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.html", help="the report: .html, .md, .txt or .json"
    )


def run(options: argparse.Namespace) -> int:
    """Write the report."""
    from justenough.calibration.calibration import load_calibration
    from justenough.evaluation import evaluate, load_prices
    from justenough.report import write_report

    calibration = load_calibration(options.calibration) if options.calibration else None
    traces = arguments.open_traces(options)
    prices = load_prices(options.prices) if options.prices else None
    evaluation = evaluate(traces, calibration=calibration, seed=options.seed, prices=prices)
    command = shlex.join(["justenough", *sys.argv[1:]])
    write_report(evaluation, traces, options.out, calibration=calibration, command=command)
    arguments.say_left_out(traces.bad)
    say(f"wrote {options.out}")
    return 0
