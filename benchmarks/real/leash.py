"""Run a command that ends when the process that started it ends, also if that process was killed.

    python -m benchmarks.real.leash COMMAND ARGUMENT…

The parent holds the other end of this process's standard input. When that end closes, the command gets SIGTERM, and
SIGKILL ten seconds later. The exit code is the command's own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PATIENCE: Final = 10.0
"""Seconds between SIGTERM and SIGKILL."""
ROOT: Final = Path(__file__).parent.parent.parent


def ended(process: subprocess.Popen[bytes]) -> int:
    """End a process; returns its exit code."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def environment(path: Sequence[Path]) -> dict[str, str]:
    """This process's environment, in which Python also imports from this repository and from `path`."""
    folders = [str(folder.resolve()) for folder in (ROOT, *path)]
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*folders, *([inherited] if inherited else [])])}


@contextmanager
def leashed(
    command: Sequence[str], *, path: Sequence[Path] = (), log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command beside this process; the end of the block ends it.

    `path` holds folders from which the command can import, besides this repository. `log` takes what the command
    prints; without it, the output is this process's own.
    """
    out = None if log is None else log.open("wb")
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.real.leash", *command],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=None if out is None else subprocess.STDOUT,
            env=environment(path),
        )
    finally:
        if out is not None:
            out.close()
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait()


def main() -> int:
    """Run the command of the arguments."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    # Ctrl-C reaches the whole group of processes: the command decides what it means, and this process waits for it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())

    def watch() -> None:
        # Not `sys.stdin`: its lock would still be held when this process ends.
        while os.read(0, 1 << 16):
            pass
        ended(process)

    threading.Thread(target=watch, daemon=True).start()
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
