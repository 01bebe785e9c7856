"""Every benchmark that needs no data from elsewhere: `python -m benchmarks.all`."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

MODULES: Final = (
    "benchmarks.startup",
    "benchmarks.entropy",
    "benchmarks.decoding",
    "benchmarks.siblings",
    "benchmarks.demo",
)


def main() -> int:
    """Run them one after the other; the worst exit code."""
    worst = 0
    for module in MODULES:
        print(f"\n== python -m {module}", flush=True)
        worst = max(worst, subprocess.run([sys.executable, "-m", module], check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
