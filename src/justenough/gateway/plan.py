"""What is to be done with a request, and what is told of it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from justenough.gate import Decision, GateSettings, Reason
from justenough.trace import Json

Course = Literal["gate", "observe", "audit"]
Report = dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done with a request."""

    course: Course
    gate: GateSettings
    reason: str | None = None
    """Why it is only observed."""
    budget: int | None = None
    """Completion tokens within which a thought is to be answered; None: as many as it takes."""
    answer_tokens: int = 0
    """Of these, kept for the answer."""

    def within(self, budget: int, *, answer_tokens: int) -> Plan:
        """The plan under a token budget; who only observes ends nothing."""
        if self.course == "observe":
            return self
        return replace(self, budget=budget, answer_tokens=min(answer_tokens, budget // 2))

    def spent(self, tokens: int) -> bool:
        """Whether after so many tokens the budget has to go into the answer."""
        return self.budget is not None and tokens >= self.budget - self.answer_tokens

    @property
    def said(self) -> bytes:
        """The header that can be sent before anything is known."""
        parts = [{"gate": "gating", "observe": "observing", "audit": "auditing"}[self.course]]
        if self.reason is not None:
            parts.append(f"reason={self.reason}")
        if self.gate.threshold is not None:
            parts.append(f"threshold={self.gate.threshold:.6g}")
        return "; ".join(parts).encode()

    def decision(self, *, stopped: bool) -> str:
        """One word for what was done."""
        if stopped:
            return "stopped"
        return {"gate": "finished", "observe": "observed", "audit": "audited"}[self.course]


def report(
    plan: Plan,
    decision: Decision | None,
    *,
    stopped: bool,
    undecided: str,
    tokens: int,
    thought_tokens: int,
    probe_tokens: int,
    notes: list[str],
    budget_spent: bool = False,
) -> Report:
    """The `justenough` object of an answer: what happened, nothing estimated.

    `undecided` is the reason where no decision was taken; `tokens` are those received, of elicited answers too.
    """
    decided = Reason.BUDGET if budget_spent else None if decision is None else decision.reason
    said: Report = {
        "decision": plan.decision(stopped=stopped),
        "reason": plan.reason or (decided.value if decided is not None else undecided),
        "step": decision.step if decision is not None else 0,
        "entropy": decision.entropy if decision is not None else None,
        "threshold": plan.gate.threshold,
        "tokens": tokens,
        "thought_tokens": thought_tokens,
        "probe_tokens": probe_tokens,
    }
    if plan.budget is not None:
        said["budget"] = plan.budget
    if notes:
        said["notes"] = list(notes)
    return said


def decided(decisions: Sequence[Decision]) -> Json:
    """The decisions on steps, for a client that wants to watch them being taken."""
    return [
        {
            "step": decision.step,
            "action": decision.action.value,
            "reason": decision.reason.value,
            "entropy": decision.entropy,
            "threshold": decision.threshold,
            "tokens": decision.tokens,
        }
        for decision in decisions
    ]


def header(said: Report) -> bytes:
    """The report in the one line of a header."""
    parts = [str(said["decision"]), f"reason={said['reason']}", f"step={said['step']}"]
    for key in ("entropy", "threshold"):
        value = said[key]
        if isinstance(value, float):
            parts.append(f"{key}={value:.6g}")
    tokens = str(said["tokens"])
    if isinstance(apart := said.get("tokens_by_model"), list):
        tokens = "+".join([str(each["tokens"]) for each in apart if isinstance(each, dict)])
    parts += [f"tokens={tokens}", f"probe_tokens={said['probe_tokens']}"]
    return "; ".join(parts).encode()
