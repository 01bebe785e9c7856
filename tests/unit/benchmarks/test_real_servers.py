"""Servers of a real run: they end with the run, however it ends, and what is wrong is one clear error."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.real import servers
from benchmarks.real.leash import ROOT, environment, leashed
from benchmarks.real.servers import RunError, await_answer, require_extras, usable_port

PARENT = """
import sys, time
from benchmarks.real.leash import leashed
with leashed([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]):
    time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # A dead process whose parent has not asked for its exit code still has its number.
        return " Z " not in Path(f"/proc/{pid}/stat").read_text() if Path("/proc").exists() else True
    except (ProcessLookupError, FileNotFoundError):
        # It may end between the two calls.
        return False


def is_gone(pid: int, *, within: float = 30) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not is_alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_a_command_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=environment([]), cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.send_signal(signal.SIGKILL)
        assert is_gone(pid)


def test_a_command_ends_with_its_block(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with leashed([sys.executable, "-c", code], log=log):
        deadline = time.monotonic() + 30
        while not log.read_text().endswith("\n") and time.monotonic() < deadline:
            time.sleep(0.05)
        pid = int(log.read_text())
        assert is_alive(pid)
    assert is_gone(pid)


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_the_commands_own(code: int) -> None:
    with leashed([sys.executable, "-c", f"raise SystemExit({code})"]) as process:
        assert process.wait() == code


def test_a_port_in_use_is_refused() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(RunError, match=f"port {port} is in use: choose another with --port"):
            usable_port(port)
    assert usable_port(0) > 0


def test_a_server_that_ends_is_quoted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "print('starting'); print('no such model'); raise SystemExit(4)"
    with (
        leashed([sys.executable, "-c", code], log=log) as process,
        pytest.raises(RunError, match="exit code 4: no such model"),
    ):
        await_answer(f"http://127.0.0.1:{usable_port(0)}/", process, log=log)


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        leashed([sys.executable, "-c", "import time; time.sleep(600)"], log=log) as process,
        pytest.raises(RunError, match="did not answer within 0 s"),
    ):
        await_answer(f"http://127.0.0.1:{usable_port(0)}/", process, log=log, within=0.1)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "EXTRAS", {"no_such_package": "llamacpp"})
    with pytest.raises(RunError, match=r"no_such_package is not installed: pip install -e '\.\[llamacpp\]'"):
        require_extras()
