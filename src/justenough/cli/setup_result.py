"""The result of `justenough setup`: as text and as JSON."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.cli.serve import UPSTREAM_KEY
from justenough.stats.text import counted, percent, points

if TYPE_CHECKING:
    from justenough.calibration.labelled import Labels
    from justenough.evaluation.diagnosis import Diagnosis
    from justenough.evaluation.propose import Proposal
    from justenough.gateway.livecheck import LiveCheck
    from justenough.gateway.upstream.capability import Capabilities
    from justenough.trace import Json

_FIGURES = ("saving", "saving_ci", "accuracy_change", "accuracy_change_ci", "harm", "harm_ci")


@dataclass(kw_only=True)
class Setup:
    """The results so far; an `objection` ends the command."""

    upstream: str
    model: str
    abilities: Capabilities
    labels: Labels = "graded"
    tokens: int = 0
    """Tokens of the sample."""
    diagnosis: Diagnosis | None = None
    proposal: Proposal | None = None
    file: Path | None = None
    """The calibration."""
    check: LiveCheck | None = None
    changed: int = 0
    """Answers of the live check that differ."""
    right: tuple[int, int] | None = None
    """Right answers of the live check, directly and through the gateway; None without targets."""
    objection: str | None = None
    """Why gating is not worth it, or not yet known to be, in one sentence."""

    @property
    def worth_it(self) -> bool | None:
        """The answer; None if only more problems could give it."""
        if self.proposal is not None and self.proposal.undecided:
            return None
        return self.objection is None

    @property
    def command(self) -> str | None:
        """The command that starts the gateway; None without a yes."""
        if self.file is None or not self.worth_it:
            return None
        return shlex.join(["justenough", "serve", "--upstream", self.upstream, "--calibration", str(self.file)])

    @property
    def text(self) -> str:
        """The result for people."""
        lines = [*self._expected(), *self._checked()]
        if self.objection is not None:
            answer = "not yet" if self.worth_it is None else "gating is not worth it here"
            return "\n".join([*lines, f"{answer}: {self.objection}"])
        if self.abilities.temperature is None:
            lines.append("requests without a temperature are gated only if serve gets --default-temperature T")
        if os.environ.get("OPENAI_API_KEY"):
            lines.append(f"the gateway reads the server's key from {UPSTREAM_KEY}")
        return "\n".join([*lines, f"start the gateway: {self.command}"])

    def _expected(self) -> list[str]:
        from justenough.report.words import percent_with_interval

        lines = []
        if self.diagnosis is not None:
            lines.append(f"signal of the first step: {self.diagnosis.separation.sentence}")
        if self.proposal is None or (evaluation := self.proposal.evaluation) is None:
            return lines
        what = "accuracy" if self.labels == "graded" else "agreement with the answer of the whole thought"
        lines.append(
            f"expected saving {percent_with_interval(evaluation.gated.saving)} of the tokens, change of the {what}"
            f" {points(evaluation.gated.accuracy_change)} points (95 % intervals, on"
            f" {counted(evaluation.problems, 'problem')} that the gate was not fitted on)"
        )
        promise = None if self.proposal.calibration is None else self.proposal.calibration.guarantee
        return [*lines, promise or "the threshold carries no guarantee: the sample is too small for a certificate"]

    def _checked(self) -> list[str]:
        check = self.check
        if check is None:
            return []
        direct, gated = check.tokens
        right = "" if self.right is None else f"; right {self.right[0]} directly, {self.right[1]} through the gateway"
        source = check.counter or "the usage in the answers"
        lines = [
            f"live check, {counted(len(check.direct.replies), 'request')}: {direct:,} tokens directly,"
            f" {gated:,} through the gateway (by {source}), {percent(check.saving)} saved; {check.stopped} stopped,"
            f" {self.changed} answers changed{right}"
        ]
        if check.counter is not None and gated > check.gated.used:
            lines.append(
                f"the clients received {check.gated.used:,} of these tokens; the server generated the others before it"
                " noticed the stops"
            )
        return lines

    def to_json(self) -> dict[str, Json]:
        """The result as one object."""
        fit, evaluation = (None, None) if self.proposal is None else self.proposal[:2]
        out: dict[str, Json] = {
            "worth_it": self.worth_it,
            "reason": self.objection,
            "serve": self.command,
            "upstream": self.upstream,
            "model": self.model,
            "engine": self.abilities.engine,
            "continues_by": self.abilities.chat,
            "labels": self.labels,
            "tokens": self.tokens,
            "verdict": None if self.diagnosis is None else self.diagnosis.separation.verdict,
            "calibration": None if self.file is None else str(self.file),
            "method": None if fit is None else fit.method,
            "guarantee": None if fit is None else fit.guarantee,
        }
        if evaluation is not None:
            figures = evaluation.gated.to_json()
            out |= {"problems": evaluation.problems} | {key: figures[key] for key in _FIGURES}
        if (check := self.check) is not None:
            direct, gated = check.tokens
            out["check"] = {
                "requests": len(check.direct.replies),
                "tokens_direct": direct,
                "tokens_gated": gated,
                "tokens_received": check.gated.used,
                "counter": check.counter,
                "saving": check.saving,
                "stopped": check.stopped,
                "changed": self.changed,
                "right_direct": None if self.right is None else self.right[0],
                "right_gated": None if self.right is None else self.right[1],
            }
        return out
