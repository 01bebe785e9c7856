"""`justenough solve`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.terminal import print_json, safe, shade
from justenough.stats.text import percent

if TYPE_CHECKING:
    from justenough.calibration.calibration import Calibration
    from justenough.gate import Decision
    from justenough.runner import Run
    from justenough.trace import Json, Step, Token

EPILOG = """\
The embedded model solves products (47*36), sums (41+93-28) and remainders (5821%7), and has its own calibration. Other
models stop early only with --calibration. In a terminal, tokens with a higher entropy have a redder background.
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.epilog = EPILOG
    parser.add_argument("problem", metavar="PROBLEM", help="the text of the problem")
    arguments.add_model(parser, default="embedded")
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="the calibration of the gate (default: the calibration of the embedded model)",
    )
    parser.add_argument("--max-steps", type=int, default=4, metavar="K", help="largest number of steps (default 4)")
    parser.add_argument("--target", metavar="ANSWER", help="the right answer, to grade the answer")
    parser.add_argument(
        "--verify", action="store_true", help="also run all steps, to show what stopping saves and costs"
    )
    parser.add_argument("--budget", metavar="N", help="generate at most N tokens, or make at most N calls, in total")
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
    calibration = _calibration(options)
    settings = arguments.run_settings(options, steps=options.max_steps)
    grader = open_grader(options.grader)
    problem = Problem(id=options.problem, problem=options.problem, target=options.target)
    try:
        async with arguments.backends(options) as (backend, cascade):
            plain = Runner(backend, settings, grader=grader, cascade=cascade)
            gate: GateSettings | None = None
            if calibration is not None:
                calibration.check_run(backend.model, plain.signal, settings.shape)
                gate = GateSettings.of(calibration)
            observer = None if options.json else _Printer()
            ledger = None
            if options.budget is not None:
                ledger = Ledger(arguments.whole_budget(options.budget), unit=options.unit)
            gated = Runner(
                backend, settings, grader=grader, gate=gate, cascade=cascade, ledger=ledger, observer=observer
            )
            try:
                done = await gated.run(problem)
            finally:
                if observer is not None:
                    observer.end()
            whole = await plain.run(problem) if options.verify else None
    finally:
        grader.close()
    if options.json:
        print_json(_json(done, whole))
    else:
        _print_summary(done, whole)
    return 0


def _calibration(options: argparse.Namespace) -> Calibration | None:
    from justenough.calibration.calibration import load_calibration

    if options.calibration is not None:
        return load_calibration(options.calibration)
    name, _, variant = options.model.partition(":")
    default = options.shape == "sequential" and options.extend == "refine" and options.temperature in (None, 0.8)
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
            print(f"step {step}: ", end="")
        self._open = True
        text = safe(token.text).replace("\n", " ")
        print(shade(text, token.entropy, sys.stdout), end="", flush=True)

    def step(self, step: Step, decision: Decision) -> None:
        """Show the decision and its reason."""
        self._open = False
        bits = "no signal" if decision.entropy is None else f"{decision.entropy:.4f} bits"
        bits += "" if decision.score is None else f", decider {decision.score:.4f}"
        against = "" if decision.threshold is None else f" against {decision.threshold:.4f}"
        print(f"\n        {step.tokens} tokens, {bits}{against} → {decision.action}: {decision.explanation}")

    def end(self) -> None:
        """End the current line, if one is open."""
        if self._open:
            print()


def _print_summary(done: Run, whole: Run | None) -> None:
    last = done.trace.steps[-1]
    print(f"answer: {safe(last.answer) if last.answer is not None else '(none)'}{_mark(last)}")
    print(f"{done.trace.tokens} tokens in {len(done.trace.steps)} steps")
    if whole is not None:
        final = whole.trace.steps[-1]
        saved = 1 - done.trace.tokens / whole.trace.tokens if whole.trace.tokens else 0.0
        print(
            f"all {len(whole.trace.steps)} steps: {whole.trace.tokens} tokens, answer"
            f" {safe(final.answer) if final.answer is not None else '(none)'}{_mark(final)};"
            f" stopping saved {percent(saved)}"
        )


def _mark(step: Step) -> str:
    return "" if step.correct is None else " (right)" if step.correct else " (wrong)"


def _json(done: Run, whole: Run | None) -> dict[str, Json]:
    trace = done.trace
    last, verdict = trace.steps[-1], done.decisions[-1]
    out: dict[str, Json] = {
        "problem": trace.problem,
        "model": trace.model,
        "answer": last.answer,
        "correct": last.correct,
        "stopped": verdict.action == "stop",
        "reason": str(verdict.reason),
        "entropy": verdict.entropy,
        "threshold": verdict.threshold,
        "tokens": trace.tokens,
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
            for step, decision in zip(trace.steps, done.decisions, strict=True)
        ],
    }
    if whole is not None:
        final = whole.trace.steps[-1]
        out["all_steps"] = {
            "answer": final.answer,
            "correct": final.correct,
            "tokens": whole.trace.tokens,
            "steps": len(whole.trace.steps),
        }
        out["saving"] = 1 - trace.tokens / whole.trace.tokens if whole.trace.tokens else None
    return out
