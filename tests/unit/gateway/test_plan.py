"""The plan's budget and the report in its two forms."""

from __future__ import annotations

from typing import Any

import pytest

from justenough.gate import Action, Decision, GateSettings, Reason
from justenough.gateway.plan import Plan, decision_rows, header, report
from tests.unit.gateway.serving import calibration_of

GATE = GateSettings.of(calibration_of(0.5))
DECISION = Decision(action=Action.STOP, reason=Reason.CONFIDENT, step=2, entropy=0.25, threshold=0.5, tokens=7)
COUNTS: dict[str, Any] = {"tokens": 9, "thought_tokens": 7, "probe_tokens": 2, "notes": []}


def test_a_budget_leaves_room_for_the_answer_but_at_most_half_of_it() -> None:
    plan = Plan(course="gate", gate=GATE)
    assert not plan.is_spent(1_000_000)
    within = plan.within(100, answer_tokens=30)
    assert [within.is_spent(tokens) for tokens in (69, 70)] == [False, True]
    half = plan.within(100, answer_tokens=500)
    assert [half.is_spent(tokens) for tokens in (49, 50)] == [False, True]
    observed = Plan(course="observe", gate=GATE)
    assert observed.within(100, answer_tokens=30) is observed


@pytest.mark.parametrize(
    ("course", "reason", "text"),
    [
        ("gate", None, b"gating; threshold=0.5"),
        ("observe", "drift", b"observing; reason=drift; threshold=0.5"),
        ("audit", None, b"auditing; threshold=0.5"),
    ],
)
def test_the_header_before_the_outcome(course: Any, reason: str | None, text: bytes) -> None:
    assert Plan(course=course, gate=GATE, reason=reason).header == text


def test_the_report_says_what_happened() -> None:
    out = report(Plan(course="gate", gate=GATE), DECISION, stopped=True, reason="confident", **COUNTS)
    assert out == {
        "decision": "stopped",
        "reason": "confident",
        "step": 2,
        "entropy": 0.25,
        "threshold": 0.5,
        "tokens": 9,
        "thought_tokens": 7,
        "probe_tokens": 2,
    }
    assert header(out) == (b"stopped; reason=confident; step=2; entropy=0.25; threshold=0.5; tokens=9; probe_tokens=2")


def test_a_report_without_a_decision_has_budget_and_notes() -> None:
    plan = Plan(course="audit", gate=GATE, reason="drift", budget=50)
    out = report(plan, None, stopped=False, reason="no_thought", **{**COUNTS, "notes": ["short_logprobs"]})
    assert (out["decision"], out["reason"], out["step"], out["entropy"]) == ("audited", "drift", 0, None)
    assert (out["budget"], out["notes"]) == (50, ["short_logprobs"])
    assert b"entropy" not in header(out)


def test_tokens_of_two_models_stand_apart_in_the_header() -> None:
    out = report(Plan(course="gate", gate=GATE), DECISION, stopped=False, reason="max_steps", **COUNTS)
    out["tokens_by_model"] = [{"model": "a", "tokens": 4}, {"model": "b", "tokens": 5}]
    assert b"tokens=4+5; " in header(out)


def test_decisions_as_rows() -> None:
    assert decision_rows([DECISION]) == [
        {"step": 2, "action": "stop", "reason": "confident", "entropy": 0.25, "threshold": 0.5, "tokens": 7}
    ]
