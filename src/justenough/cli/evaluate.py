"""`justenough evaluate`."""

from __future__ import annotations

import argparse

from justenough.cli import arguments
from justenough.cli.tables import evaluation_text
from justenough.cli.terminal import print_json, show

EPILOG = """\
Without --calibration, the gate is the entropy mean of 10 examples, and the figures are means over 200 cross-fitted
draws. With --calibration, the problems that it was fitted on are left out. A saving compares with running all recorded
steps; the change in accuracy is next to it.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.epilog = EPILOG
    arguments.add_traces(parser)
    arguments.add_evaluation(parser)
    parser.add_argument(
        "--rules",
        default="all",
        metavar="all|a,b,…",
        help="rules to replay (default all); `deer:tuned` has its settings chosen by labels",
    )
    parser.add_argument(
        "--decide",
        choices=("first", "every"),
        help="steps after which the gate may stop (default: as in the calibration)",
    )
    parser.add_argument(
        "--margin", type=float, default=0.01, metavar="P", help="margin of the non-inferiority test (default 0.01)"
    )
    parser.add_argument("--draws", type=int, default=200, metavar="N", help="number of calibration draws (default 200)")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Replay the rules and show their figures."""
    from justenough.evaluation import evaluate

    traces, calibration, prices = arguments.evaluation_inputs(options)
    evaluation = evaluate(
        traces,
        calibration=calibration,
        rules=options.rules,
        decide=options.decide,
        margin=options.margin,
        draws=options.draws,
        seed=options.seed,
        prices=prices,
    )
    arguments.say_skipped(traces)
    if options.json:
        print_json(evaluation.to_json())
    else:
        show(evaluation_text(evaluation))
    return 0
