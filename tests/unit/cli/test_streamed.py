"""Commands whose memory does not grow with the file: they read it as a stream."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scale import make

SMALL, LARGE = 8_000, 32_000
"""Steps. The traces of the larger file would take some 400 MB more as objects."""
MOST_GROWTH = 150
"""MB."""
PROGRAM = """
import contextlib, io, resource, sys
from justenough.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    code = main(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("scale")
    for steps in (SMALL, LARGE):
        make(folder / f"{steps}.parquet", steps)
    return {steps: folder / f"{steps}.parquet" for steps in (SMALL, LARGE)}


@pytest.mark.parametrize(
    "command",
    [
        ["diagnose", "FILE"],
        pytest.param(["budget", "FILE", "--per-problem", "60"], marks=pytest.mark.long),
        pytest.param(["import", "FILE", "--format", "justenough", "--out", "OUT"], marks=pytest.mark.long),
    ],
    ids=lambda command: command[0],
)
def test_memory_does_not_grow_with_the_file(command: list[str], files: dict[int, Path], tmp_path: Path) -> None:
    peaks = []
    for path in files.values():
        names = {"FILE": str(path), "OUT": str(tmp_path / "out.parquet")}
        arguments = [names.get(part, part) for part in command]
        done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
        code, peak = map(int, done.stdout.split())
        assert code in (0, 1), done.stderr
        peaks.append(peak)
    assert peaks[1] - peaks[0] < MOST_GROWTH
