"""Probes the upstream in the background until the result is conclusive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import replace
from typing import Final

from justenough.gateway.exchange import RawHeaders, Refused
from justenough.gateway.upstream.apart import with_apart
from justenough.gateway.upstream.capability import Capabilities, NotProbed, probe
from justenough.gateway.upstream.client import Upstream
from justenough.gateway.upstream.thinking import with_thinking

LONGEST_WAIT_S: Final = 5.0
"""After so many seconds of a probe, requests are relayed until it is over."""
QUICK_PROBES: Final = 3
"""Inconclusive probes before the gateway pauses between probes."""
PATIENT_PROBES: Final = 6
"""Inconclusive probes before the gateway assumes, for some time, that the upstream cannot continue a chat."""
_LONGEST_PAUSE_S: Final = 60.0
"""Longest pause while requests are only relayed."""
_LONGEST_USABLE_PAUSE_S: Final = 3600.0
"""Longest pause while requests are served with what is known of the upstream."""


class Probing:
    """What is known of the upstream, and the probe under way."""

    def __init__(
        self,
        upstream: Upstream,
        calibrated: Container[str],
        *,
        opened: bool = False,
        learned: Callable[[Capabilities], None],
    ) -> None:
        """`calibrated`: models that are probed rather than others; `learned` gets each new result.

        `opened`: whether the operator says that prompts open the thought.
        """
        self.capabilities: Capabilities | None = None
        self._upstream = upstream
        self._calibrated = calibrated
        self._opened = opened
        self._learned = learned
        self._probe: asyncio.Task[Capabilities] | None = None
        """The last probe; simultaneous requests share it."""
        self._began = 0.0
        self._failed = 0
        self._next_at = 0.0
        """Earliest time of the next probe, on the loop's clock."""

    async def close(self) -> None:
        """End the probe under way."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait((self._probe,))

    async def find(self, *, headers: RawHeaders) -> Capabilities:
        """What the upstream can do; it is probed unless the last result was conclusive.

        Raises `NotProbed` if nothing is known. After some seconds the probe continues without this call, which then
        returns what is known.
        """
        loop = asyncio.get_running_loop()
        while self.capabilities is None or not self.capabilities.conclusive:
            if is_own := self._probe is None or self._probe.done():
                if loop.time() < self._next_at:
                    break
                self._probe, self._began = asyncio.ensure_future(self._probed(headers)), loop.time()
            task = self._probe
            await asyncio.wait((task,), timeout=self._began + LONGEST_WAIT_S - loop.time())
            if not task.done():
                break
            # A probe with another client's key may fail where this client's succeeds.
            if is_own or task.exception() is None:
                return task.result()
        if self.capabilities is None:
            raise NotProbed(0)
        return self.capabilities

    async def _probed(self, headers: RawHeaders) -> Capabilities:
        now = asyncio.get_running_loop().time()
        known = self.capabilities
        settle = self._failed >= PATIENT_PROBES
        try:
            result = await probe(self._upstream, headers=headers, calibrated=self._calibrated, settle=settle)
            result = await with_thinking(self._upstream, result, headers=headers)
            result = await with_apart(self._upstream, result, opened=self._opened, headers=headers)
        except Refused as refused:
            error = refused if isinstance(refused, NotProbed) else NotProbed(0)
            # Without a connection a probe costs nothing, so it is repeated as soon as the upstream may be back.
            if not error.is_about_client and refused.code != "upstream_unreachable":
                self._later(now, longest_s=_LONGEST_PAUSE_S)
            if known is not None:
                return known
            raise error from refused
        if not result.conclusive:
            self._later(now, longest_s=_LONGEST_USABLE_PAUSE_S)
        if known is not None:
            result = _completed(result, known)
            if result.positives < known.positives:
                return known
        self.capabilities = result
        self._learned(result)
        return result

    def _later(self, now: float, *, longest_s: float) -> None:
        """Pause after an inconclusive probe; after the first ones each pause is twice as long."""
        self._failed += 1
        if self._failed > QUICK_PROBES:
            self._next_at = now + min(2.0 ** (self._failed - QUICK_PROBES), longest_s)


def _completed(result: Capabilities, known: Capabilities) -> Capabilities:
    """A result with what is known of the same model, where a doubtful answer says nothing of it."""
    is_same = result.probed_model == known.probed_model
    if not result.doubtful or not is_same or result.engine not in (known.engine, "unknown"):
        return result
    return replace(
        result,
        engine=known.engine,
        extra=known.extra,
        temperature=known.temperature if result.temperature is None else result.temperature,
        thought=result.thought or known.thought,
        prompt_end=result.prompt_end or known.prompt_end,
        apart=known.apart if known.prompt_end or not result.prompt_end else result.apart,
        thinking=result.thinking or known.thinking,
    )
