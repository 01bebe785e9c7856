"""`justenough COMMAND …`: parses, runs, and turns each error into one line and an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, Protocol

from justenough.cli.parser import Parser
from justenough.cli.paths import check_files
from justenough.errors import BackendError, CalibrationError, InputError, Interrupted, JustEnoughError

COMMANDS: Final = {
    "demo": ("show everything on the embedded model, offline, in a minute", "--quick"),
    "solve": ("solve one problem and stop when the model is sure", '"41+93-28" --verify'),
    "collect": (
        "run many problems and record every step; resumes after a stop",
        "--model embedded --tasks arithmetic --out traces.parquet",
    ),
    "import": (
        "convert recorded runs of other tools to traces",
        "responses.jsonl --format openai --tasks tasks.jsonl --out traces.parquet",
    ),
    "diagnose": ("check whether the signal separates right from wrong answers", "traces.parquet"),
    "calibrate": ("fit a threshold on labelled traces", "traces.parquet -n 10 --out calibration.json"),
    "evaluate": ("replay stopping rules on traces, with intervals", "traces.parquet --calibration calibration.json"),
    "report": (
        "write the evaluation to one HTML file",
        "traces.parquet --calibration calibration.json --out report.html",
    ),
    "budget": (
        "plan which problems get further steps, or compare policies at equal cost",
        "traces.parquet --per-problem 80",
    ),
    "setup": (
        "from a running server to a gateway that saves: collect, calibrate, test and check live",
        "--upstream http://127.0.0.1:8000 --tasks my-task.jsonl --grader number",
    ),
    "serve": (
        "run an OpenAI-compatible gateway that stops the model early",
        "--upstream http://127.0.0.1:8000 --calibration calibration.json",
    ),
    "exits": (
        "let sure tokens skip layers of a model in Hugging Face form; certified",
        "train --model PATH --texts texts.jsonl",
    ),
    "completion": ("print the completion script of a shell", "bash"),
}
"""Command → its summary, and the arguments of an example; in the order of the help page."""
TITLES: Final = {
    "demo": "try it",
    "collect": "record what a model does",
    "diagnose": "measure and decide",
    "setup": "use it",
}
"""First command of a group on the help page → the title of the group."""
LEFT: Final = {
    "demo": "finished problems are kept, and the same command resumes",
    "collect": "finished problems are kept, and the same command resumes",
    "calibrate": "no calibration was written; judgements of --ask are kept",
    "report": "no report was written",
    "setup": "finished problems are kept, and the same command resumes",
    "import": "no traces were written",
}
"""Command → what an interrupt leaves; the other commands write no file."""
EPILOG: Final = """
Results go to stdout; progress, warnings and notes go to stderr.

exit codes:
  0    done
  1    the command ran and the answer is no
  2    bad input, or the model cannot be reached
  3    the command failed midway; finished problems are kept and the same command resumes
  130  interrupted; finished problems are kept as well
"""


class _ByTask(argparse.RawDescriptionHelpFormatter):
    """Shows the commands in groups, each with a title."""

    def _format_action(self, action: argparse.Action) -> str:
        text = super()._format_action(action)
        return f"\n  {TITLES[action.dest]}:\n{text}" if action.dest in TITLES else text


class Command(Protocol):
    """The functions of a command's module; its docstring after the first paragraph is the end of the help page."""

    def add(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of the command."""

    def run(self, options: argparse.Namespace) -> int:
        """Run the command; returns the exit code."""


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser, with the arguments of the command `only`, or of all commands."""
    from justenough import __version__

    examples = [f"  justenough {name} {example}\n" for name, (_, example) in COMMANDS.items()]
    parser = Parser(
        prog="justenough",
        description="Let a reasoning model stop as soon as its own entropy says that it knows, and prove what that"
        " saved and what it cost.",
        epilog="".join(["examples:\n", *examples, EPILOG]),
        formatter_class=lambda prog: _ByTask(prog, max_help_position=16),
    )
    parser.add_argument("--version", action="version", version=f"justenough {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", required=True)
    for (name, (summary, _)), example in zip(COMMANDS.items(), examples, strict=True):
        sub = subparsers.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if only is None or only == name:
            command = load(name)
            sub.epilog = "example:\n" + "\n".join([example, *(command.__doc__ or "").split("\n\n", 1)[1:]])
            command.add(sub)
    return parser


def actions_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The arguments of all commands that the parser has, and of their actions."""
    subparsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    commands = [command for one in subparsers for command in one.choices.values()]
    return [action for command in commands for action in (*command._actions, *actions_of(command))]


def load(name: str) -> Command:
    """Import the module of a command."""
    module: Command = import_module(f"justenough.cli.{name if name != 'import' else 'import_'}")
    return module


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    given = next((argument for argument in arguments if not argument.startswith("-")), "")
    name = given if given in COMMANDS else ""
    try:
        parser = build_parser(name)
        if not arguments:
            # Who does not know the commands wants to see them.
            parser.print_help(sys.stderr)
            return 2
        options, unknown = parser.parse_known_args(arguments)
        if unknown:
            raise _unknown(parser, name, unknown)
        from justenough.cli.terminal import results_of, write

        check_files(actions_of(parser), options)
        with results_of(options):
            code = load(name).run(options)
        write("", flush=True)
        return code
    except KeyboardInterrupt:
        print(f"justenough: interrupted; {LEFT.get(name, 'no file was written')}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of the output has closed it. Python must not write the rest at exit.
        from justenough.cli.terminal import discard

        discard(sys.stdout)
        return 0
    except JustEnoughError as error:
        from justenough.cli.terminal import say

        later = " (try again later)" if isinstance(error, BackendError) and error.retryable and not error.hint else ""
        say(f"{f'justenough {name}'.strip()}: {' '.join(str(error).split())}{later}")
        return exit_code(error)


def _unknown(parser: argparse.ArgumentParser, name: str, arguments: Sequence[str]) -> InputError:
    """The error for arguments that the command does not have; it names the option that looks like the first one."""
    from difflib import get_close_matches

    flags = {flag for action in actions_of(parser) for flag in action.option_strings}
    near = get_close_matches(arguments[0].partition("=")[0], sorted(flags), n=1, cutoff=0.75)
    meant = f"did you mean {near[0]}? " if near else ""
    hint = f"{meant}all options: justenough {name} --help"
    return InputError(f"unknown arguments: {' '.join(arguments)}", hint=hint)


def exit_code(error: JustEnoughError) -> int:
    """1 if the evidence says no, 3 if the work stopped midway, otherwise 2."""
    if isinstance(error, CalibrationError):
        return 1
    return 3 if isinstance(error, Interrupted) else 2
