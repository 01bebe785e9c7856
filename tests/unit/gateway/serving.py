"""A gateway on a real socket inside the test's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from justenough.calibration.calibration import Calibration
from justenough.cli.configuration import configured
from justenough.cli.main import build_parser
from justenough.cli.serve import CASCADE_KEY, UPSTREAM_KEY, add_options, settings_of
from justenough.gate import Decide
from justenough.gateway.app.server import Server, build_server
from justenough.gateway.service import Service
from justenough.gateway.settings import GatewaySettings
from justenough.signal.signal import Signal
from justenough.trace import Shape


@dataclass(frozen=True, slots=True)
class Running:
    url: str
    server: Server
    service: Service
    task: asyncio.Task[None]


@asynccontextmanager
async def running(
    settings: GatewaySettings,
    *,
    drains: bool = False,
    playground: bool | None = None,
    allow_origins: tuple[str, ...] = (),
) -> AsyncIterator[Running]:
    """A gateway that has probed its upstream; with `drains` the whole server, whose loop runs ten times a second."""
    server, listener = build_server(
        settings, host="127.0.0.1", port=0, playground=playground, allow_origins=allow_origins
    )
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    if drains:
        # Not `serve`: that would take the test process's signal handlers.
        task = asyncio.ensure_future(server._serve([listener]))
        while not server.started:
            await asyncio.sleep(0.005)
        await asyncio.gather(*server.service._background)
        try:
            yield Running(url, server, server.service, task)
        finally:
            server.should_exit = True
            await task
        return
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup([listener])
    await asyncio.gather(*server.service._background)
    try:
        yield Running(url, server, server.service, asyncio.ensure_future(asyncio.sleep(0)))
    finally:
        for listening in server.servers:
            listening.close()
        listener.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        async with asyncio.timeout(30):
            while server.server_state.tasks:
                await asyncio.sleep(0.002)
        await server.lifespan.shutdown()


def calibration_of(
    threshold: float | None,
    *,
    model: str = "mock",
    decide: Decide = "every",
    shape: Shape = "streaming",
    splitter: str = "paragraph",
    temperature: float | None = None,
    min_tokens: int = 0,
    patience: int = 1,
    mean: float = 0.5,
    sd: float = 0.2,
) -> Calibration:
    """A calibration as one would be fitted, without the evidence."""
    return Calibration(
        method="mean",
        threshold=threshold,
        decide=decide,
        signal=Signal(splitter=splitter, logits="raw", temperature=temperature),
        model=model,
        task="arithmetic",
        shape=shape,
        max_steps=4,
        min_tokens=min_tokens,
        patience=patience,
        labels="graded",
        n=40,
        n_right=20,
        n_wrong=20,
        mean_right=mean,
        sd_right=sd,
        mean_wrong=mean,
        sd_wrong=sd,
        cohens_d=None,
        auroc=None,
        auroc_within_groups=None,
        verdict="cannot tell",
        needed=0,
        thresholds={"mean": threshold},
        threshold_outcomes={"mean": "ok"},
        guarantee=None,
        warnings=(),
        seed=0,
        fitted_on=(),
        data_fingerprint="",
    )


def served(*arguments: str) -> GatewaySettings:
    """The settings of a command."""
    given = build_parser().parse_args(arguments)
    return settings_of(configured(given, add_options, required="upstream", ignored=(UPSTREAM_KEY, CASCADE_KEY)))
