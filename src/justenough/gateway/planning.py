"""What is to be done with a request: gated, audited, or only observed and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from justenough.gate import GateSettings
from justenough.gateway.learn.audit import is_audited
from justenough.gateway.learn.learning import Learning
from justenough.gateway.plan import Plan
from justenough.gateway.request import Asked
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.capability import Capabilities

_ENDLESS: Final = 1_000_000_000
"""Steps of a thought that nobody bounds: the gate stops for confidence alone."""
_TEMPERATURE_ROUNDING: Final = 1e-6


def other_model(asked: Asked, capabilities: Capabilities, settings: GatewaySettings) -> str | None:
    """Whether it is of another model, which is left alone: a threshold is of one; None for the calibrated one."""
    allowed = settings.calibrated_models
    if not allowed or asked.model in allowed:
        return None
    # A request that names no model gets the only one that there is.
    only = capabilities.models[0] if len(capabilities.models) == 1 else None
    return None if asked.model is None and only in allowed else "model"


def planned(asked: Asked, capabilities: Capabilities, settings: GatewaySettings, learning: Learning) -> Plan:
    """What is to be done with a request that may be gated."""
    gate = gate_for(asked, settings)
    audited = is_audited(asked.identity, settings.audit_share, secret=settings.audit_secret)
    if asked.mode(settings) == "observe":
        # Without a calibration there is nothing to audit, but traces to collect for one.
        collects = audited and settings.calibration is None and learning.recorder is not None
        can = asked.kind == "completion" or capabilities.chat is not None
        return Plan(course="audit" if collects and can else "observe", gate=gate)
    reason = _only_observed(asked, capabilities, settings, drifted=learning.drift.drifted)
    if reason == "drift" and audited:
        # Runs to its end like all others now, and tells what the threshold would have to be.
        return Plan(course="audit", gate=gate, reason=reason)
    if reason is not None:
        return Plan(course="observe", gate=gate, reason=reason)
    return Plan(course="audit" if audited else "gate", gate=gate)


def gate_for(asked: Asked, settings: GatewaySettings) -> GateSettings:
    """The gate for a request: a client may ask for a stricter threshold, never for a laxer one."""
    gate, control = settings.gate, asked.control
    threshold = gate.threshold
    steps = control.max_steps or _ENDLESS
    if gate.shape == "sequential":
        steps = min(steps, gate.max_steps, settings.limits.max_steps)
    if threshold is not None and control.threshold is not None:
        threshold = min(threshold, control.threshold)
    if settings.cascade is not None:
        # The threshold says nothing of the second model's entropies: that one has the last word.
        gate, steps = replace(gate, decide="first", patience=1), min(steps, 2)
    return replace(gate, threshold=threshold, max_steps=steps)


def _only_observed(asked: Asked, capabilities: Capabilities, settings: GatewaySettings, *, drifted: bool) -> str | None:
    """Why a request that may be gated is not."""
    continues = settings.gate.shape == "streaming" or settings.extend == "wait"
    if continues and asked.kind == "chat" and capabilities.chat is None:
        return "cannot_continue"
    drift = "drift" if drifted else None
    calibrated = settings.gate.signal.temperature
    if calibrated is None:
        return drift
    asked_for = asked.temperature
    if asked_for is None:
        asked_for = settings.default_temperature
    if asked_for is None:
        asked_for = capabilities.temperature
    if asked_for is None:
        return "temperature_unknown"
    return drift if abs(asked_for - calibrated) < _TEMPERATURE_ROUNDING else "temperature"
