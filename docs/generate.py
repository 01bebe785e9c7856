"""The reference, made from the code: `python docs/generate.py`; `--check` fails where a page is stale."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import Final

from library import library

from justenough.calibration import thresholds
from justenough.cli.main import COMMANDS, build_parser
from justenough.rules import rivals, rules, votes
from justenough.signal import combination
from justenough.signal.pooling import POOLINGS

FOLDER: Final = Path(__file__).parent / "reference"
NOTE: Final = "<!-- made by docs/generate.py: do not edit -->\n\n"


def command_line() -> str:
    """`--help` of every command, at 100 columns."""
    os.environ["COLUMNS"] = "100"
    parser = build_parser()
    parts = [NOTE + "# Command line\n", f"```\n{parser.format_help()}```\n"]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name in COMMANDS:
                parts.append(f"## justenough {name}\n\n```\n{action.choices[name].format_help()}```\n")
    return "\n".join(parts)


def _line(thing: object) -> str:
    """A docstring as one paragraph, for a list."""
    return " ".join(_doc(thing).split())


def _doc(thing: object) -> str:
    text = inspect.getdoc(thing) or ""
    return "" if text.startswith(("Gate(", "Token(", "str(object")) else text


def registries() -> str:
    """Thresholds, poolings and rules by name."""
    parts = [NOTE + "# Thresholds, poolings, rules\n", (inspect.getdoc(thresholds) or "") + "\n"]
    parts.append("## Thresholds\n")
    for name, make in thresholds.METHODS.items():
        parts.append(f"- **`{name}`**: {_line(type(make()))} {_line(type(make()).fit)}")
    parts.append("\n## Poolings of token entropies\n")
    for name, pooling in POOLINGS.items():
        needs = "" if pooling.needs == "entropies" else f" Needs `{pooling.needs}`."
        parts.append(f"- **`{name}`**: {_line(pooling.measure)}{needs}")
    parts.append(f"- **`combination`**: {_line(combination)}")
    parts.append(f"\n## Rules\n\n{inspect.getdoc(rules)}\n")
    for module in (rules, votes, rivals):
        for name, thing in inspect.getmembers(module, inspect.isclass):
            if thing.__module__ == module.__name__ and hasattr(thing, "replay") and name != "Rule":
                parts.append(f"- **{name}**: {_line(thing)}")
    return "\n".join(parts) + "\n"


PAGES: Final = {"command-line.md": command_line, "library.md": lambda: NOTE + library(), "registries.md": registries}


def main() -> int:
    """Write the pages, or say which are stale."""
    importlib.invalidate_caches()
    stale = []
    for name, make in PAGES.items():
        text = "\n".join(line.rstrip() for line in make().splitlines()) + "\n"
        path = FOLDER / name
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != text:
                stale.append(name)
        else:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(text)
    if stale:
        print(f"stale: {', '.join(stale)}; run: python docs/generate.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
