"""`justenough COMMAND …`: parse, run, and turn each error into one line and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, Protocol

from justenough.errors import BackendError, CalibrationError, Interrupted, JustEnoughError

COMMANDS: Final = {
    "demo": "the whole story on the embedded model, in a minute, offline",
    "solve": "solve one problem and stop when the model knows",
    "collect": "run many problems and record every step (resumable)",
    "calibrate": "fit a threshold on labelled traces",
    "evaluate": "replay stopping rules on traces, with intervals",
    "report": "write the evaluation as one HTML file to look at",
    "diagnose": "does the signal separate right from wrong on this model?",
    "budget": "where should a number of tokens go? policies at equal total",
    "import": "read traces of other tools",
    "serve": "an OpenAI-compatible gateway that really stops the model",
}
EPILOG: Final = """\
examples:
  justenough demo
  justenough solve "47*36"
  justenough collect --model embedded --tasks arithmetic --out traces.parquet
  justenough calibrate traces.parquet -n 10 --out calibration.json
  justenough evaluate traces.parquet --calibration calibration.json
  justenough report traces.parquet --calibration calibration.json --out report.html

exit codes: 0 done; 1 ran and the answer is no; 2 bad input or unreachable model;
3 failed midway, what was collected is kept and resumes; 130 interrupted, likewise.
"""


class Command(Protocol):
    """What a command's module offers."""

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Declare its arguments."""

    def run(self, options: argparse.Namespace) -> int:
        """Run it; the exit code."""


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; arguments of the command `only`, or of all, are declared."""
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
    """The module of a command, imported only when it is wanted."""
    module: Command = import_module(f"justenough.cli.{name if name != 'import' else 'import_'}")
    return module


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    named = next((argument for argument in arguments if not argument.startswith("-")), None)
    options = build_parser(named if named in COMMANDS else "").parse_args(arguments)
    try:
        return load(options.command).run(options)
    except KeyboardInterrupt:
        print("justenough: interrupted; what was collected is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; there is no one left to tell.
        sys.stderr.close()
        return 0
    except JustEnoughError as error:
        print(f"justenough {options.command}: {_one_line(error)}", file=sys.stderr)
        return exit_code(error)


def exit_code(error: JustEnoughError) -> int:
    """1 where the evidence says no, 3 where work stopped midway, else 2."""
    if isinstance(error, CalibrationError):
        return 1
    return 3 if isinstance(error, Interrupted) else 2


def _one_line(error: JustEnoughError) -> str:
    text = " ".join(str(error).split())
    return f"{text} (may pass: try again)" if isinstance(error, BackendError) and error.retryable else text
