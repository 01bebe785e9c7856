"""Tokens that the upstream generates after we disconnect.

When nothing is running, the upstream's counter of generated tokens is read. Tokens that it counted since the last
reading but that the gateway did not receive were wasted. Their number divided by the streams that were left early is
the overshoot of one stop. Other clients of the same upstream can only increase it, so the net saving that is reported
is a lower bound.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Final

from justenough.gateway.exchange import Refused
from justenough.gateway.upstream.capability import call
from justenough.gateway.upstream.client import Upstream
from justenough.trace import Json

log: Final = logging.getLogger("justenough.gateway")

COUNTERS: Final = ("llamacpp:tokens_predicted_total", "vllm:generation_tokens_total")
SETTLED_S: Final = 1.0
"""Time without activity after which the upstream has noticed that it was left."""
_LINE: Final = re.compile(
    r"^([a-z]+:[a-z_]+_total)(?:\{[^}]*\})? (\d{1,18}(?:\.\d*)?(?:[eE][+-]?\d{1,2})?)$", re.MULTILINE
)


class Overshoot:
    """The overshoot of one upstream."""

    def __init__(self) -> None:
        self.counter: str | None = None
        """The name of the upstream's counter; None if it has none, or before it was looked for."""
        self.looked = False
        self.received = 0
        self.left = 0
        self.uncounted = 0
        """Requests whose tokens were not counted; a reading that includes one is dropped."""
        self.tokens = 0.0
        self.stops = 0
        """Sums over all readings: wasted tokens, and streams that were left."""
        self._baseline: tuple[float, int, int, int] | None = None

    @property
    def per_stop(self) -> float | None:
        """Tokens per stop; None until something was measured."""
        return self.tokens / self.stops if self.stops else None

    @property
    def stale(self) -> bool:
        """Whether there was any request since the last reading."""
        return self._baseline is None or self._baseline[1:] != (self.received, self.left, self.uncounted)

    async def read(self, upstream: Upstream) -> None:
        """Read the counter while nothing is running; raises `Refused` if the upstream does not answer."""
        counted = await read_counter(upstream)
        self.counter, self.looked = None if counted is None else counted[0], True
        if counted is None:
            return
        value = counted[1]
        before, self._baseline = self._baseline, (value, self.received, self.left, self.uncounted)
        if before is None or self.uncounted != before[3] or value < before[0]:
            return
        stops = self.left - before[2]
        if stops:
            self.tokens += max(0.0, value - before[0] - (self.received - before[1]))
            self.stops += stops

    def summary(self) -> dict[str, Json]:
        """The overshoot for the status."""
        measured = self.per_stop is not None
        missing = "the upstream offers no counter" if self.looked and self.counter is None else "not measured yet"
        source = self.counter if measured else missing
        return {
            "overshoot_tokens": self.per_stop,
            "source": source,
            "counter": self.counter,
            "stops": self.stops,
            "tokens": self.tokens,
        }


async def read_counter(upstream: Upstream) -> tuple[str, float] | None:
    """The name of the upstream's counter of generated tokens, and its value; None if it has none.

    Raises `Refused` if the upstream does not answer.
    """
    status, body = await call(upstream, "GET", "/metrics", headers=[])
    sums: dict[str, float] = {}
    for name, value in _LINE.findall(body.decode("utf-8", "replace")) if status == 200 else ():
        if name in COUNTERS:
            sums[name] = sums.get(name, 0.0) + float(value)
    return next(iter(sums.items()), None)


async def follow(overshoot: Overshoot, upstream: Upstream, quiet_for: Callable[[], float], *, every_s: float) -> None:
    """Read the counter whenever nothing is running, until cancelled; ends if the upstream has no counter."""
    try:
        while True:
            if overshoot.stale and quiet_for() >= SETTLED_S:
                await overshoot.read(upstream)
                if overshoot.counter is None:
                    return
            await asyncio.sleep(every_s)
    except Refused as refused:
        log.info("the overshoot is not measured: %s", refused.message)
