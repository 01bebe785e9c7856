"""The endpoint of the decisions, and what the workers keep for it."""

from __future__ import annotations

import asyncio
import tomllib
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from justenough.integrations.engine.closing import Closing
from justenough.integrations.engine.request import Order
from justenough.integrations.engine.track import Tracks
from justenough.integrations.vllm.endpoint import Decisions
from justenough.integrations.vllm.worker import Extension
from justenough.signal.thought import THINK
from tests.unit.gateway.serving import calibration_of


class Words:
    def decode(self, ids: list[int], /) -> str:
        return "".join(chr(id) for id in ids)


ROOT = Path(__file__).parents[4]
CLOSING = Closing((1,), (2,), (2,), THINK)


def order(number: int) -> Order:
    return Order(f"key-{number}", f"id-{number % 3}", calibration_of(0.5))


def test_only_the_last_requests_are_kept() -> None:
    tracks = Tracks(most=2)
    first = tracks.get(order(0), CLOSING, Words())
    second = tracks.get(order(1), CLOSING, Words())
    # The first comes back from preemption.
    assert tracks.get(order(0), CLOSING, Words()) is first
    tracks.get(order(2), CLOSING, Words())
    assert tracks.get(order(0), CLOSING, Words()) is first
    assert tracks.get(order(1), CLOSING, Words()) is not second


def test_of_two_requests_with_one_id_the_last_is_reported() -> None:
    tracks = Tracks()
    for number in (0, 3):
        track = tracks.get(order(number), CLOSING, Words())
        track.notes[track.order.key] = None
    report = tracks.report("id-0")
    assert report is not None
    assert report["notes"] == ["key-3"]
    assert tracks.report("none") is None


class Engine:
    """An engine with three workers, of which the last has seen the request."""

    async def collective_rpc(
        self, method: str, timeout: float | None = None, args: tuple[object, ...] = ()
    ) -> Sequence[dict[str, Any] | None]:
        assert hasattr(Extension, method)
        return [None, None, {"id": args[0]} if args == ("one",) else None]


@pytest.mark.parametrize(("id", "status"), [("one", 200), ("two", 404)])
def test_the_decisions_are_read_from_any_worker(id: str, status: int) -> None:
    async def ask() -> httpx.Response:
        app, plugin = Starlette(), Decisions()
        plugin.attach_router(app)
        await plugin.init_state(Engine(), app.state, Namespace())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.get(f"/justenough/decisions/{id}")

    answer = asyncio.run(ask())
    assert answer.status_code == status
    body = answer.json()
    assert body == {"id": "one"} if status == 200 else "no decisions on 'two'" in body["error"]["message"]


def test_the_package_adds_nothing_to_a_server_that_does_not_name_it() -> None:
    # vLLM loads a logits processor of that group into every server, and other groups at its start.
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert [group for group in groups if group.startswith("vllm")] == ["vllm.endpoint_plugins"]
