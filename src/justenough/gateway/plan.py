"""What the gateway does with a request, and its report on that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from justenough.gate import Decision, GateSettings
from justenough.trace import Json

Course = Literal["gate", "observe", "audit"]
Ended = Literal["stopped", "budget", "answer_now"]
Report = dict[str, Json]
_OF_DECISION: Final = ("step", "action", "reason", "entropy", "threshold", "tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the gateway does with a request."""

    course: Course
    gate: GateSettings
    reason: str | None = None
    """Why the request is not gated."""
    budget: int | None = None
    """Completion tokens for thought and answer together; None: no limit."""
    answer_tokens: int = 0
    """The part of the budget that is reserved for the answer."""

    def within(self, budget: int, *, answer_tokens: int) -> Plan:
        """The plan under a token budget; a request that is only observed is never cut."""
        if self.course == "observe":
            return self
        return replace(self, budget=budget, answer_tokens=min(answer_tokens, budget // 2))

    def is_spent(self, tokens: int) -> bool:
        """Whether only the answer's part of the budget is left after so many tokens."""
        return self.budget is not None and tokens >= self.budget - self.answer_tokens

    @property
    def header(self) -> bytes:
        """The value of our header before the outcome is known."""
        parts = [{"gate": "gating", "observe": "observing", "audit": "auditing"}[self.course]]
        if self.reason is not None:
            parts.append(f"reason={self.reason}")
        if self.gate.threshold is not None:
            parts.append(f"threshold={self.gate.threshold:.6g}")
        return "; ".join(parts).encode()


def report(
    plan: Plan,
    decision: Decision | None,
    *,
    stopped: bool,
    reason: str,
    tokens: int,
    thought_tokens: int,
    probe_tokens: int,
    notes: list[str],
    hopeless: bool = False,
) -> Report:
    """The `justenough` object of an answer: only what happened, no estimates.

    `tokens` are all tokens received, those of elicited answers included. The plan's reason takes precedence.
    """
    outcome = "stopped" if stopped else {"gate": "finished", "observe": "observed", "audit": "audited"}[plan.course]
    out: Report = {
        "decision": outcome,
        "reason": plan.reason or reason,
        "step": decision.step if decision is not None else 0,
        "entropy": decision.entropy if decision is not None else None,
        "threshold": plan.gate.threshold,
        "tokens": tokens,
        "thought_tokens": thought_tokens,
        "probe_tokens": probe_tokens,
    }
    if decision is not None:
        out |= _of_decider(decision)
    if hopeless:
        out["hopeless"] = True
    if plan.budget is not None:
        out["budget"] = plan.budget
    if notes:
        out["notes"] = list(notes)
    return out


def decision_rows(decisions: Sequence[Decision]) -> Json:
    """The decisions on steps as JSON."""
    return [{key: getattr(one, key) for key in _OF_DECISION} | _of_decider(one) for one in decisions]


def _of_decider(decision: Decision) -> dict[str, Json]:
    """The members that only a calibration with a decider has."""
    score: dict[str, Json] = {} if decision.score is None else {"score": decision.score}
    return score | {"hopeless": True} if decision.hopeless else score


def header(report: Report) -> bytes:
    """The report as the value of a header."""
    parts = [str(report["decision"]), f"reason={report['reason']}", f"step={report['step']}"]
    if "hopeless" in report:
        parts.append("hopeless")
    for key in ("entropy", "threshold", "score"):
        value = report.get(key)
        if isinstance(value, float):
            parts.append(f"{key}={value:.6g}")
    tokens = str(report["tokens"])
    if isinstance(rows := report.get("tokens_by_model"), list):
        tokens = "+".join([str(row["tokens"]) for row in rows if isinstance(row, dict)])
    parts += [f"tokens={tokens}", f"probe_tokens={report['probe_tokens']}"]
    return "; ".join(parts).encode()
