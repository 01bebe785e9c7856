"""The backend `openai:` before vLLM: held to the contract of all backends, and a stop that its own counter sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import cast

import pytest

from justenough.backends.openai import OpenAIBackend
from justenough.backends.protocol import Finish
from justenough.cli import main
from justenough.trace import Token, Trace
from justenough.trace.files import read_traces
from tests.contract import test_backends as contract
from tests.contract.conftest import Case, request
from tests.e2e.gateway.through import MODEL
from tests.vllm.conftest import generated, settled

pytestmark = pytest.mark.vllm

globals().update({name: test for name, test in vars(contract).items() if name.startswith("test_")})
for name in (
    # Its model never ends by itself; here it does.
    "test_closing_a_stream_really_stops_the_generation",
    # At a temperature of 10; vLLM takes 2 at most.
    "test_problem_step_and_seed_each_draw_their_own_noise",
):
    del globals()[name]


@pytest.fixture
def case(vllm_server: str) -> Case:
    return Case("vllm", lambda: OpenAIBackend(MODEL, base_url=f"{vllm_server}/v1", server="vllm", concurrency=4))


@pytest.fixture
def live(case: Case) -> Case:
    return case


def test_closing_a_stream_stops_the_generation(vllm_server: str, case: Case) -> None:
    async def run() -> float:
        backend, before = case.open(), generated(vllm_server)
        stream = cast("AsyncGenerator[Token | Finish, None]", backend.stream(request("47*36", temperature=0.0)))
        async with aclosing(stream):
            for _ in range(5):
                await anext(stream)
        stopped = await settled(vllm_server)
        await asyncio.sleep(0.5)
        assert generated(vllm_server) == stopped
        await backend.close()
        return stopped - before

    # Read to its end it is 276 tokens; on a busy machine a good part of them before we are heard.
    assert 5 <= asyncio.run(run()) < 276


def test_what_is_collected_is_what_the_embedded_model_says(vllm_server: str, tmp_path: Path) -> None:
    asked: tuple[str, ...] = ("--tasks", "arithmetic", "--limit", "4", "--temperature", "0", "--max-tokens", "300")
    asked += ("--shape", "sequential", "--steps", "2")
    places = {f"openai:{MODEL}": ("--base-url", f"{vllm_server}/v1"), "embedded": ()}
    before = generated(vllm_server)
    traces: list[tuple[Trace, ...]] = []
    for number, (model, where) in enumerate(places.items()):
        out = tmp_path / f"{number}.parquet"
        assert main(["collect", "--model", model, *where, *asked, "--out", str(out)]) == 0
        traces.append(tuple(read_traces(out).traces))
    theirs, ours = ([step for trace in each for step in trace.steps] for each in traces)
    assert [step.text for step in theirs] == [step.text for step in ours]
    assert [step.correct for step in theirs] == [step.correct for step in ours]
    for step, other in zip(theirs, ours, strict=True):
        assert step.entropies == pytest.approx(other.entropies, abs=1e-3)
    # It counts the token that ends a turn too.
    assert generated(vllm_server) - before == sum(step.tokens + (step.finish == "stop") for step in theirs)
