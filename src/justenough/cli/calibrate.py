"""`justenough calibrate`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.terminal import print_json, say
from justenough.stats.text import percent, spread, table

if TYPE_CHECKING:
    from justenough.calibration.labelled import Labels
    from justenough.trace import Trace

EPILOG = """\
The threshold is fitted on step 1: stop where its mean token entropy is at or below it.

  mean       mean entropy of right answers: the paper's, default
  info       mean + deviation x ln(1 + d)
  bayes      where the two class densities cross
  universal  scale-invariant
  risk       the largest threshold with at most --max-harm, certified at --confidence
  net        the same of harm less rescue: the accuracy lost against all steps

Poolings of a step's token entropies:

  mean             the paper's
  answer-span      mean over the answer's own tokens; needs token_texts
  surprisal        mean -log2 p of the chosen tokens; needs logprobs
  last-quarter     mean over the last quarter of the tokens
  worst-window     the largest mean over 16 tokens in a row
  90th-percentile  of the tokens
  maximum          the least sure token
  sum              grows with length
  combination      logistic over all of these and length: P(wrong); takes 100 labels beside the
                   threshold's

Refused (exit 1) where the signal does not separate right from wrong, unless --force; `risk` and `net` need no
such verdict.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    arguments.add_traces(parser)
    parser.add_argument("-n", type=int, metavar="N", help="fit on N traces drawn by --seed (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--threshold", choices=("mean", "info", "bayes", "universal", "risk", "net"), default="mean")
    parser.add_argument("--max-harm", type=float, default=0.01, metavar="P", help="for risk and net (default 0.01)")
    parser.add_argument("--confidence", type=float, default=0.95, metavar="P", help="for risk and net (default 0.95)")
    parser.add_argument("--decide", choices=("first", "every"), default="first", help="when (default first)")
    parser.add_argument(
        "--labels",
        choices=("graded", "agreement"),
        help="agreement: label-free, with the last step's answer (default: graded where the traces are)",
    )
    parser.add_argument(
        "--grader", metavar="NAME", help="judge the answers anew: against targets where there are any, or each other"
    )
    parser.add_argument("--pooling", metavar="NAME", help="of the entropies, see below (default: as recorded)")
    parser.add_argument("--min-tokens", type=int, default=0, metavar="N", help="no stop before N tokens")
    parser.add_argument("--force", action="store_true", help="calibrate although gating is not advisable")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Calibrate."""
    from justenough.calibration.calibration import calibrate
    from justenough.calibration.thresholds import METHODS, Method, NetControlled, RiskControlled
    from justenough.files import write_text
    from justenough.trace.stream import TraceFile, first_of

    traces = arguments.open_traces(options)
    method: Method = METHODS[options.threshold]()
    if options.threshold == "risk":
        method = RiskControlled(max_harm=options.max_harm, confidence=options.confidence)
    elif options.threshold == "net":
        method = NetControlled(max_loss=options.max_harm, confidence=options.confidence)
    try:
        first_of(traces)
        labels: Labels = options.labels or _labels(traces, judged=options.grader is not None)
        with _judged(traces, options.grader) as judged:
            made = calibrate(
                judged,
                method=method,
                n=options.n,
                seed=options.seed,
                pooling=options.pooling,
                decide=options.decide,
                labels=labels,
                force=options.force,
                min_tokens=options.min_tokens,
            )
    finally:
        if isinstance(traces, TraceFile):
            arguments.say_left_out(traces.bad)
    write_text(options.out, made.dumps())
    for warning in made.warnings:
        say(f"warning: {warning}")
    if options.json:
        print_json(made.to_json())
        return 0
    rows = [
        [name, f"{threshold:.4f}" if threshold is not None else "–", made.threshold_outcomes[name]]
        for name, threshold in made.thresholds.items()
    ]
    say(table(["threshold", made.signal.unit, "outcome"], rows))
    say(
        f"{made.n} examples, {percent(made.n_right / made.n)} right; d {spread(made.cohens_d)}, "
        f"AUROC {spread(made.auroc, digits=3)}"
    )
    chosen = "never stop" if made.threshold is None else f"stop at or below {made.threshold:.4f} {made.signal.unit}"
    say(f"{options.out}: {made.method}, {chosen}")
    if made.guarantee:
        say(made.guarantee)
    return 0


@contextmanager
def _judged(traces: Iterable[Trace], grader: str | None) -> Iterator[Iterable[Trace]]:
    """The traces as a grader sees them, where one is named; it is closed at the end of the block."""
    if grader is None:
        yield traces
        return
    from justenough.grading import open_grader
    from justenough.grading.regrade import regraded

    opened = open_grader(grader)
    try:
        yield (regraded(trace, opened) for trace in traces)
    finally:
        opened.close()


def _labels(traces: Iterable[Trace], *, judged: bool) -> Labels:
    """Graded, unless nothing is or will be by a grader: then the last step has to stand in for the truth."""
    answered = False
    for trace in traces:
        for step in trace.steps:
            given = step.answer is not None or (judged and step.text != "")
            if step.correct is not None or (judged and given and trace.target is not None):
                return "graded"
            answered = answered or given
    if not answered:
        return "graded"
    say("no answer is graded: label-free, by agreement with the last step (--labels graded insists)")
    return "agreement"
