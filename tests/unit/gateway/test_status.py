"""The status and the gauges of a gateway."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from justenough.gateway.learn.audit import Audited
from justenough.gateway.learn.drift import REPEATS, WINDOW
from justenough.gateway.service import Service
from justenough.gateway.settings import CascadeSettings, GatewaySettings
from justenough.gateway.status import gauges, status
from justenough.gateway.upstream.capability import Capabilities
from tests.unit.gateway.serving import calibration_of

GATING = GatewaySettings(upstream="http://x", calibration=calibration_of(0.5), upstream_key="sk-secret")


def service_of(settings: GatewaySettings = GATING) -> Service:
    return Service(settings)


def test_before_the_probe_and_without_a_calibration() -> None:
    shown = status(service_of(GatewaySettings(upstream="http://x")))
    assert (shown["mode"], shown["configured_mode"]) == ("observe", "observe")
    for member in ("upstream", "calibration", "extends_by", "cascade", "budget", "record"):
        assert shown[member] is None


def test_the_status_is_json_and_contains_no_key() -> None:
    text = msgspec.json.encode(status(service_of()))
    assert b"sk-secret" not in text
    calibration: Any = msgspec.json.decode(text)["calibration"]
    assert (calibration["model"], calibration["threshold"], calibration["shape"]) == ("mock", 0.5, "streaming")
    assert calibration["signal"]["splitter"] == "paragraph"
    assert "fitted_on" not in calibration


def test_what_the_probe_has_found_is_shown() -> None:
    service = service_of()
    service.probing.capabilities = Capabilities(
        engine="vllm", models=("a",), chat="prefill", temperature=0.7, probe_tokens=3
    )
    assert status(service)["upstream"] == {
        "engine": "vllm",
        "models": ["a"],
        "continues_by": "prefill",
        "limits_thoughts_by": None,
        "default_temperature": 0.7,
        "probe_tokens": 3,
    }


def test_what_is_counted_has_a_hint_and_nothing_else_has() -> None:
    service = service_of()
    assert status(service)["hints"] == {}
    service.metrics.undecided["short_logprobs"] += 1
    service.metrics.observed["temperature_unknown"] += 1
    service.metrics.relayed.update(["model", "tools", "temperature"])
    shown: Any = status(service)
    assert shown["observed"] == {"temperature_unknown": 1}
    assert set(shown["hints"]) == {"short_logprobs", "temperature_unknown", "temperature", "model"}
    assert "--default-temperature T" in shown["hints"]["temperature_unknown"]
    assert "--serves NAME" in shown["hints"]["model"]


def test_after_a_drift_the_mode_is_observe() -> None:
    service = service_of()
    for _ in range(REPEATS * WINDOW):
        service.learning.drift.add(9.0, "a")
    shown = status(service)
    assert (shown["mode"], shown["configured_mode"]) == ("observe", "gate")
    assert gauges(service)["drifted"] == 1


def test_a_cascade_is_shown_without_its_address() -> None:
    calibration = calibration_of(1.0, shape="sequential", splitter="completion")
    cascade = CascadeSettings(upstream="http://private", model="strong", key="sk-strong")
    shown = status(service_of(replace(GATING, calibration=calibration, extend="cascade", cascade=cascade)))
    assert (shown["extends_by"], shown["cascade"]) == ("cascade", {"model": "strong"})
    assert "private" not in str(shown)


def test_gauges_of_the_audit_have_an_interval() -> None:
    service = service_of()
    assert gauges(service)["audited_requests"] == 0
    assert "audited_saving_value" not in gauges(service)
    for gated in (50, 60, 100, 100):
        service.learning.audit.add(Audited(full=100, gated=gated, stopped=gated < 100, agreed=True))
    shown = gauges(service)
    assert shown["audited_requests"] == 4
    assert shown["audited_stop_rate_value"] == 0.5
    low, value, high = (shown[f"audited_saving_gross_{part}"] for part in ("low", "value", "high"))
    assert low is not None
    assert value is not None
    assert high is not None
    assert low <= value <= high
    # The overshoot is unknown, so the saving is an upper bound.
    assert shown["audited_saving_is_net"] == 0
