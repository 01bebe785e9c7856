"""The streaming shape where the upstream decides: vLLM with the plugin. It sends no log-probabilities.

The gateway sends the gate to the upstream, which returns its decisions at an endpoint of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final
from uuid import uuid4

import aiohttp
import msgspec

from justenough.gate import Decision
from justenough.gateway.exchange import Refused
from justenough.gateway.fields import value_of
from justenough.gateway.plan import Report
from justenough.gateway.serve.streaming import Generation
from justenough.gateway.serve.work import Job
from justenough.gateway.stream.reading import Reading
from justenough.gateway.upstream.capability import LONGEST_ASIDE_S, call

_FINISH: Final = b'"finish_reason":"'
"""A comment before the chunk with our report."""


class _Outcome(msgspec.Struct):
    """The part of the upstream's answer that is needed; see `integrations/vllm/endpoint.py`."""

    cut_at: int | None
    steps: list[Decision]
    notes: list[str] = msgspec.field(default_factory=list)


class Decided(Generation):
    """Serves one request whose thought the upstream gates."""

    def __init__(self, job: Job, *, reading: Reading) -> None:
        gate = job.plan.gate
        # Here no step ends, so that nothing is decided twice.
        gate = replace(gate, signal=replace(gate.signal, splitter="completion"))
        super().__init__(replace(job, plan=replace(job.plan, gate=gate)), reading=reading)
        self._id = uuid4().hex
        self._outcome: _Outcome | None = None
        self._asked = False
        self._tail = b""

    def _logprobs(self) -> dict[str, object]:
        calibration = self.job.settings.calibration
        gate = replace(calibration, threshold=self.plan.gate.threshold).dumps() if calibration is not None else 1
        own = value_of(self.request.fields, "vllm_xargs", dict[str, msgspec.Raw]) or {}
        changed = {"vllm_xargs": {**own, "justenough": gate, "justenough_id": self._id}}
        return changed | (super()._logprobs() if self.request.logprobs else {})

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        data = await super()._read(answer)
        if not self._asked and _FINISH in self._tail + data:
            self._asked = True
            await self._ask()
        self._tail = data[-len(_FINISH) :]
        return data

    async def _ask(self) -> None:
        """Ask the upstream for its decisions on this request."""
        watch, upstream, headers = self.watch, self.job.upstream, self.job.exchange.headers_for_new_body
        target = f"/justenough/decisions/{self._id}"
        try:
            # The end of the answer waits for it.
            status, body = await call(upstream, "GET", target, headers=headers, longest_s=LONGEST_ASIDE_S)
            self._outcome = msgspec.json.decode(body, type=_Outcome) if status == 200 else None
        except (Refused, msgspec.DecodeError):
            self._outcome = None
        watch.decisions = [] if self._outcome is None else self._outcome.steps
        watch.decision = watch.decisions[-1] if watch.decisions else None
        watch.first_entropy = watch.decisions[0].entropy if watch.decisions else None
        watch.notes |= dict.fromkeys(["decisions_unknown"] if self._outcome is None else self._outcome.notes)

    @property
    def undecided(self) -> list[str]:
        """Why the upstream could not decide."""
        return [reason for reason in super().undecided if reason != "missing_logprobs"]

    def report(self) -> Report:
        """The `justenough` object of the answer."""
        out = super().report()
        if self._outcome is not None and self._outcome.cut_at is not None:
            out |= {"decision": "stopped", "thought_tokens": self._outcome.cut_at}
        return out | {"decided_by": "upstream"}
