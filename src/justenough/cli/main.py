"""`justenough COMMAND …`: parses, runs, and turns each error into one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, Protocol

from justenough.errors import BackendError, CalibrationError, Interrupted, JustEnoughError

COMMANDS: Final = {
    "demo": "show everything on the embedded model, offline, in a minute",
    "solve": "solve one problem and stop when the model is sure",
    "collect": "run many problems and record every step; resumes after a stop",
    "calibrate": "fit a threshold on labelled traces",
    "evaluate": "replay stopping rules on traces, with intervals",
    "report": "write the evaluation to one HTML file",
    "diagnose": "check whether the signal separates right from wrong answers",
    "budget": "plan which problems get further steps, or compare policies at equal cost",
    "import": "convert recorded runs of other tools to traces",
    "serve": "run an OpenAI-compatible gateway that stops the model early",
}
EPILOG: Final = """\
examples:
  justenough demo
  justenough solve "47*36"
  justenough collect --model embedded --tasks arithmetic --out traces.parquet
  justenough calibrate traces.parquet -n 10 --out calibration.json
  justenough evaluate traces.parquet --calibration calibration.json
  justenough report traces.parquet --calibration calibration.json --out report.html

Results go to stdout; progress, warnings and notes go to stderr.

exit codes:
  0    done
  1    the command ran and the answer is no
  2    bad input, or the model cannot be reached
  3    the command failed midway; finished problems are kept and the same command resumes
  130  interrupted; finished problems are kept as well
"""


class Command(Protocol):
    """The functions of a command's module."""

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""

    def run(self, options: argparse.Namespace) -> int:
        """Run the command; returns the exit code."""


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser, with the arguments of the command `only`, or of all commands."""
    from justenough import __version__

    parser = argparse.ArgumentParser(
        prog="justenough",
        description="Let a reasoning model stop as soon as its own entropy says that it knows, and prove what that"
        " saved and what it cost.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"justenough {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if only is None or only == name:
            load(name).add(sub)
    return parser


def load(name: str) -> Command:
    """Import the module of a command."""
    module: Command = import_module(f"justenough.cli.{name if name != 'import' else 'import_'}")
    return module


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    options = build_parser(named if named in COMMANDS else "").parse_args(arguments)
    try:
        code = load(options.command).run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("justenough: interrupted; finished problems are kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output has closed it. Python must not write the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except JustEnoughError as error:
        print(f"justenough {options.command}: {_one_line(error)}", file=sys.stderr)
        return exit_code(error)


def exit_code(error: JustEnoughError) -> int:
    """1 if the evidence says no, 3 if the work stopped midway, otherwise 2."""
    if isinstance(error, CalibrationError):
        return 1
    return 3 if isinstance(error, Interrupted) else 2


def _one_line(error: JustEnoughError) -> str:
    from justenough.cli.terminal import WIDEST
    from justenough.stats.text import clipped, safe

    text = clipped(safe(" ".join(str(error).split())), width=WIDEST)
    return f"{text} (try again later)" if isinstance(error, BackendError) and error.retryable else text
