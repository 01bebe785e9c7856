"""`justenough evaluate`.

Without --calibration, the gate is the entropy mean of 10 examples, and the figures are means over 200 cross-fitted
draws. With --calibration, the problems that it was fitted on are left out. A saving compares with running all recorded
steps; the change in accuracy is next to it.
"""

from __future__ import annotations

import argparse

from justenough.cli import arguments
from justenough.cli.next_steps import after_evaluation
from justenough.cli.tables import evaluation_text
from justenough.cli.terminal import print_json, show
from justenough.files import write_text


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_traces(parser)
    arguments.add_evaluation(parser)
    option = arguments.add_option
    names = (
        "rules to replay; `deer:tuned` has its settings chosen by labels, `deer@8` looks at every 8th step of a stream,"
        " `deer@1-8` as a live run"
    )
    option(parser, "--rules", default="all", metavar="all|a,b,…", help=names)
    decide = "steps after which the gate may stop (default: as in the calibration)"
    option(parser, "--decide", choices=("first", "every"), help=decide)
    option(parser, "--margin", default=0.01, metavar="P", help="margin of the non-inferiority test")
    option(parser, "--draws", default=200, metavar="N", help="number of calibration draws")
    arguments.add_plot(parser, about="the accuracy of each rule against the tokens that it saves")
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
    if options.plot is not None:
        from justenough.report.plots import rule_points, rules_panel, svg

        title = f"{evaluation.model}: {evaluation.problems} problems"
        write_text(options.plot, svg([rules_panel(rule_points(evaluation), title=title)], label=title))
    if options.json:
        print_json(evaluation.to_json())
    else:
        show(f"{evaluation_text(evaluation)}\n{after_evaluation(evaluation, calibration, options.calibration)}")
    return 0
