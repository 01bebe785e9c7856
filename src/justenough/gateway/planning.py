"""Decides what the gateway does with a request: gate it, audit it, or only observe it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from justenough.gate import GateSettings
from justenough.gateway.exchange import RawHeaders
from justenough.gateway.learn.audit import is_audited
from justenough.gateway.learn.learning import Learning
from justenough.gateway.plan import Plan
from justenough.gateway.request import CompletionRequest
from justenough.gateway.settings import GatewaySettings, Mode
from justenough.gateway.upstream.capability import Capabilities
from justenough.gateway.upstream.client import Upstream

_NO_LIMIT: Final = 1_000_000_000
"""Step limit for unbounded thoughts."""
_TEMPERATURE_ROUNDING: Final = 1e-6


def is_other_model(request: CompletionRequest, capabilities: Capabilities, settings: GatewaySettings) -> bool:
    """Whether the request is for another model than the calibrated one; a threshold is valid for one model only."""
    allowed = settings.calibrated_models
    if not allowed or request.model in allowed:
        return False
    # A request without a model's name is for the upstream's only model.
    return request.model is not None or len(capabilities.models) != 1 or capabilities.models[0] not in allowed


def limit_member(request: CompletionRequest, capabilities: Capabilities | None) -> str:
    """The member for a limit of tokens: OpenAI's own reasoning models accept only the newer name."""
    is_own = capabilities is not None and capabilities.engine != "unknown"
    return "max_tokens" if is_own or request.kind == "completion" else "max_completion_tokens"


def plan_for(
    request: CompletionRequest,
    capabilities: Capabilities,
    settings: GatewaySettings,
    learning: Learning,
    *,
    client: str,
) -> Plan:
    """The plan for a request of `client` that may be gated."""
    gate = gate_for(request, settings)
    # An audit compares a gate with the whole thought, which a rule is not.
    audited = settings.rule is None and is_audited(settings.audit_share)
    if request.mode(settings) == "observe":
        # Without a calibration there is nothing to audit. Then an audit collects traces for a calibration.
        collects = audited and settings.calibration is None and learning.recorder is not None
        can_elicit = request.kind == "completion" or capabilities.chat is not None
        return Plan(course="audit" if collects and can_elicit else "observe", gate=gate)
    reason = _reason_to_observe(request, capabilities, settings, drifted=learning.drift.is_off(client))
    if reason is not None and not (reason == "drift" and audited):
        return Plan(course="observe", gate=gate, reason=reason)
    # After a drift an audited request shows what the threshold should be.
    return Plan(course="audit" if audited else "gate", gate=gate, reason=reason)


def gate_for(request: CompletionRequest, settings: GatewaySettings) -> GateSettings:
    """The gate for a request: a client may lower the threshold, but not raise it."""
    gate, control = settings.gate, request.control
    threshold, steps = gate.threshold, control.max_steps or _NO_LIMIT
    if gate.shape == "sequential":
        steps = min(steps, gate.max_steps, settings.limits.max_steps)
    if threshold is not None and control.threshold is not None:
        threshold = min(threshold, control.threshold)
    if settings.cascade is not None:
        # The threshold is not valid for the second model, so its answer is always accepted.
        gate, steps = replace(gate, decide="first", patience=1), min(steps, 2)
    return replace(gate, threshold=threshold, max_steps=steps)


def _reason_to_observe(
    request: CompletionRequest, capabilities: Capabilities, settings: GatewaySettings, *, drifted: bool
) -> str | None:
    continues = settings.gate.shape == "streaming" or settings.extend == "wait"
    if continues and request.kind == "chat" and capabilities.chat is None:
        return "cannot_continue"
    calibrated = settings.gate.signal.temperature
    if calibrated is not None:
        candidates = (request.temperature, settings.default_temperature, capabilities.temperature)
        temperature = next((value for value in candidates if value is not None), None)
        if temperature is None:
            return "temperature_unknown"
        if abs(temperature - calibrated) >= _TEMPERATURE_ROUNDING:
            return "temperature"
    return "drift" if drifted else None


def with_thinking_limit(
    request: CompletionRequest, capabilities: Capabilities | None, settings: GatewaySettings
) -> CompletionRequest:
    """The request with the server's own limit on a thought that the gateway does not cut, so that it answers."""
    member = None if capabilities is None else capabilities.thinking
    if capabilities is None or member is None or request.kind != "chat" or request.max_tokens is None:
        return request
    # Of several models at one vLLM, another one may refuse the member.
    probed = (None, capabilities.probed_model, *settings.calibrated_models)
    if capabilities.engine == "vllm" and request.model not in probed:
        return request
    answer = min(settings.answer_tokens, request.max_tokens // 2)
    return request.with_thinking(request.max_tokens - answer, member=member)


async def why_not_as_a_chat(
    request: CompletionRequest,
    capabilities: Capabilities,
    plan: Plan,
    upstream: Upstream,
    *,
    mode: Mode,
    headers: RawHeaders,
) -> str | None:
    """Why a request of another API is relayed instead of being served as a chat; None if there is no reason."""
    api, engine = request.api, capabilities.engine
    if api is None or api.asks_itself:
        return None
    if plan.course == "observe" or mode == "observe":
        # The server's own answer may have further members.
        return plan.reason or "observe"
    if not api.has_defaults_of_a_chat(request.fields, engine):
        return "defaults"
    return "stored" if await api.keeps(request.fields, engine, upstream, headers=headers) else None
