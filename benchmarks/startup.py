"""Times `import justenough` and `justenough --help` against an empty Python: `python -m benchmarks.startup`."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.timing import alternating, write


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Print the medians of nine rounds."""
    seconds = alternating(
        {
            "python -c pass": lambda: _python("-c", "pass"),
            "import justenough": lambda: _python("-c", "import justenough"),
            "justenough --help": lambda: _python("-m", "justenough", "--help"),
        },
        rounds=9,
    )
    for name, value in seconds.items():
        print(f"{name:>20}: {value:.3f} s, {value / seconds['python -c pass']:.1f} x an empty Python")
    write("startup", dict(seconds))


if __name__ == "__main__":
    main()
