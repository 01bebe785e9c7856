"""`justenough completion`.

bash  justenough completion bash > ~/.local/share/bash-completion/completions/justenough
zsh   justenough completion zsh > ~/.zfunc/_justenough    (a folder of $fpath)
fish  justenough completion fish > ~/.config/fish/completions/justenough.fish
"""

from __future__ import annotations

import argparse
from pathlib import Path

from justenough.cli.terminal import write


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from justenough.cli.main import build_parser

    parser = build_parser()
    _complete_files(parser)
    write(shtab.complete(parser, options.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Let the shell complete the names of files where an argument of any command is a path."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command)
        elif action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
