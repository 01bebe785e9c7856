"""`justenough completion`.

bash  justenough completion bash > ~/.local/share/bash-completion/completions/justenough
zsh   justenough completion zsh > ~/.zfunc/_justenough    (a folder of $fpath)
fish  justenough completion fish > ~/.config/fish/completions/justenough.fish
"""

from __future__ import annotations

import argparse

from justenough.cli.paths import FILES, Output, folder
from justenough.cli.terminal import write


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from justenough.cli.main import actions_of, build_parser

    parser = build_parser()
    for action in actions_of(parser):
        if action.type is folder:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.type in FILES or isinstance(action.type, Output):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    write(shtab.complete(parser, options.shell))
    return 0
