"""One request that is gated, audited or observed, with all that is needed to serve it."""

from __future__ import annotations

from dataclasses import dataclass

from justenough.gateway.exchange import Exchange
from justenough.gateway.plan import Plan
from justenough.gateway.request import CompletionRequest
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.stream.output import EventOutput, Output, WholeOutput
from justenough.gateway.upstream.capability import Capabilities
from justenough.gateway.upstream.client import Upstream


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

    @property
    def top_k(self) -> int:
        """Alternatives per token that the gate needs."""
        return self.plan.gate.signal.top_k or self.settings.top_k

    def output(self) -> Output:
        """The way to the client: a stream of events or one whole answer."""
        if self.request.stream:
            return EventOutput(self.exchange)
        return WholeOutput(self.exchange, self.request.kind, limit=self.settings.limits.max_answer_bytes)
