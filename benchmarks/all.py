"""Runs every benchmark that needs no external data: `python -m benchmarks.all`.

Replay at scale goes up to 10⁵ steps here; `python -m benchmarks.scale` goes up to 10⁶.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

COMMANDS: Final = (
    "benchmarks.startup",
    "benchmarks.entropy",
    "benchmarks.scale 10000 100000",
    "benchmarks.decoding",
    "benchmarks.siblings",
    "benchmarks.demo",
)


def main() -> int:
    """Run them one after the other; return the largest exit code."""
    worst = 0
    for command in COMMANDS:
        print(f"\n== python -m {command}", flush=True)
        worst = max(worst, subprocess.run([sys.executable, "-m", *command.split()], check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
