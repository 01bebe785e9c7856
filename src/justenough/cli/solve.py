"""`justenough solve`.

The embedded model solves products (47*36), sums (41+93-28) and remainders (5821%7), and has its own calibration. Other
models stop early only with --calibration. In a terminal, tokens with a higher entropy have a redder background.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from justenough.cli import arguments, running
from justenough.cli.paths import input_file
from justenough.cli.terminal import print_json, safe, shade, show, write
from justenough.stats.text import counted, percent

if TYPE_CHECKING:
    from justenough.calibration.calibration import Calibration
    from justenough.gate import Decision
    from justenough.runner import Run
    from justenough.trace import Json, Step, Token, Trace


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("problem", metavar="PROBLEM", help="the text of the problem")
    arguments.add_model(parser, default="embedded", shape="the calibration's, otherwise sequential")
    option = arguments.add_option
    calibration = "the calibration of the gate (default: the calibration of the embedded model)"
    option(parser, "--calibration", type=input_file, metavar="FILE", help=calibration)
    arguments.add_rule(parser)
    steps = "largest number of steps (default: 4; the whole thought in the streaming shape)"
    option(parser, "--max-steps", type=int, metavar="K", help=steps)
    option(parser, "--target", metavar="ANSWER", help="the right answer, to grade the answer")
    arguments.add_flag(parser, "--verify", help="also run all steps, to show what stopping saves and costs")
    option(parser, "--budget", metavar="N", help="generate at most N tokens, or make at most N calls, in total")
    arguments.add_unit(parser)
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Solve the problem and show the steps and the answer."""
    return asyncio.run(_solve(options))


async def _solve(options: argparse.Namespace) -> int:
    from justenough.budget import Ledger
    from justenough.errors import InputError
    from justenough.gate import GateSettings
    from justenough.grading import Problem, open_grader
    from justenough.runner import Runner

    if options.verify and options.budget is not None:
        raise InputError("--verify runs all steps, which a --budget does not allow", hint="give one of the two")
    rule = arguments.live_rule(options)
    if rule is not None and options.calibration is not None:
        raise InputError("both --rule and --calibration decide when to stop", hint="give one of the two")
    calibration = None if rule is not None else _calibration(options)
    options.shape = options.shape or (calibration.shape if calibration is not None else "sequential")
    settings = running.run_settings(options, steps=options.max_steps)
    running.warn_of_idle(options)
    problem = Problem(id=options.problem, problem=options.problem, target=options.target)
    gate = full = ledger = None
    if options.budget is not None:
        ledger = Ledger(arguments.whole_budget(options.budget), unit=options.unit)
    with closing(open_grader(options.grader)) as grader, closing(_Printer()) as printer:
        async with running.backends(options) as (backend, cascade):
            backend.read(problem.problem)
            plain = Runner(backend, settings, grader=grader, cascade=cascade)
            if calibration is not None:
                calibration.check_run(backend.model, plain.signal, settings.shape)
                gate = GateSettings.of(calibration)
            observer = None if options.json else printer
            gated = Runner(
                backend,
                settings,
                grader=grader,
                gate=gate,
                rule=rule,
                cascade=cascade,
                ledger=ledger,
                observer=observer,
            )
            run = await gated.run(problem)
            if options.verify:
                full = await plain.run(problem)
    if options.json:
        print_json(_json(run, full))
    else:
        _print_summary(run, full)
    return 0


def _calibration(options: argparse.Namespace) -> Calibration | None:
    from justenough.calibration.calibration import load_calibration

    if options.calibration is not None:
        return load_calibration(options.calibration)
    name, _, variant = options.model.partition(":")
    default = (
        options.shape in (None, "sequential") and options.extend == "refine" and options.temperature in (None, 0.8)
    )
    if name == "embedded" and variant in ("", "embedded") and default and options.top_k == 20:
        from justenough.toy.backend import shipped_calibration

        return load_calibration(shipped_calibration())
    return None


class _Printer:
    """Shows each token as it arrives, and the decision after each step."""

    def __init__(self) -> None:
        self._step = 0
        self._open = False

    def token(self, token: Token, *, step: int) -> None:
        """Show a token, shaded by its entropy."""
        if step != self._step:
            self._step = step
            write(f"step {step}: ")
        self._open = True
        text = safe(token.text).replace("\n", " ")
        write(shade(text, token.entropy, sys.stdout), flush=True)

    def step(self, step: Step, decision: Decision) -> None:
        """Show the decision and its reason."""
        self._open = False
        bits = "no signal" if decision.entropy is None else f"{decision.entropy:.4f} bits"
        bits += "" if decision.score is None else f", decider {decision.score:.4f}"
        probe = "" if step.probe is None else f" and {step.probe.tokens} of a probe"
        against = "" if decision.threshold is None else f" against {decision.threshold:.4f}"
        action = f"{decision.action}: {decision.explanation}"
        show(f"\n        {counted(step.tokens, 'token')}{probe}, {bits}{against} → {action}")

    def close(self) -> None:
        """End the current line, if one is open."""
        if self._open:
            write("\n")


def _print_summary(run: Run, full: Run | None) -> None:
    trace = run.trace
    spent = f", {run.spent} with all probes" if run.spent > trace.tokens else ""
    show(f"answer: {_answer(trace.steps[-1])}\n{_size(trace)}{spent}")
    if full is not None:
        show(
            f"all steps: {_size(full.trace)}, answer {_answer(full.trace.steps[-1])};"
            f" stopping saved {percent(_saving(run, full) or 0.0)}"
        )


def _size(trace: Trace) -> str:
    return f"{counted(trace.tokens, 'token')} in {counted(len(trace.steps), 'step')}"


def _answer(step: Step) -> str:
    grade = "" if step.correct is None else " (right)" if step.correct else " (wrong)"
    return ("(none)" if step.answer is None else safe(step.answer)) + grade


def _saving(run: Run, full: Run) -> float | None:
    # A run without a rule is probed only to record it.
    tokens = run.spent if "rule" in run.trace.extra else run.trace.tokens
    return 1 - tokens / full.trace.tokens if full.trace.tokens else None


def _json(run: Run, full: Run | None) -> dict[str, Json]:
    trace = run.trace
    last, decision = trace.steps[-1], run.decisions[-1]
    out: dict[str, Json] = {
        "problem": trace.problem,
        "model": trace.model,
        "answer": last.answer,
        "correct": last.correct,
        "stopped": decision.action == "stop",
        "reason": str(decision.reason),
        "entropy": decision.entropy,
        "threshold": decision.threshold,
        "tokens": trace.tokens,
        "spent": run.spent,
        "steps": [
            {
                "text": step.text,
                "answer": step.answer,
                "tokens": step.tokens,
                "entropy": decision.entropy,
                "margin": decision.margin,
                "coverage": decision.coverage,
                "action": str(decision.action),
                "reason": str(decision.reason),
            }
            for step, decision in zip(trace.steps, run.decisions, strict=True)
        ],
    }
    if full is not None:
        steps, tokens = full.trace.steps, full.trace.tokens
        final: dict[str, Json] = {
            "answer": steps[-1].answer,
            "correct": steps[-1].correct,
            "tokens": tokens,
            "steps": len(steps),
        }
        out |= {"all_steps": final, "saving": _saving(run, full)}
    return out
