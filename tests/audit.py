"""Known vulnerabilities in the packages of the lock file: part of `make check`.

It fails for a vulnerability that the index knows. Where the index cannot be asked it says so and passes: a build
without a network must not fail for that.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements.lock"


def findings(report: str) -> list[str]:
    """One line for each known vulnerability in pip-audit's JSON report; raises ValueError for another text."""
    packages = json.loads(report)["dependencies"]
    return [
        f"{package['name']} {package['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'none'}"
        for package in packages
        for known in package.get("vulns", [])
    ]


def main() -> int:
    """Run pip-audit on the lock file; exit code 1 where it finds a vulnerability."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--disable-pip", "--no-deps"]
    try:
        done = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        known = findings(done.stdout)
    except (ValueError, subprocess.TimeoutExpired):
        print("the lock file is not audited: the package index cannot be asked")
        return 0
    print("\n".join(known) or "no known vulnerability in the packages of the lock file")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
