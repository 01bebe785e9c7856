"""vLLM's own server on the embedded model, with the thought in the text and in a field of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import CHECKPOINT
from tests.e2e.gateway.through import CHAT, MODEL

PROGRAM = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "vllm"
IS_V2 = os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1"
"""Whether the tests are for Model Runner V2."""
PATIENCE_S = 1800.0
"""For its start, for the first request, in which it compiles, and for its end."""
REASONING = ("--reasoning-parser", "deepseek_r1")
EXACT = (
    "--served-model-name",
    MODEL,
    "--dtype",
    "float32",
    "--enforce-eager",
    "--max-logprobs",
    "20",
    "--max-num-seqs",
    "8",
)
"""What each program of vLLM gets."""
KINDS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "reasoning": REASONING,
    # Takes thoughts out of earlier answers, as DeepSeek-R1's template does.
    "forgetful": (*REASONING, "--chat-template", str(Path(__file__).parent / "forgetful.jinja")),
}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session", params=["plain", "reasoning"])
def vllm_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's base URL, without `/v1`; it has answered once."""
    with serving(tmp_path_factory.mktemp("vllm") / "log", *KINDS[request.param]) as url:
        yield url


def environment() -> dict[str, str]:
    """The environment of a program of vLLM, for the runner that VLLM_USE_V2_MODEL_RUNNER names."""
    # One thread computes: the front end needs a core for itself, or it sends late what was generated long ago.
    one = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    env = os.environ | one | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    places = [Path(__file__).parents[2]]
    if IS_V2:
        # Its kernels run in Triton's interpreter, behind a backend that says that there is one for CPUs.
        env |= {"TRITON_INTERPRET": "1", "TRITON_DEFAULT_BACKEND": "cpu"}
        places += [PROGRAM.parents[1] / "triton", Path(__file__).parent / "interpreter"]
    return env | {"PYTHONPATH": os.pathsep.join(map(str, places))}


@contextmanager
def serving(log: Path, *options: str, checkpoint: Path | str = CHECKPOINT, **more: str) -> Iterator[str]:
    """The base URL of a server with these options and further environment variables; it has answered once."""
    port = _free_port()
    command = [str(PROGRAM), "serve", str(checkpoint), "--host", "127.0.0.1", "--port", str(port), *EXACT, *options]
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as written:
        process = subprocess.Popen(
            command, env=environment() | more, stdout=written, stderr=written, start_new_session=True
        )
        try:
            ends = time.monotonic() + PATIENCE_S
            while not _healthy(url):
                assert process.poll() is None, log.read_text()[-4000:]
                assert time.monotonic() < ends, "vLLM did not start in time"
                time.sleep(0.5)
            httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=PATIENCE_S).raise_for_status()
            yield url
        finally:
            # Its engine and workers are processes of their own, in the same group.
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def measured(server: str, name: str) -> float:
    """One of the server's own metrics."""
    text = httpx.get(f"{server}/metrics").text
    (value,) = re.findall(rf"^vllm:{name}\{{.*\}} (\S+)$", text, re.MULTILINE)
    return float(value)


def generated(server: str) -> float:
    """Tokens that the server has generated."""
    return measured(server, "generation_tokens_total")


def running_now(server: str) -> float:
    """Requests that it is generating for."""
    return measured(server, "num_requests_running")


async def settled(server: str) -> float:
    """Tokens generated, as soon as the server generates for nobody."""
    async with asyncio.timeout(60):
        while await asyncio.to_thread(running_now, server):
            await asyncio.sleep(0.01)
    return await asyncio.to_thread(generated, server)
