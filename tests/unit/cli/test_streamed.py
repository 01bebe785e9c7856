"""Commands whose memory does not grow with the file: they read it as a stream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scale import make
from tests.unit.importing.samples import chat, inspect_log, model_event, sample

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures the memory as Linux shows it")

SMALL, LARGE = 8_000, 32_000
"""Steps. The traces of the larger file would take some 400 MB more as objects."""
MOST_GROWTH = 150
"""MB."""
PROGRAM = """
import contextlib, io, sys
from justenough.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    code = main(sys.argv[1:])
# `ru_maxrss` would count the memory of the process that started this one.
with open("/proc/self/status") as file:
    print(code, next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) // 1024)
"""


def peak(*arguments: str) -> int:
    """The most memory that a command takes, in MB."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    code, most = map(int, done.stdout.split())
    assert code in (0, 1), done.stderr
    return most


@pytest.mark.parametrize(
    ("command", "part", "growth"),
    [
        (["diagnose", "FILE"], 1, MOST_GROWTH),
        # The replay takes most of the time, so the files are smaller: some 100 MB as objects.
        pytest.param(["budget", "FILE", "--per-problem", "60"], 4, 50, marks=pytest.mark.long),
        pytest.param(
            ["import", "FILE", "--format", "justenough", "--out", "OUT"], 1, MOST_GROWTH, marks=pytest.mark.long
        ),
    ],
    ids=["diagnose", "budget", "import"],
)
def test_memory_does_not_grow_with_the_file(command: list[str], part: int, growth: int, tmp_path: Path) -> None:
    peaks = []
    for steps in (SMALL // part, LARGE // part):
        path = tmp_path / f"{steps}.parquet"
        make(path, steps)
        names = {"FILE": str(path), "OUT": str(tmp_path / "out.parquet")}
        peaks.append(peak(*(names.get(word, word) for word in command)))
    assert peaks[1] - peaks[0] < growth


@pytest.mark.parametrize("form", ["array", "inspect"])
def test_memory_does_not_grow_with_the_elements_of_an_array(form: str, tmp_path: Path) -> None:
    peaks = []
    for count in (1, 700):
        path = tmp_path / f"{count}.json"
        path.write_text(document(form, count))
        peaks.append(peak("import", str(path), "--out", str(tmp_path / "out.parquet")))
    assert path.stat().st_size > 9_000_000
    # As Python objects, the values of the larger file take some 130 MB more.
    assert peaks[1] - peaks[0] < 60


def document(form: str, count: int) -> str:
    """An array of replies or a log of Inspect, in which no two elements share a text."""
    names = [str(number) for number in range(count)]
    if form == "inspect":
        return json.dumps(inspect_log(*(sample(name, model_event("4")) | {"store": store(name)} for name in names)))
    return json.dumps([chat(identity=name) | {"store": store(name)} for name in names])


def store(name: str) -> list[str]:
    """Much that an import does not keep."""
    return [f"{name}-{number}" for number in range(1200)]
