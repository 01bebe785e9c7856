"""Starts the processes to be measured, waits until they listen, and reads their processor time."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PATIENCE_S: Final = 120.0


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A socket on a free loopback port; prints its address on standard error."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}/v1", file=sys.stderr, flush=True)
        yield listener


@contextmanager
def process(arguments: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Start a process of this Python that prints where it listens; yields address and process number."""
    child = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True)
    try:
        if child.stderr is None:
            raise SystemExit("no standard error")
        for line in child.stderr:
            if match := re.search(r"listening on (http://\S+?)/v1", line):
                # Read and drop the rest of its output, because a full pipe would stop the process.
                threading.Thread(target=child.stderr.read, daemon=True).start()
                yield match[1], child.pid
                return
        raise SystemExit(f"{' '.join(arguments)} did not listen")
    finally:
        _end(child)


@contextmanager
def program(command: Sequence[str], *, port: int, log: Path, env: Mapping[str, str]) -> Iterator[int]:
    """Start a program, wait until it listens on this port, yield its process number; its output goes to a file."""
    with log.open("wb") as words:
        child = subprocess.Popen(command, stdout=words, stderr=words, env={**os.environ, **env}, cwd=log.parent)
        try:
            until = time.monotonic() + _PATIENCE_S
            while not _answers(port):
                if child.poll() is not None or time.monotonic() > until:
                    lines = log.read_text(errors="replace").strip().splitlines()
                    raise OSError(f"it did not listen: {lines[-1] if lines else 'no output'}")
                time.sleep(0.2)
            yield child.pid
        finally:
            _end(child)


def _end(child: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(timeout=10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def free_port() -> int:
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def cpu(pid: int) -> float:
    """Seconds of processor time of a process and its children; works only on Linux."""
    parents = {int(path.name): _stat(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
    family, grown = {pid}, True
    while grown:
        more = {child for child, fields in parents.items() if fields and int(fields[1]) in family}
        grown = not more <= family
        family |= more
    return sum(_taken(child) for child in family if parents.get(child))


def _taken(pid: int) -> float:
    try:
        # The process's own clock in nanoseconds (clock_getcpuclockid(3)); /proc/PID/stat counts hundredths of seconds.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def _stat(path: Path) -> list[str]:
    try:
        return (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
