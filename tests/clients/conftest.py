"""Three servers to ask: llama.cpp's own, the gateway before it that does nothing, and the one that stops thoughts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import httpx
import pytest

from tests.clients.ask import MESSAGES, MODEL, SETTINGS
from tests.e2e.gateway.test_serve import serving
from tests.unit.gateway.serving import calibration_of

ANYTHING = 1e6
"""A threshold, bits, that every paragraph is below."""


class Servers(NamedTuple):
    """Base URLs, without `/v1`."""

    direct: str
    off: str
    gate: str


@pytest.fixture(scope="session")
def servers(llama_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    calibration = tmp_path_factory.mktemp("clients") / "calibration.json"
    calibration.write_text(calibration_of(ANYTHING, model=MODEL, temperature=SETTINGS["temperature"]).dumps())
    gated = ("--calibration", str(calibration), "--close", "</think>", "--audit-share", "0")
    # Once before all: llama.cpp tells how much of a prompt it still knew.
    body: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, **SETTINGS}
    httpx.post(f"{llama_server}/v1/chat/completions", json=body, timeout=120).raise_for_status()
    with ExitStack() as stack:
        off, _ = stack.enter_context(serving("--upstream", llama_server, "--mode", "off"))
        gate, _ = stack.enter_context(serving("--upstream", llama_server, *gated))
        yield Servers(llama_server, off, gate)
