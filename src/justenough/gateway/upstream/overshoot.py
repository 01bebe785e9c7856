"""What the upstream generates between our leaving and its own stop, by its own counter.

Whenever nothing has been under way for a moment, the upstream's counter of generated tokens is read: what it counted
since the last reading, beyond all that was received, was generated for nobody. Divided by the streams that were left
early it is the overshoot of one stop. Other clients of the same upstream make it larger, never smaller: a saving stated
net of it is at most too low.
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
"""Of quiet, after which an upstream that was left has noticed and stopped."""
_LINE: Final = re.compile(r"^([a-z]+:[a-z_]+_total)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)


class Overshoot:
    """One upstream's."""

    def __init__(self) -> None:
        self.counter: str | None = None
        """The upstream's own; None where it offers none."""
        self.received = 0
        """Completion tokens that came for requests which are followed."""
        self.left = 0
        """Streams left before their end."""
        self.uncounted = 0
        """Requests whose tokens nobody followed: a reading across one tells nothing."""
        self.tokens = 0.0
        self.stops = 0
        """What the readings add up to: tokens for nobody, of so many streams left."""
        self._baseline: tuple[float, int, int, int] | None = None

    @property
    def per_stop(self) -> float | None:
        """Tokens; None as long as nothing was measured."""
        return self.tokens / self.stops if self.stops else None

    @property
    def stale(self) -> bool:
        """Whether something has happened since the last reading."""
        return self._baseline is None or self._baseline[1:] != (self.received, self.left, self.uncounted)

    async def read(self, upstream: Upstream) -> None:
        """Read the counter while nothing is under way; raises `Refused` where the upstream cannot be asked."""
        value = await self._value(upstream)
        if value is None:
            return
        before, self._baseline = self._baseline, (value, self.received, self.left, self.uncounted)
        if before is None or self.uncounted != before[3] or value < before[0]:
            return
        stops = self.left - before[2]
        if stops:
            self.tokens += max(0.0, value - before[0] - (self.received - before[1]))
            self.stops += stops

    async def _value(self, upstream: Upstream) -> float | None:
        status, body = await call(upstream, "GET", "/metrics", headers=[])
        found: dict[str, float] = {}
        for name, value in _LINE.findall(body.decode("utf-8", "replace")) if status == 200 else ():
            if name in COUNTERS:
                found[name] = found.get(name, 0.0) + float(value)
        self.counter = next(iter(found), None)
        return None if self.counter is None else found[self.counter]

    def summary(self) -> dict[str, Json]:
        """For the status."""
        measured = self.per_stop is not None
        source = self.counter if measured else "not measured yet" if self.counter else "the upstream offers no counter"
        return {
            "overshoot_tokens": self.per_stop,
            "source": source,
            "counter": self.counter,
            "stops": self.stops,
            "tokens": self.tokens,
        }


async def follow(overshoot: Overshoot, upstream: Upstream, quiet_for: Callable[[], float], *, every_s: float) -> None:
    """Read the counter in quiet moments, until cancelled; gives up where the upstream has none."""
    try:
        while True:
            if overshoot.stale and quiet_for() >= SETTLED_S:
                await overshoot.read(upstream)
                if overshoot.counter is None:
                    return
            await asyncio.sleep(every_s)
    except Refused as refused:
        log.info("the overshoot is not measured: %s", refused.message)
