"""`justenough evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from justenough.cli import arguments
from justenough.cli.tables import evaluation_text
from justenough.cli.terminal import print_json, say

EPILOG = """\
Without --calibration: the entropy mean of 10 examples, over 200 cross-fitted draws. With one, the problems that it was
fitted on are left out. A saving is against running all recorded steps; the change in accuracy stands beside it.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    arguments.add_traces(parser)
    parser.add_argument("--calibration", type=Path, metavar="FILE")
    parser.add_argument("--rules", default="all", metavar="all|a,b,…", help="rules to replay (default all)")
    parser.add_argument(
        "--decide", choices=("first", "every"), help="when the gate may stop (default: the calibration's)"
    )
    parser.add_argument("--margin", type=float, default=0.01, help="of the non-inferiority test (default 0.01)")
    parser.add_argument("--draws", type=int, default=200, metavar="N", help="calibration draws (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of draws and resampling (default 0)")
    parser.add_argument("--prices", type=Path, metavar="FILE", help="JSON: model → input, output per million tokens")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Evaluate."""
    from justenough.calibration.calibration import load_calibration
    from justenough.evaluation import evaluate, load_prices
    from justenough.trace.stream import TraceFile

    calibration = load_calibration(options.calibration) if options.calibration else None
    traces = arguments.open_traces(options)
    made = evaluate(
        traces,
        calibration=calibration,
        rules=options.rules,
        decide=options.decide,
        margin=options.margin,
        draws=options.draws,
        seed=options.seed,
        prices=load_prices(options.prices) if options.prices else None,
    )
    if isinstance(traces, TraceFile):
        arguments.say_left_out(traces.bad)
    if options.json:
        print_json(made.to_json())
    else:
        say(evaluation_text(made))
    return 0
