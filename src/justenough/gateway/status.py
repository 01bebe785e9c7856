"""The contents of `/v1/justenough/status` and the gauges of `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from justenough import __version__
from justenough.calibration.calibration import Calibration
from justenough.gateway.metrics import Metrics
from justenough.gateway.settings import GatewaySettings
from justenough.gateway.upstream.capability import Capabilities
from justenough.gateway.upstream.logprobs import short
from justenough.signal.thought import ThoughtFormat, opened_by
from justenough.trace import Json

if TYPE_CHECKING:
    from justenough.gateway.service import Service

_OF_CALIBRATION: Final = ("model", "threshold", "shape", "decide", "verdict", "guarantee", "n", "signal", "warnings")

_SHOWN_MODELS: Final = 100
HINTS: Final[Mapping[str, str]] = {
    "unknown_tags": "the thought comes in a field of its own, and its tags are unknown, so it is not cut: give its"
    " format by --thought NAME or --thought OPEN CLOSE",
    "no_thought": "answers without a thought are never cut; if the model thinks, give the format by --thought NAME,"
    " --thought OPEN CLOSE, or --thought until:CUE for a thought without tags",
    "missing_logprobs": "answers without log-probabilities are never cut; a rule on answers needs none:"
    " --rule answer-convergence:2",
    "short_logprobs": "answers with fewer log-probabilities than the calibration's are never cut: collect with the"
    " number that the upstream gives (--top-k), and calibrate again",
    "temperature_unknown": "requests that state no temperature are only observed, because the upstream does not tell"
    " its default: give it by --default-temperature T, or let the clients state the calibration's",
    "temperature": "requests at another temperature than the calibration's are only observed: calibrate at the"
    " temperature that the clients use",
    "cannot_continue": "the upstream cannot continue a thought that was cut, so chats are only observed",
    "drift": "the entropies differ from the calibration's, so nothing is stopped: calibrate again on present traffic",
    "model": "requests for another model than the calibration's are relayed; if the upstream has the calibrated model"
    " under this name too, give it by --serves NAME",
}
"""Why nothing is stopped and what to configure, by the note or the reason that is counted."""


def status(service: Service) -> dict[str, Json]:
    """The whole status, without keys and texts."""
    settings, learning = service.settings, service.learning
    configured = settings.effective_mode
    recorder = learning.recorder
    return {
        "version": __version__,
        "mode": "observe" if learning.drift.drifted and configured == "gate" else configured,
        "configured_mode": configured,
        "upstream": _upstream(service.capabilities),
        "extends_by": settings.extend if settings.gate.shape == "sequential" else None,
        "cascade": None if settings.cascade is None else {"model": settings.cascade.model},
        "without_logprobs": dict(service.logprobs.summary()),
        "calibration": _calibration(settings.calibration),
        "thought": asdict(_thought(settings, service.capabilities)),
        "active": service.active,
        "draining": service.draining,
        "outcomes": dict(service.metrics.outcomes),
        "observed": dict(service.metrics.observed),
        "relayed": dict(service.metrics.relayed),
        "undecided": dict(service.metrics.undecided),
        "hints": _hints(service.metrics),
        "audit": {"share": settings.audit_share, **learning.audit.summary(service.overshoot.per_stop)},
        "drift": learning.drift.summary(),
        "overshoot": service.overshoot.summary(),
        "recalibration": learning.recalibration.summary(),
        "feedback": learning.feedback.summary(),
        "budget": service.budgets.summary(),
        "record": None if recorder is None else {"traces": recorder.traces, "full": recorder.full},
    }


def _hints(metrics: Metrics) -> dict[str, Json]:
    counted = metrics.undecided.keys() | metrics.observed.keys() | metrics.relayed.keys()
    return {name: hint for name, hint in HINTS.items() if name in counted}


def gauges(service: Service) -> dict[str, float | None]:
    """The current values for Prometheus."""
    learning = service.learning
    summary = learning.audit.summary(service.overshoot.per_stop)
    fitted = learning.recalibration.fitted
    out: dict[str, float | None] = {
        "active_requests": service.active,
        "upstream_open_requests": service.upstream.open_requests,
        "drifted": int(learning.drift.drifted),
        "audited_requests": len(learning.audit),
        "audit_probe_tokens": learning.audit.probe_tokens,
        "overshoot_tokens_per_stop": service.overshoot.per_stop,
        "audited_saving_is_net": int(summary["saving_is"] == "net of the overshoot"),
        "recalibrated_examples": fitted.n if fitted is not None else None,
        "recalibrated_threshold": fitted.threshold if fitted is not None else None,
        "threshold": service.settings.calibration.threshold if service.settings.calibration is not None else None,
    }
    out |= service.budgets.totals()
    for key in ("saving", "saving_gross", "agreement", "stop_rate"):
        estimate = summary[key]
        for part, number in estimate.items() if isinstance(estimate, dict) else ():
            out[f"audited_{key}_{part}"] = float(number) if isinstance(number, int | float) else None
    return out


def _thought(settings: GatewaySettings, capabilities: Capabilities | None) -> ThoughtFormat:
    """The format that a chat's thought has unless a tag shows another one."""
    stored = settings.calibration is not None and settings.calibration.prompts is not None
    if settings.thought is not None or stored or capabilities is None or capabilities.thought is None:
        return settings.prompts.thought
    return (None if capabilities.apart else opened_by(capabilities.prompt_end)) or capabilities.thought


def _upstream(capabilities: Capabilities | None) -> Json:
    if capabilities is None:
        return None
    return {
        "engine": capabilities.engine,
        "models": [short(name) for name in capabilities.models[:_SHOWN_MODELS]],
        "continues_by": capabilities.chat,
        "limits_thoughts_by": capabilities.thinking,
        "default_temperature": capabilities.temperature,
        "probe_tokens": capabilities.probe_tokens,
    }


def _calibration(calibration: Calibration | None) -> Json:
    if calibration is None:
        return None
    members = calibration.to_json()
    return {key: members.get(key) for key in _OF_CALIBRATION}
