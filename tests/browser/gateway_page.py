"""The gateway's page opened in a browser, before a gateway that runs in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from justenough.gateway.settings import GatewaySettings
from justenough.testing import MockUpstream
from justenough.wire.events import DONE, EventReader
from tests.unit.gateway.serving import calibration_of, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Response

MODEL = "justenough-embedded"
NOISE = "Failed to load resource"
"""Chromium's own line about any status that is an error; what the page makes of it is tested."""


@dataclass(frozen=True, slots=True)
class Place:
    url: str
    mock: MockUpstream | None


@contextmanager
def served(upstream: str | MockUpstream, *, playground: bool | None = None, **settings: Any) -> Iterator[Place]:
    """A gateway before a server, or before a mock that lives as long."""
    ready, places, ending = threading.Event(), list[Place](), list[asyncio.Event]()
    given: dict[str, Any] = {"calibration": calibration_of(1.0), "audit_share": 0.0, "close": "</think>"} | settings
    loop = asyncio.new_event_loop()

    async def gateway(url: str, mock: MockUpstream | None) -> None:
        ending.append(asyncio.Event())
        async with running(GatewaySettings(upstream=url, **given), playground=playground) as found:
            places.append(Place(found.url, mock))
            ready.set()
            await ending[0].wait()

    async def main() -> None:
        if isinstance(upstream, str):
            await gateway(upstream, None)
        else:
            async with upstream as mock:
                await gateway(mock.url, mock)

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        assert ready.wait(20)
        yield places[0]
    finally:
        loop.call_soon_threadsafe(ending[0].set)
        thread.join()
        loop.close()


class Playground:
    """The page, with all that it complained of or asked for."""

    def __init__(self, browser: Browser, url: str, *, path: str = "/", width: int = 1280, dark: bool = False) -> None:
        self.url = url
        self.page: Page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        self.said: list[str] = []
        self.asked: list[str] = []
        self.answers: list[Response] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("response", self._answered)
        self.page.set_default_timeout(90_000)
        self.page.goto(url + path)
        self.page.wait_for_selector("html[data-ready]")

    def _answered(self, response: Response) -> None:
        if response.url.endswith("/v1/chat/completions"):
            self.answers.append(response)

    def ask(self, problem: str = "47*36", *, mode: str | None = None, seed: int | None = 1) -> None:
        """Fill in and ask; return when all has come."""
        self.begin(problem, mode=mode, seed=seed)
        self.page.wait_for_selector("#run[data-state=done]")

    def begin(self, problem: str = "47*36", *, mode: str | None = None, seed: int | None = 1) -> None:
        self.page.fill("#problem", problem)
        if mode is not None:
            self.page.check(f"input[name=mode][value={mode}]", force=True)
        if seed is not None:
            self.page.locator("#more").evaluate("details => { details.open = true; }")
            self.page.fill("#seed", str(seed))
        self.page.click("#go")

    def chunks(self) -> list[dict[str, Any]]:
        """The events of the last answer, as they went over the wire."""
        found = EventReader().feed(self.answers[-1].body())
        return [json.loads(payload) for payload in found if payload != DONE]

    def report(self) -> dict[str, Any]:
        """The `justenough` object of the last answer."""
        reports = [chunk["justenough"] for chunk in self.chunks() if "decision" in chunk.get("justenough", {})]
        assert len(reports) == 1
        return dict(reports[0])

    def bits(self) -> list[float | None]:
        """Of each token shown."""
        values = self.page.locator("#transcript .t").evaluate_all(
            "nodes => nodes.map(node => node.dataset.bits ?? null)"
        )
        return [None if value is None else float(value) for value in values]

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def quiet(self, *, errors: bool = False) -> None:
        """Nothing was complained of and nothing was asked of anyone else."""
        assert [line for line in self.said if not (errors and line.startswith(NOISE))] == []
        assert [url for url in self.asked if not url.startswith(f"{self.url}/")] == []


@contextmanager
def opened(
    browser: Browser,
    upstream: str | MockUpstream,
    *,
    path: str = "/",
    width: int = 1280,
    dark: bool = False,
    errors: bool = False,
    **settings: Any,
) -> Iterator[tuple[Playground, Place]]:
    """The page before a gateway; in the end it must have been quiet, but for `errors` that were to be."""
    with served(upstream, **settings) as place:
        shown = Playground(browser, place.url, path=path, width=width, dark=dark)
        try:
            yield shown, place
            shown.quiet(errors=errors)
        finally:
            shown.page.close()
