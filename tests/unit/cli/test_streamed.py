"""Commands whose memory does not grow with the file: they read it as a stream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import scale
from justenough.trace import Json
from tests.unit.importing.samples import chat, inspect_log, model_event, sample

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures the memory as Linux shows it")

SMALL, LARGE = 400, 1_200
"""Steps. The traces of the larger file would take some 290 MB more as objects."""
MOST_GROWTH = 70
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
    "command",
    [
        ["diagnose", "FILE"],
        pytest.param(["budget", "FILE", "--per-problem", "60"], marks=pytest.mark.long),
        pytest.param(["import", "FILE", "--format", "justenough", "--out", "OUT"], marks=pytest.mark.long),
    ],
    ids=lambda command: command[0],
)
def test_memory_does_not_grow_with_the_file(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The smaller file must have several row groups: a reader holds at least one of them.
    monkeypatch.setattr(scale, "GROUP", 25)
    # Wide rows make a large file of few problems: the replay of `budget` takes long for each problem.
    monkeypatch.setattr(scale, "TOP_K", 400)
    peaks = []
    for steps in (SMALL, LARGE):
        path = tmp_path / f"{steps}.parquet"
        scale.make(path, steps)
        names = {"FILE": str(path), "OUT": str(tmp_path / "out.parquet")}
        peaks.append(peak(*(names.get(word, word) for word in command)))
    assert peaks[1] - peaks[0] < MOST_GROWTH


@pytest.mark.parametrize("form", ["array", "inspect"])
def test_memory_does_not_grow_with_the_elements_of_an_array(form: str, tmp_path: Path) -> None:
    peaks = []
    for count in (1, 700):
        path = tmp_path / f"{count}.json"
        path.write_text(document(form, count))
        peaks.append(peak("import", str(path), "--out", str(tmp_path / "out.parquet")))
    assert path.stat().st_size > 9_000_000
    # As Python objects, the values of the larger file take some 130 MB more.
    assert peaks[1] - peaks[0] < MOST_GROWTH


def document(form: str, count: int) -> str:
    """An array of replies or a log of Inspect, in which no two elements share a text."""
    names = [str(number) for number in range(count)]
    if form == "inspect":
        return json.dumps(inspect_log(*(sample(name, model_event("4")) | {"store": store(name)} for name in names)))
    return json.dumps([chat(identity=name) | {"store": store(name)} for name in names])


def store(name: str) -> Json:
    """Much that an import does not keep."""
    return [f"{name}-{number}" for number in range(1200)]
