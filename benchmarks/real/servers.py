"""Starts llama.cpp's server and the gateway on ports of this machine, and waits until they answer."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import httpx

from benchmarks.real.leash import leashed

LOADED_WITHIN: Final = 600.0
"""Seconds until a server must answer; a large model takes minutes to load."""
EXTRAS: Final = {"xllamacpp": "llamacpp", "aiohttp": "gateway", "uvicorn": "gateway"}


class RunError(Exception):
    """The run cannot go on; the message says what is wrong, and how to mend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How llama.cpp serves a model."""

    slots: int = 8
    """Streams at a time."""
    context: int = 2048
    """Tokens of one stream, with its prompt."""
    threads: int = 1


def require_extras() -> None:
    """Raise `RunError` if a package that the run needs is not installed."""
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({EXTRAS[name] for name in missing}))
        raise RunError(f"{', '.join(missing)} is not installed: pip install -e '.[{extras}]', or call `make real`")


def usable_port(port: int) -> int:
    """The port, or a free one for 0; raises `RunError` if it is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RunError(f"port {port} is in use: choose another with --port, or --port 0 for a free one") from error
        number: int = probe.getsockname()[1]
        return number


@contextmanager
def llama(weights: Path, settings: ServerSettings, *, port: int, log: Path) -> Iterator[str]:
    """Serve a GGUF file with llama.cpp; the server's address, without `/v1`."""
    port = usable_port(port)
    command = [sys.executable, "-m", "benchmarks.real.serve", str(weights), "--port", str(port)]
    command += ["--slots", str(settings.slots), "--context", str(settings.context), "--threads", str(settings.threads)]
    with leashed(command, log=log) as process:
        url = f"http://127.0.0.1:{port}"
        await_answer(f"{url}/v1/models", process, log=log)
        yield url


@contextmanager
def gateway(upstream: str, calibration: Path, *, grader: str, log: Path, options: Sequence[str] = ()) -> Iterator[str]:
    """Run `justenough serve` before a server; the gateway's address, without `/v1`. No request is audited."""
    port = usable_port(0)
    command = [sys.executable, "-m", "justenough", "serve", "--upstream", upstream, "--calibration", str(calibration)]
    command += ["--port", str(port), "--audit-share", "0", "--grader", grader, "--no-playground", *options]
    with leashed(command, log=log) as process:
        url = f"http://127.0.0.1:{port}"
        await_answer(f"{url}/ready", process, log=log)
        yield url


def await_answer(url: str, process: subprocess.Popen[bytes], *, log: Path, within: float = LOADED_WITHIN) -> None:
    """Wait until a GET is answered with 200; raises `RunError` if the process ends, or after `within` seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lines = log.read_text(errors="replace").splitlines() or ["it printed nothing"]
            raise RunError(f"the server ended with exit code {process.returncode}: {lines[-1]} (all of it: {log})")
        try:
            if httpx.get(url, timeout=30, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RunError(f"{url} did not answer within {within:.0f} s; what the server printed: {log}")
