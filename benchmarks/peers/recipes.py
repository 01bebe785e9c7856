"""Installs and starts the other gateways: `python -m benchmarks.peers.recipes [NAME …]` creates their environments.

Each gets its own virtual environment below `JUSTENOUGH_PEERS` (default `~/.cache/justenough/peers`), with the pinned
versions of its list next to this file. optillm and Dynasor are installed without the packages for their local models
and notebooks (torch, transformers, datasets, …), because their servers do not load them. `signals` contains the two
tools whose functions `benchmarks.entropy` calls, without vLLM, which these functions do not need.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
import venv
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.peers.running import free_port, program

HERE: Final = Path(__file__).parent
FOLDER: Final = Path(os.environ.get("JUSTENOUGH_PEERS", "~/.cache/justenough/peers")).expanduser()
MODEL: Final = "justenough-embedded"
CLIENT_KEY: Final = f"sk-{secrets.token_hex(24)}"
"""The key that clients send; litellm's proxy does not start without one."""
KEY: Final = {"OPENAI_API_KEY": "none", "LITELLM_MASTER_KEY": CLIENT_KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A gateway of another project."""

    name: str
    command: Callable[[Path, str, int, Path], list[str]]
    """Makes the command from the folder of programs, the upstream, a port and a folder for files."""
    relays: bool = True
    """Whether it can relay the stream of an upstream that only sends tokens."""


def _litellm(programs: Path, upstream: str, port: int, folder: Path) -> list[str]:
    config = folder / "litellm.yaml"
    models = "".join(
        f"  - model_name: {name}\n    litellm_params:\n      model: openai/{name}\n      api_base: {upstream}/v1\n"
        "      api_key: none\n"
        for name in (MODEL, "bench")
    )
    config.write_text(f"model_list:\n{models}")
    return [str(programs / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]


def _optillm(programs: Path, upstream: str, port: int, folder: Path) -> list[str]:
    options = ["--host", "127.0.0.1", "--approach", "none", "--base-url", f"{upstream}/v1", "--port", str(port)]
    return [str(programs / "optillm"), *options]


def _entroplain(programs: Path, upstream: str, port: int, folder: Path) -> list[str]:
    return [str(programs / "entroplain-proxy"), "--port", str(port), "--api-base", f"{upstream}/v1"]


def _entroplain_never(programs: Path, upstream: str, port: int, folder: Path) -> list[str]:
    return [*_entroplain(programs, upstream, port, folder), "--no-early-exit"]


_DYNASOR: Final = """
import sys
from dynasor.cli import openai_server
# At its start it calls GET /v1/models/NAME, which llama.cpp does not have.
openai_server.DynasorOpenAIClient.ensure_model_initialized = lambda self, model: (model, None)
openai_server.main()
"""


def _dynasor(programs: Path, upstream: str, port: int, folder: Path) -> list[str]:
    options = ["--host", "127.0.0.1", "--base-url", f"{upstream}/v1", "--model", MODEL, "--port", str(port)]
    return [str(programs / "python"), "-c", _DYNASOR, *options]


RELAYING: Final = (
    Peer(name="litellm", command=_litellm),
    Peer(name="optillm", command=_optillm),
    Peer(name="entroplain", command=_entroplain_never),
)
"""As relays that stop nothing. Dynasor is missing: its requests for 32 tokens need an upstream with a model."""
STOPPING: Final = (
    Peer(name="litellm", command=_litellm),
    Peer(name="optillm", command=_optillm),
    Peer(name="entroplain", command=_entroplain),
    Peer(name="dynasor", command=_dynasor),
)
"""With their default settings."""


def environment(name: str) -> Path:
    """The folder of a peer's programs; creates it if needed. Raises `OSError` if that fails."""
    requirements = HERE / f"{name}.txt"
    folder = FOLDER / name
    stamp, wanted = folder / "made", hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(folder, with_pip=True)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "-r"]
        done = subprocess.run([*install, str(requirements)], capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line.strip() for line in done.stderr.splitlines() if "fatal" in line or "ERROR" in line]
            raise OSError(f"pip install --no-deps -r {requirements}: {errors[0] if errors else 'failed'}")
        stamp.write_text(wanted)
    return folder / "bin"


def start(stack: ExitStack, peer: Peer, upstream: str, folder: Path) -> tuple[str, int] | None:
    """Start a peer and return its address and process number; None, after printing the reason, if it cannot start."""
    port = free_port()
    try:
        command = peer.command(environment(peer.name), upstream, port, folder)
        pid = stack.enter_context(program(command, port=port, log=folder / f"{peer.name}.log", env=KEY))
    except OSError as error:
        print(f"{peer.name} cannot run here: {error}")
        return None
    return f"http://127.0.0.1:{port}", pid


def main() -> int:
    """Create the environments."""
    for name in sys.argv[1:] or [*(peer.name for peer in STOPPING), "signals"]:
        try:
            print(f"{name}: {environment(name)}")
        except OSError as error:
            print(f"{name} cannot be created here: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
