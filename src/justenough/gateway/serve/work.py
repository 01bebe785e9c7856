"""One request that is gated, audited or observed, and what both shapes share in serving it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import msgspec

from justenough.gateway.exchange import Exchange
from justenough.gateway.plan import Ended, Plan, Report
from justenough.gateway.request import CompletionRequest
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.stream.output import EventOutput, Output, WholeOutput
from justenough.gateway.upstream.capability import Capabilities
from justenough.gateway.upstream.client import Upstream
from justenough.gateway.upstream.formats import UNCONFIGURED, Formats
from justenough.trace import Json

_LONGEST_ID: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request, its plan and its upstream."""

    exchange: Exchange
    request: CompletionRequest
    plan: Plan
    upstream: Upstream
    cascade: Upstream | None
    """The server of the second model, if there is one."""
    settings: GatewaySettings
    capabilities: Capabilities
    formats: Formats = UNCONFIGURED
    """The formats that the thought may have."""

    @property
    def top_k(self) -> int:
        """Alternatives per token that the gate needs."""
        return self.plan.gate.signal.top_k or self.settings.top_k

    def output(self) -> Output:
        """The way to the client: a stream of events or one whole answer."""
        if self.request.stream:
            return EventOutput(self.exchange)
        return WholeOutput(self.exchange, self.request.kind, limit=self.settings.limits.max_answer_bytes)


class Work(ABC):
    """Serves one job."""

    def __init__(self, job: Job) -> None:
        self.job, self.request, self.plan = job, job.request, job.plan
        self.relayed = False
        """Whether the upstream's own answer was relayed: an error, or an answer that is not a stream."""
        self.stopped = False
        """Whether the gate stopped, or would have stopped in an audited sequence."""
        self.out_of_budget = False
        """Whether the request ended because its budget was spent."""
        self.failure: str | None = None
        """Why the last step failed; then the answer is that of the step before."""
        self.probe_tokens = 0
        """Tokens of the elicited answer that the client gets."""
        self.earlier_probes = 0
        """Tokens of elicited answers that only a rule reads."""
        self._output = job.output()
        self._head: dict[str, Json] = {}
        """The members that all chunks of this answer share."""

    @abstractmethod
    async def run(self) -> None:
        """Answer the client; raises `Refused`, or `RequestRefused` before anything was sent."""

    @abstractmethod
    def report(self) -> Report:
        """The `justenough` object of the answer."""

    @property
    def unseen(self) -> int:
        """Tokens that may have been generated beyond those counted."""
        return 0

    @property
    def ended(self) -> Ended | None:
        """What ended the request early."""
        return "budget" if self.out_of_budget else "stopped" if self.stopped else None

    @property
    def id(self) -> str | None:
        """The answer's id; None if it is too long to be remembered."""
        value = self._head.get("id")
        return value if isinstance(value, str) and len(value) <= _LONGEST_ID else None

    def _encoded(self, row: dict[str, Json], justenough: Report | None = None) -> bytes:
        """A chunk of the answer; the last one contains the report."""
        chunk: dict[str, Json] = self._head | {"choices": [row]}
        if row["finish_reason"] is not None:
            justenough = self.report()
        return msgspec.json.encode(chunk if justenough is None else chunk | {"justenough": justenough})

    async def _send_usage(self, *, prompt: int, completion: int, reasoning: int) -> None:
        """Send the usage event, unless the client of a stream did not ask for it."""
        if self.request.stream and not self.request.include_usage:
            return
        usage: dict[str, Json] = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
        await self._output.send([msgspec.json.encode(self._head | {"choices": [], "usage": usage})])
