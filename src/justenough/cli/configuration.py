"""Options of a command from a file, the environment and the command line; the later one wins."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from justenough.cli.parser import Parser
from justenough.cli.paths import check_files
from justenough.errors import InputError
from justenough.files import read_small

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "JUSTENOUGH_"
"""Begins the name of each variable: `JUSTENOUGH_MAX_BODY` is `--max-body`."""
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")


class _Source(Parser):
    """The options of a command; an error names the source."""

    def error(self, message: str) -> NoReturn:
        """Raise `InputError`."""
        hint = "the names and values are those of `--help`"
        raise InputError(f"{self.prog}: {message.removeprefix('argument ')}", hint=hint)


def without_defaults(parser: argparse.ArgumentParser) -> None:
    """Let the parser's namespace have only what the command line gives; nothing is required there."""
    for action in parser._actions:
        action.default, action.required = argparse.SUPPRESS, False


def configured(
    given: argparse.Namespace,
    add: Callable[[argparse.ArgumentParser], None],
    *,
    required: str,
    ignored: Sequence[str] = (),
) -> argparse.Namespace:
    """The options `add` with the values of defaults, `--config`, environment and command line; the later one wins.

    Raises `InputError` for an unknown key of the file, a value that does not fit, a file that must not be written to,
    and if `required` has no value. An unknown variable is a warning, because other programs may set it; those in
    `ignored` are not options but secrets.
    """
    from justenough.cli.terminal import say

    parser = _parser("defaults", add)
    actions = {action.dest: action for action in parser._actions}
    defaults = {name: action.default for name, action in actions.items()}
    without_defaults(parser)
    variables = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in os.environ.items()
        if name.startswith(PREFIX) and name not in ignored and value
    }
    path = getattr(given, "config", None) or variables.pop("config", None)
    values: dict[str, object] = {}
    if path:
        values |= _values(parser, _read(Path(path)), source=str(path), secrets=ignored)
    for name in sorted(variables.keys() - actions.keys()):
        say(f"warning: the variable {PREFIX}{name.upper()} is no option")
    for name in variables.keys() & actions.keys():
        split = isinstance(actions[name], argparse._AppendAction)
        value: object = variables[name].split() if split else variables[name]
        values |= _values(parser, {name: value}, source=f"{PREFIX}{name.upper()}")
    options = argparse.Namespace(**{**defaults, **values, **vars(given)})
    if getattr(options, required) is None:
        flag = f"--{required.replace('_', '-')}"
        raise InputError(f"there is no {required}", hint=f"give {flag}, {PREFIX}{required.upper()}, or --config FILE")
    # Only the command line's files have been checked.
    check_files(actions.values(), options)
    return options


def _parser(source: str, add: Callable[[argparse.ArgumentParser], None]) -> argparse.ArgumentParser:
    parser = _Source(prog=source, add_help=False, allow_abbrev=False)
    add(parser)
    return parser


def _read(path: Path) -> dict[str, object]:
    hint = 'TOML, for example: upstream = "http://127.0.0.1:8000"'
    try:
        content: dict[str, object] = tomllib.loads(read_small(path, hint=hint).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}", hint=hint) from error
    return {key.replace("-", "_"): value for key, value in content.items()}


def _values(
    parser: argparse.ArgumentParser, content: Mapping[str, object], *, source: str, secrets: Sequence[str] = ()
) -> dict[str, object]:
    """The values of the options `content`, checked as those of the command line."""
    parser.prog = source
    actions = {action.dest: action for action in parser._actions}
    arguments: list[str] = []
    for name, value in content.items():
        if name not in actions:
            hint = "one of " + ", ".join(sorted(key.replace("_", "-") for key in actions))
            if name.endswith(("_key", "_keys")):
                hint = f"secrets are no options: set {' or '.join(secrets)} in the environment"
                hint += ", or name a file by client-key-file"
            raise InputError(f"{source}: unknown key {name!r}", hint=hint)
        flags = actions[name].option_strings
        if actions[name].nargs == 0:
            wanted = str(value).lower()
            if wanted not in (*_TRUE, *_FALSE):
                raise InputError(f"{source}: {name} is {value!r}", hint="true or false")
            arguments += flags[:1] if wanted in _TRUE else flags[1:]
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict | list | bool):
                raise InputError(f"{source}: {name} is {item!r}", hint="a text or a number")
            arguments.append(f"{flags[0]}={item}")
    return vars(parser.parse_args(arguments))
