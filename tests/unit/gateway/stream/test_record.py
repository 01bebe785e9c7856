"""The file of recorded traces: whole lines only, for its owner alone, and a full disk disturbs no client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from justenough.errors import InputError
from justenough.gateway.stream.record import Recorder
from justenough.signal.signal import Signal
from justenough.trace import Step, Trace, trace_from_json


def trace_of(number: int, text: str = "So 42.") -> Trace:
    step = Step(text=text, answer="42", tokens=3, entropies=(0.1, 0.2, 0.3))
    return Trace(id=f"t{number}", model="mock", signal=Signal(), steps=(step,), problem="6*7?")


def recorder(path: Path, *, most_bytes: int = 1 << 20, with_text: bool = True) -> Recorder:
    return Recorder(path, most_bytes=most_bytes, with_text=with_text)


def lines(path: Path) -> list[Trace]:
    data = path.read_bytes()
    assert data == b"" or data.endswith(b"\n")
    return [trace_from_json(json.loads(line)) for line in data.splitlines()]


def test_traces_are_appended_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    for number in range(3):
        written = recorder(path)
        written.add(trace_of(number))
        written.close()
    assert [trace.id for trace in lines(path)] == ["t0", "t1", "t2"]


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o600])
def test_an_existing_file_becomes_the_owners_alone(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "traces.jsonl"
    path.touch()
    path.chmod(mode)
    recorder(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("left", [b"", b'{"id": "half', b"\xff" * 200_000])
def test_half_a_line_of_a_process_that_died_is_cut(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "traces.jsonl"
    first = recorder(path)
    first.add(trace_of(0))
    first.close()
    with path.open("ab") as file:
        file.write(left)
    again = recorder(path)
    again.add(trace_of(1))
    again.close()
    assert [trace.id for trace in lines(path)] == ["t0", "t1"]


@pytest.mark.parametrize("other", [b"PAR1\x15\x04\x15", b"my notes\nwithout an end", b"notes", b"[1]\n", b"\n{}"])
def test_a_file_of_another_kind_is_refused_and_stays_as_it_is(tmp_path: Path, other: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(other)
    path.chmod(0o644)
    with pytest.raises(InputError, match=r"it does not hold traces as JSON Lines \(choose another --record\)"):
        recorder(path)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (other, 0o644)


def test_a_whole_line_without_its_end_is_kept(tmp_path: Path) -> None:
    """An editor in which somebody adds targets may leave out the last line's end."""
    path = tmp_path / "traces.jsonl"
    first = recorder(path)
    first.add(trace_of(0))
    first.close()
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    again = recorder(path)
    again.add(trace_of(1))
    again.close()
    assert [trace.id for trace in lines(path)] == ["t0", "t1"]


def test_a_bound_on_its_size_ends_the_recording(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "traces.jsonl"
    bounded = recorder(path, most_bytes=1500)
    for number in range(50):
        bounded.add(trace_of(number))
    bounded.close()
    assert bounded.full
    assert len(lines(path)) == bounded.traces > 1
    assert path.stat().st_size <= 1500
    assert len(caplog.records) == 1


FULL_DISK = """
import logging, resource, signal, sys
from pathlib import Path
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from tests.unit.gateway.stream.test_record import recorder, trace_of
written = recorder(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for number in range(20):
    written.add(trace_of(number))
print(written.traces, written.full)
"""


def test_a_full_disk_leaves_whole_lines_and_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    traces, full = done.stdout.split()
    assert full == "True"
    assert len(lines(path)) == int(traces) > 0
    assert done.stderr.count("nothing more is recorded") == 1
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose another --record"):
        recorder(tmp_path / "none" / "traces.jsonl")


def test_without_text_answers_can_still_be_compared(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    written = recorder(path, with_text=False)
    for number in range(2):
        written.add(trace_of(number, text="A secret: 42."))
    written.close()
    first, second = lines(path)
    assert b"secret" not in path.read_bytes()
    assert first.problem is None
    assert first.steps[0].answer == second.steps[0].answer != "42"


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full"])
def test_only_a_file_is_recorded_to(path: str) -> None:
    with pytest.raises(InputError, match="it is not a file"):
        recorder(Path(path))


def test_a_file_that_was_moved_is_begun_anew_and_a_folder_in_its_place_ends_the_recording(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "record.jsonl"
    record = recorder(path)
    record.add(trace_of(0))
    path.rename(tmp_path / "rotated")
    record.add(trace_of(0))
    assert path.read_bytes() == (tmp_path / "rotated").read_bytes()
    path.unlink()
    path.mkdir()
    record.add(trace_of(0))
    record.add(trace_of(0))
    assert (record.full, record.traces) == (True, 2)
    assert len(caplog.records) == 2
    record.close()
