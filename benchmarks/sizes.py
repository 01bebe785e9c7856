"""Installed size of the library and of its extras: `python -m benchmarks.sizes`.

Each row is a fresh virtual environment without pip. The size is the sum of all files in its `site-packages`.
The packages come from the package index; `--constraint FILE` pins them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
EXTRAS: Final = ("", "gateway", "demo")


class Size(NamedTuple):
    """What one installation takes."""

    requirement: str
    megabytes: float
    """Millions of bytes."""
    packages: int


def site_packages(environment: Path) -> Path:
    """The folder of a virtual environment that holds its packages."""
    return next((environment / "lib").glob("python*/site-packages"))


def measure(folder: Path, *, requirement: str) -> Size:
    """Size and number of packages in a `site-packages` folder."""
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Size(requirement, total / 1e6, len(list(folder.glob("*.dist-info"))))


def install(extra: str, *, constraint: Path | None) -> Size:
    """Install the library with one extra into a fresh environment and measure it."""
    requirement = f"justenough[{extra}]" if extra else "justenough"
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
        pins = ["--constraint", str(constraint)] if constraint is not None else []
        subprocess.run([*pip, *pins, f"{ROOT}[{extra}]" if extra else str(ROOT)], check=True)
        return measure(site_packages(environment), requirement=requirement)


def table(sizes: list[Size]) -> str:
    """The sizes as a Markdown table."""
    lines = ["| installed | size, MB | packages |", "|---|---|---|"]
    lines += [f"| `pip install '{size.requirement}'` | {size.megabytes:.0f} | {size.packages} |" for size in sizes]
    return "\n".join(lines)


def main() -> None:
    """Measure each extra and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--constraint", type=Path, default=ROOT / "requirements.lock", metavar="FILE")
    options = parser.parse_args()
    print(table([install(extra, constraint=options.constraint) for extra in EXTRAS]))


if __name__ == "__main__":
    main()
