"""A command that is killed while it writes leaves no temporary file behind, once the next one has written."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from justenough.trace.files import read_traces, write_traces
from tests.builders import trace

SLOW = """
import sys, time
from justenough.trace.files import write_traces
from tests.builders import trace

def traces():
    yield trace(id="a")
    print("writing", flush=True)
    time.sleep(60)

write_traces(traces(), sys.argv[1])
"""


def test_the_temporary_file_of_a_killed_process_is_deleted_by_the_next_one(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    write_traces([trace(id="b")], source)
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert [path.name for path in tmp_path.glob(".out.parquet.*.partial")] != []
    assert not out.exists()
    command = [sys.executable, "-m", "justenough", "import", str(source), "--format", "justenough", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.parquet"]
    assert [one.id for one in read_traces(out).traces] == ["b"]
