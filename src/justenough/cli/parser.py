"""The parser of the command line: how values are read, and what an error looks like."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

from justenough.errors import InputError
from justenough.signal.thought import is_name


def whole_number(text: str) -> int:
    """The type of an argument that is a whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error


def number(text: str) -> float:
    """The type of an argument that is a number."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error


NUMBERS: Final[Mapping[object, Callable[[str], object]]] = {int: whole_number, float: number}
"""Python's type → the type of an argument, whose error is a sentence."""


class Parser(argparse.ArgumentParser):
    """A parser in which `--thought` takes one value or two. Its errors do not contain the usage, which can be long."""

    def error(self, message: str) -> NoReturn:
        """Raise `InputError`, which names the help page."""
        raise InputError(message.removeprefix("argument "), hint=f"all options: {self.prog} --help")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, with the two tags of `--thought OPEN CLOSE` as one value."""
        return super().parse_known_args(_with_joined_tags(sys.argv[1:] if args is None else args), namespace)


def _with_joined_tags(args: Sequence[str]) -> list[str]:
    """The arguments with the two tags of `--thought` as one, with a space between; a format's name stands alone."""
    out: list[str] = []
    for arg in args:
        is_second = out[-2:-1] == ["--thought"] and not arg.startswith("-")
        if is_second and " " not in out[-1] and not is_name(out[-1]):
            out[-1] += f" {arg}"
        else:
            out.append(arg)
    return out
