"""Which requests are gated, audited or only observed, and with which gate."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from justenough.errors import InputError
from justenough.gateway.learn.drift import REPEATS, WINDOW
from justenough.gateway.learn.learning import Learning
from justenough.gateway.metrics import Metrics
from justenough.gateway.planning import gate_for, is_other_model, plan_for
from justenough.gateway.request import CompletionRequest, read_request
from justenough.gateway.settings import CascadeSettings, GatewaySettings
from justenough.gateway.upstream.capability import Capabilities
from justenough.gateway.upstream.overshoot import Overshoot
from tests.unit.gateway.serving import calibration_of
from tests.unit.gateway.ways import CHAT

PREFILL = Capabilities(engine="vllm", models=("mock",), chat="prefill")


def request_of(path: str = "/v1/chat/completions", **members: Any) -> CompletionRequest:
    body = {**CHAT, "prompt": "What?", **members}
    return read_request(path, json.dumps({key: body[key] for key in body if body[key] is not None}).encode(), [])


def settings_of(**settings: Any) -> GatewaySettings:
    base: dict[str, Any] = {"upstream": "http://x", "calibration": calibration_of(1.0), "audit_share": 0.0}
    return GatewaySettings(**(base | settings))


def planned(request: CompletionRequest, capabilities: Capabilities = PREFILL, **settings: Any) -> tuple[str, Any]:
    configured = settings_of(**settings)
    learning = Learning(configured, Metrics(), Overshoot())
    plan = plan_for(request, capabilities, configured, learning, client="a")
    learning.close()
    return plan.course, plan.reason


@pytest.mark.parametrize(
    ("model", "models", "other"),
    [
        ("mock", ("a", "b"), False),
        ("alias", ("a",), False),
        ("another", ("mock",), True),
        (None, ("mock",), False),
        (None, ("mock", "b"), True),
        (None, (), True),
    ],
)
def test_a_threshold_is_for_one_model(model: str | None, models: tuple[str, ...], other: bool) -> None:
    capabilities = replace(PREFILL, models=models)
    assert is_other_model(request_of(model=model), capabilities, settings_of(models=("alias",))) is other


def test_without_a_calibration_every_model_is_observed() -> None:
    assert not is_other_model(request_of(model="any"), PREFILL, settings_of(calibration=None))


def test_a_request_is_gated_audited_or_observed() -> None:
    request = request_of()
    assert planned(request) == ("gate", None)
    assert planned(request, audit_share=1.0) == ("audit", None)
    assert planned(request, mode="observe") == ("observe", None)
    assert planned(request, mode="observe", audit_share=1.0) == ("observe", None)
    assert planned(request_of(justenough={"mode": "observe"})) == ("observe", None)


def test_an_audit_without_a_calibration_collects_traces(tmp_path: Any) -> None:
    collecting: dict[str, Any] = {"calibration": None, "audit_share": 1.0, "record": tmp_path / "traces.jsonl"}
    assert planned(request_of(), **collecting) == ("audit", None)
    cannot = replace(PREFILL, chat=None)
    assert planned(request_of(), cannot, **collecting) == ("observe", None)
    assert planned(request_of("/v1/completions"), cannot, **collecting) == ("audit", None)


def test_a_chat_that_cannot_be_continued_is_observed() -> None:
    cannot = replace(PREFILL, chat=None)
    assert planned(request_of(), cannot) == ("observe", "cannot_continue")
    assert planned(request_of("/v1/completions"), cannot) == ("gate", None)


@pytest.mark.parametrize(
    ("own", "default", "upstream", "reason"),
    [
        (0.6, None, None, None),
        (0.7, 0.6, 0.6, "temperature"),
        (None, 0.6, 0.7, None),
        (None, None, 0.6, None),
        (None, None, 0.8, "temperature"),
        (None, None, None, "temperature_unknown"),
    ],
)
def test_the_temperature_must_be_the_calibrations(
    own: float | None, default: float | None, upstream: float | None, reason: str | None
) -> None:
    capabilities = replace(PREFILL, temperature=upstream)
    settings = {"calibration": calibration_of(1.0, temperature=0.6), "default_temperature": default}
    course, why = planned(request_of(temperature=own), capabilities, **settings)
    assert (course, why) == ("gate" if reason is None else "observe", reason)


def test_after_a_drift_only_audits_go_on() -> None:
    for share, course in ((0.0, "observe"), (1.0, "audit")):
        settings = settings_of(audit_share=share)
        learning = Learning(settings, Metrics(), Overshoot())
        for _ in range(REPEATS * WINDOW):
            learning.drift.add(9.0, "a")
        plan = plan_for(request_of(), PREFILL, settings, learning, client="a")
        assert (plan.course, plan.reason) == (course, "drift")
        assert plan_for(request_of(), PREFILL, settings, learning, client="b").reason is None
        learning.close()


def test_a_client_may_lower_the_threshold_and_the_steps_but_not_raise_them() -> None:
    settings = settings_of(calibration=calibration_of(1.0, shape="sequential", splitter="completion"))
    for own, used in ((0.5, 0.5), (2.0, 1.0), (None, 1.0)):
        assert gate_for(request_of(justenough={"threshold": own}), settings).threshold == used
    for steps, used in ((2, 2), (99, 4), (None, 4)):
        assert gate_for(request_of(justenough={"max_steps": steps}), settings).max_steps == used
    assert gate_for(request_of(), settings_of()).max_steps > 1_000_000


def test_a_cascade_has_two_steps_and_one_decision() -> None:
    calibration = calibration_of(1.0, shape="sequential", splitter="completion", patience=3)
    cascade = CascadeSettings(upstream="http://y", model="strong")
    gate = gate_for(request_of(), settings_of(calibration=calibration, extend="cascade", cascade=cascade))
    assert (gate.decide, gate.patience, gate.max_steps) == ("first", 1, 2)


@pytest.mark.parametrize("member", ["close", "answer_cue"])
def test_text_that_cannot_be_sent_is_refused_at_the_start(member: str) -> None:
    with pytest.raises(InputError, match="UTF-8"):
        replace(GatewaySettings(upstream="http://127.0.0.1:1"), **{member: "\udcff"})  # type: ignore[arg-type]
