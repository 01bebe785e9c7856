"""`justenough calibrate`.

The gate stops if the step's mean token entropy is at or below the threshold. The threshold is fitted on step 1, except
that risk and net are certified for every step with --decide every.

  mean       mean entropy of the right answers, as in the paper (default)
  info       mean + standard deviation x ln(1 + d)
  bayes      the entropy at which the densities of right and wrong answers cross
  universal  scale-invariant
  risk       the largest threshold with a certificate: harm is at most --max-harm with probability --confidence
  net        the same for harm minus rescue, which is the loss of accuracy against all steps
  decider    logistic regression on the history of the signal, with the certificate of risk; needs --decide every.
             It is fitted on half of the problems and certified on the other half

Poolings of the token entropies of a step:

  mean             as in the paper
  answer-span      mean over the tokens of the answer; needs token_texts
  surprisal        mean -log2 p of the chosen tokens; needs logprobs
  last-quarter     mean over the last quarter of the tokens
  worst-window     the largest mean over 16 consecutive tokens
  90th-percentile  90th percentile of the tokens
  maximum          the token with the highest entropy
  sum              the sum; grows with length
  combination      logistic regression on all of these and on length; gives P(wrong); needs 100 more labels

With --ask you do not label everything: you see an answer only if it differs from the last one and the certificate
depends on it. The threshold and its guarantee are the same as with all labels. Your judgements are kept in a file.

If the signal does not separate right from wrong answers, the command refuses (exit code 1), unless --force is given.
`risk` and `net` do not need the separation. They count problems: of several runs of one problem, one is drawn.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.next_steps import after_calibration
from justenough.cli.paths import CALIBRATION, input_file
from justenough.cli.terminal import print_json, say, show
from justenough.stats.text import counted, percent, signed, spread, table

if TYPE_CHECKING:
    from justenough.calibration.calibration import Calibration
    from justenough.calibration.labelled import Labels
    from justenough.trace import Trace


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_traces(parser)
    option, flag = arguments.add_option, arguments.add_flag
    option(parser, "-n", type=int, metavar="N", help="fit on N random traces (default: all)")
    arguments.add_seed(parser, help="seed of the random traces")
    methods = ("mean", "info", "bayes", "universal", "risk", "net", "decider")
    option(parser, "--threshold", choices=methods, default="mean", help="the method, see below")
    level = "level of risk, net and decider, stored in the calibration"
    option(parser, "--max-harm", default=0.01, metavar="P", help=f"{level}: largest harm")
    option(parser, "--confidence", default=0.95, metavar="P", help=f"{level}: probability that it holds")
    decide = (
        "steps after which the gate may stop; for every step, risk and net give a certificate, and the other methods,"
        " which are fitted on step 1, need --force"
    )
    option(parser, "--decide", choices=("first", "every"), default="first", help=decide)
    labels = (
        "graded: use the grading of the traces; agreement: an answer is right if it agrees with the last step"
        " (default: graded if the traces are graded)"
    )
    option(parser, "--labels", choices=("graded", "agreement"), help=labels)
    ask = (
        "risk: ask you only for the labels that the certificate depends on, in the terminal, or as a file to fill in if"
        " the input is no terminal (default: the name of --out with .labels.jsonl)"
    )
    parser.add_argument("--ask", nargs="?", const=Path(), type=input_file, metavar="FILE.jsonl", help=ask)
    grader = "grade the answers again, against the targets or against each other"
    option(parser, "--grader", metavar="NAME", help=grader)
    option(parser, "--pooling", metavar="NAME", help="pooling of the entropies, see below (default: as recorded)")
    option(parser, "--min-tokens", default=0, metavar="N", help="do not stop before N tokens")
    option(parser, "--patience", default=1, metavar="N", help="stop after N confident steps in a row")
    give_up = "decider: also stop where the last answer is unlikely to be right, with the reason hopeless"
    flag(parser, "--give-up", help=give_up)
    flag(parser, "--force", help="calibrate even if gating is not advisable")
    option(parser, "--out", type=CALIBRATION, required=True, metavar="FILE.json", help="the calibration to write")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Fit a threshold and write the calibration."""
    from justenough.calibration.calibration import calibrate
    from justenough.grading import open_grader
    from justenough.grading.regrade import regraded
    from justenough.trace.files import first_of

    traces = arguments.open_traces(options)
    try:
        first_of(traces)
        if options.ask is not None:
            from justenough.cli.asking import ask

            return ask(options, traces)
        labels: Labels = options.labels or _labels(traces, regraded=options.grader is not None)
        with closing(open_grader(options.grader or "exact")) as grader:
            calibration = calibrate(
                traces if options.grader is None else (regraded(trace, grader) for trace in traces),
                method=options.threshold,
                n=options.n,
                seed=options.seed,
                pooling=options.pooling,
                decide=options.decide,
                labels=labels,
                force=options.force,
                min_tokens=options.min_tokens,
                patience=options.patience,
                max_harm=options.max_harm,
                confidence=options.confidence,
                give_up=options.give_up,
            )
    finally:
        arguments.say_skipped(traces)
    calibration.save(options.out)
    for warning in (*calibration.warnings, *filter(None, [calibration.never_stops])):
        say(f"warning: {warning}")
    if options.json:
        print_json(calibration.to_json())
    else:
        show(calibration_text(calibration, options.out))
        show(after_calibration(calibration, options.traces, options.out))
    return 0


def calibration_text(calibration: Calibration, out: Path) -> str:
    """The thresholds, the evidence and the chosen rule of a calibration as text."""
    rows = [
        [name, f"{threshold:.4f}" if threshold is not None else "–", calibration.threshold_outcomes[name]]
        for name, threshold in calibration.thresholds.items()
        if name != "decider"
    ]
    lines = [table(["threshold", calibration.signal.unit, "outcome"], rows)]
    if calibration.max_harm is not None and calibration.confidence is not None:
        levels = f"risk and net at harm {percent(calibration.max_harm)}, confidence {percent(calibration.confidence)}"
        lines.append(levels)
    if calibration.rows is not None and calibration.problems is not None and calibration.problems < calibration.rows:
        lines.append(f"{calibration.rows} runs of {counted(calibration.problems, 'problem')}")
    lines.append(
        f"{counted(calibration.n, 'example')}, {percent(calibration.n_right / calibration.n)} right;"
        f" d {spread(calibration.cohens_d)}, AUROC {spread(calibration.auroc, digits=3)}"
    )
    unit = calibration.signal.unit
    if calibration.decider is not None:
        unit = "probability of harm"
        lines.append("decider, change of the log-odds of harm with one standard deviation of each feature:")
        weights = [[name, signed(weight, digits=2)] for name, weight in calibration.decider.carrying()]
        lines.append(table(["feature", "weight"], weights))
    chosen = "never stop" if calibration.threshold is None else f"stop at or below {calibration.threshold:.4f} {unit}"
    lines.append(f"{out}: {calibration.method}, {chosen}")
    if calibration.give_up is not None:
        lines.append(f"give up at or below {calibration.give_up:.4f} probability that the last answer is right")
    return "\n".join([*lines, *filter(None, [calibration.guarantee])])


def _labels(traces: Iterable[Trace], *, regraded: bool) -> Labels:
    """`graded`, or `agreement` if the traces have answers but no grading."""
    answered = False
    for trace in traces:
        for step in trace.steps:
            has_answer = step.answer is not None or (regraded and step.text != "")
            if step.correct is not None or (regraded and has_answer and trace.target is not None):
                return "graded"
            answered = answered or has_answer
    if not answered:
        return "graded"
    say("no answer is graded: an answer counts as right if it agrees with the last step (--labels agreement)")
    return "agreement"
