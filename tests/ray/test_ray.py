"""Ray Data on two workers, of which one is killed. `make test-ray` runs these tests in an environment with Ray."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pyarrow as pa
import pytest

from justenough.integrations.ray import ask_gateway, score_table, score_traces
from justenough.testing import MockUpstream
from justenough.trace.files import TraceFile, write_traces
from tests.e2e.gateway.test_serve import serving
from tests.unit.gateway.serving import calibration_of
from tests.unit.integrations.test_ray import calibrated, recorded

psutil = pytest.importorskip("psutil")
ray = pytest.importorskip("ray")
pytestmark = pytest.mark.ray

MODEL = "justenough-embedded"
TRACES = 200


@pytest.fixture(scope="module", autouse=True)
def workers() -> Iterator[None]:
    """Two workers, which find this repository's tests."""
    paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": paths})
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


def table_of(data: Any, *order: str) -> pa.Table:
    """All rows of a data set, in order."""
    return pa.concat_tables(ray.get(data.to_arrow_refs())).sort_by([(name, "ascending") for name in order])


def in_order(table: pa.Table) -> pa.Table:
    return table.sort_by([("id", "ascending"), ("number", "ascending")])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same traces in eight files, and in one file beside them."""
    folder = tmp_path_factory.mktemp("traces")
    traces = recorded(TRACES)
    for part in range(8):
        write_traces(traces[part::8], folder / f"part-{part}.parquet")
    write_traces(traces, folder.parent / "all.parquet")
    return folder


def test_two_workers_of_which_one_is_killed_give_the_numbers_of_one_process(folder: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"

    def dies_once(batch: pa.Table) -> pa.Table:
        try:
            killed.touch(exist_ok=False)
        except FileExistsError:
            return batch
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not killed")

    data = ray.data.read_parquet(str(folder)).map_batches(dies_once, batch_size=None, batch_format="pyarrow")
    scored = table_of(score_traces(data), "id", "number")
    assert killed.exists()
    assert scored.equals(in_order(TraceFile(folder.parent / "all.parquet").to_arrow()))


def test_two_workers_give_the_decisions_of_one_process(folder: Path) -> None:
    import pyarrow.parquet as pq

    calibration = calibrated("model")
    scored = table_of(score_traces(ray.data.read_parquet(str(folder)), calibration=calibration), "id", "number")
    whole = score_table(pq.read_table(folder.parent / "all.parquet"), calibration=calibration)
    assert scored.equals(in_order(whole))
    assert 0 < scored.column("action").null_count < len(scored)


def test_two_actors_get_the_replies_of_one_client(llama_server: str, tmp_path: Path) -> None:
    calibration = tmp_path / "calibration.json"
    calibration.write_text(calibration_of(1e6, model=MODEL, temperature=0.0).dumps())
    gated = ("--calibration", str(calibration), "--close", "</think>", "--audit-share", "0")
    problems = [f"{a}*{b}" for a in (47, 23, 12) for b in (36, 19)]
    body: dict[str, Any] = {"model": MODEL, "temperature": 0.0, "seed": 1, "max_tokens": 400}
    with serving("--upstream", llama_server, *gated) as (url, _):
        data = ray.data.from_items([{"id": problem, "problem": problem} for problem in problems], override_num_blocks=2)
        replies = table_of(ask_gateway(data, f"{url}/v1", body=body, in_flight=2), "id").to_pylist()
        for problem, row in zip(sorted(problems), replies, strict=True):
            asked = {**body, "messages": [{"role": "user", "content": problem}]}
            one = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=None).json()
            assert row["reply"] == one["choices"][0]["message"]["content"]
            assert row["reply_tokens"] == one["usage"]["completion_tokens"]
            assert row["reply_decision"] == one["justenough"]["decision"] == "stopped"


def test_actors_that_are_killed_lose_no_problem() -> None:
    arrived, killed, over = Event(), Event(), Event()
    urls: list[str] = []
    actors: list[int] = []
    ready = Event()

    async def play() -> None:
        async def held() -> None:
            arrived.set()
            await asyncio.to_thread(killed.wait)

        async with MockUpstream(before_token=held) as upstream:
            urls.append(upstream.url)
            ready.set()
            await asyncio.to_thread(over.wait)

    def kill() -> None:
        """Kill all actors while requests are under way."""
        arrived.wait()
        # Ray's processes are descendants of the one that started it.
        started = psutil.Process().children(recursive=True)
        for actor in [child for child in started if "MapWorker" in " ".join(child.cmdline())]:
            actor.kill()
            actors.append(actor.pid)
        killed.set()

    threads = [Thread(target=lambda: asyncio.run(play())), Thread(target=kill)]
    for thread in threads:
        thread.start()
    ready.wait()
    try:
        with serving("--upstream", urls[0], "--mode", "off") as (url, _):
            data = ray.data.from_items([{"id": at, "problem": f"{at}"} for at in range(24)], override_num_blocks=4)
            rows = table_of(ask_gateway(data, f"{url}/v1", body={"model": "mock"}, in_flight=2), "id").to_pylist()
    finally:
        arrived.set()
        killed.set()
        over.set()
        for thread in threads:
            thread.join()
    assert actors
    assert [row["id"] for row in rows] == list(range(24))
    assert all(row["reply"].endswith("The answer is 42.") for row in rows)
    assert [row["reply_error"] for row in rows] == [None] * 24
