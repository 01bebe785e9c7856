"""Clients of other APIs than OpenAI's completions. Ollama is played by `MockUpstream`: it is no Python package."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import pytest

from justenough.testing import CONFIDENT, MockUpstream
from tests.answers import CHANGING, steady
from tests.clients.ask import MODEL
from tests.clients.conftest import ANYTHING, Servers
from tests.clients.test_clients import PROGRAMS, ran
from tests.e2e.gateway.test_serve import serving
from tests.unit.gateway.serving import calibration_of

pytestmark = pytest.mark.clients

STEADY: Final = {**CHANGING, "created_at": float, "completed_at": float, "usage": dict}
"""How much of a prompt llama.cpp still knew is in the usage of these APIs."""


def asked(name: str, folder: Path, *urls: str) -> dict[str, Any]:
    """From a server's URL to what the client read."""
    file = folder / "read.json"
    ran([str(PROGRAMS / "python"), "-m", "tests.clients.ask_apis", name, str(file), *urls], folder)
    results: dict[str, Any] = json.loads(file.read_text())
    return results


@contextmanager
def playing_ollama() -> Iterator[str]:
    """The URL of a mock that runs in a thread."""
    ready, over, urls = Event(), Event(), list[str]()

    async def play() -> None:
        thought = ("6 times 7", " is 42.\n\n", "Yes, 42.\n\n")
        async with MockUpstream(model=MODEL, engine="ollama", logprobs=(CONFIDENT,), thought=thought) as mock:
            urls.append(mock.url)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = Thread(target=lambda: asyncio.run(play()))
    thread.start()
    try:
        ready.wait()
        yield urls[0]
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("name", ["responses", "messages"])
def test_a_client_reads_the_same_in_off_mode_and_a_stopped_thought_with_the_gate(
    name: str, servers: Servers, tmp_path: Path
) -> None:
    results = asked(name, tmp_path, *servers)
    assert steady(results[servers.off], STEADY) == steady(results[servers.direct], STEADY)
    assert results[servers.gate]["error"] == results[servers.direct]["error"] != ""
    for call in ("whole", "streamed"):
        gated, text = results[servers.gate][call]
        assert re.fullmatch(r"<think>\S+\n\n</think>Answer: \d+", text)
        assert gated.get("stop_reason", gated.get("status")) in ("end_turn", "completed")
        assert 0 < gated["usage"]["output_tokens"] < results[servers.direct]["whole"][0]["usage"]["output_tokens"]
    # Anthropic's client drops what it does not know of a stream's last event.
    assert results[servers.gate]["whole"][0]["justenough"]["decision"] == "stopped"


def test_ollamas_client_reads_the_same_in_off_mode_and_a_stopped_thought_with_the_gate(tmp_path: Path) -> None:
    calibration = tmp_path / "calibration.json"
    calibration.write_text(calibration_of(ANYTHING, model=MODEL, temperature=0.0).dumps())
    gated = ("--calibration", str(calibration), "--close", "</think>", "--audit-share", "0")
    with (
        playing_ollama() as direct,
        serving("--upstream", direct, "--mode", "off") as (off, _),
        serving("--upstream", direct, *gated) as (gate, _),
    ):
        results = asked("ollama", tmp_path, direct, off, gate)
    assert results[off] == results[direct]
    for call in ("whole", "streamed", "generated"):
        last, text = results[gate][call]
        assert text == "<think>6 times 7 is 42.\n\n</think>The answer is 42."
        assert (last["done_reason"], last["eval_count"]) == ("stop", 7)
