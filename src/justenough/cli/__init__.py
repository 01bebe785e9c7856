"""The command line: thin, one room a command; what it prints is for people unless `--json` asks otherwise."""

from justenough.cli.main import main

__all__ = ["main"]
