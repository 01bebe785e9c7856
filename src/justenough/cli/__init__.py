"""The command line: one module for each command; it prints text for people, or one JSON object with `--json`."""

from justenough.cli.main import main

__all__ = ["main"]
