"""Files that a command reads or writes, marked by the type of their argument; nothing collected is ever replaced."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from justenough.errors import InputError

if TYPE_CHECKING:
    from justenough.trace import Trace


_MOST_OF_A_LINE: Final = 1 << 20


def input_file(name: str) -> Path:
    """The type of an argument that names a file to read."""
    return Path(name)


def name_or_file(name: str) -> str:
    """The type of an argument that names a file to read, or something that is built in."""
    return name


def folder(name: str) -> Path:
    """The type of an argument that names a folder."""
    return Path(name)


@dataclass(frozen=True)
class Output:
    """The type of an argument that names a file to write."""

    kind: str
    replaces: Callable[[Path], bool]
    """Whether an existing file may be replaced: it is of this kind, and the same command makes it again."""
    suffix: str = ""

    def __call__(self, name: str) -> Path:
        """The path; raises `ArgumentTypeError` if the suffix is another one."""
        if not name.endswith(self.suffix):
            raise argparse.ArgumentTypeError(f"{name!r} does not end in {self.suffix}")
        return Path(name)

    def check(self, path: Path, *, flag: str) -> None:
        """Raise `InputError` if the file exists and is of another kind; `flag`: the option that names it."""
        if path.is_file() and path.stat().st_size and not self.replaces(path):
            hint = f"choose another {flag}, or delete that file"
            raise InputError(f"{path} exists, is not {self.kind} and would be replaced", hint=hint)


def _first(path: Path) -> Trace | None:
    from justenough.trace.files import TraceFile, first_of

    try:
        return first_of(TraceFile(path))
    except InputError:
        return None


def _is_imported(path: Path) -> bool:
    """Whether a file holds traces of another tool: neither collected nor recorded by the gateway."""
    first = _first(path)
    return first is not None and first.settings is None and first.task != "gateway"


def _is_record(path: Path) -> bool:
    """Whether a file holds traces, or only the beginning of a first one, which the gateway cuts off."""
    if _first(path) is not None:
        return True
    with path.open("rb") as file:
        head = file.read(_MOST_OF_A_LINE)
    try:
        json.loads(head)
    except (ValueError, RecursionError):
        return head.startswith(b"{") and b"\n" not in head
    return False


def _is_calibration(path: Path) -> bool:
    from justenough.files import load_json

    try:
        value = load_json(path, hint="")
    except InputError:
        return False
    return isinstance(value, dict) and "threshold" in value


COLLECTION: Final = Output("a file of traces", lambda path: _first(path) is not None)
"""`collect` continues them or refuses."""
RECORD: Final = Output("a file of traces", _is_record)
"""The gateway appends to it."""
IMPORT: Final = Output("a file of imported traces", _is_imported)
CALIBRATION: Final = Output("a calibration", _is_calibration)
LOOK_AHEAD: Final = Output("a learned threshold", _is_calibration)
REPORT: Final = Output("a report", lambda path: b"justenough" in path.read_bytes())
DRAWING: Final = Output("a drawing", lambda path: b"<svg" in path.read_bytes()[:1000], suffix=".svg")
LEDGER: Final = Output("a ledger", lambda path: True)
"""The ledger itself refuses a file that is none."""
FILES: Final = (input_file, name_or_file)
"""Types of arguments that may name a file to read."""


def check_files(actions: Iterable[argparse.Action], options: argparse.Namespace) -> None:
    """Raise `InputError` if a file to write is an input of the command, or exists and is not of the output's kind."""
    paths = [(action, path) for action in actions if os.path.isfile(path := str(getattr(options, action.dest, None)))]
    for action, out in paths:
        if not isinstance(action.type, Output):
            continue
        flag = action.option_strings[0]
        if any(other.type in FILES and os.path.samefile(out, path) for other, path in paths):
            raise InputError(f"{out} is an input of this command and would be replaced", hint=f"choose another {flag}")
        action.type.check(Path(out), flag=flag)
