"""The answer on the first screen: whether to gate this model (yes, no or not yet), why, and what to keep in mind."""

from __future__ import annotations

from typing import Final, NamedTuple

from justenough.calibration.calibration import Calibration
from justenough.evaluation import Evaluation, Figures
from justenough.gate import GateSettings
from justenough.report.data import Contents, name_of
from justenough.report.templates import sentences

BASELINES: Final = ("always-", "fixed-budget", "answer-convergence")
"""Rules that use no entropy. A gate should do better than these."""


class Advice(NamedTuple):
    """Whether to gate, with the reason."""

    answer: str
    """`Yes`, `No` or `Not yet`."""
    reason: str

    @property
    def sentence(self) -> str:
        """`No: the gate saves no tokens.`"""
        return f"{self.answer}: {self.reason}."


class Facts(NamedTuple):
    """The part of a report's contents that the answer needs."""

    evaluation: Evaluation
    calibration: Calibration | None
    settings: GateSettings
    signal_name: str


def advice_on(evaluation: Evaluation, *, calibration: Calibration | None = None) -> Advice:
    """The answer without the rest of a report."""
    threshold = evaluation.thresholds.get(evaluation.method) if calibration is None else calibration.threshold
    return advice(Facts(evaluation, calibration, GateSettings(threshold=threshold), name_of(evaluation)))


def advice(contents: Contents | Facts) -> Advice:
    """The first reason against the gate decides; without any reason the answer is yes."""
    answer, _, reason = sentences("advice", contents, beaten_by(contents.evaluation)).partition(": ")
    return Advice(answer, reason)


def beaten_by(evaluation: Evaluation) -> list[tuple[str, Figures]]:
    """Rules without entropy that save at least as much as the gate at no lower accuracy; the most accurate first."""
    gated = evaluation.gated
    if gated.saving is None or gated.stopped == 0:
        return []
    better = [
        (rule.accuracy, rule.saving.value, name, rule)
        for name, rule in evaluation.rules.items()
        if name.startswith(BASELINES)
        and rule.saving is not None
        and rule.saving.value >= gated.saving.value
        and rule.accuracy >= gated.accuracy
    ]
    return [(name, rule) for _, _, name, rule in sorted(better, key=lambda row: row[:2], reverse=True)]


def cautions(contents: Contents) -> list[str]:
    """What to keep in mind before using the figures."""
    text = sentences("cautions", contents, beaten_by(contents.evaluation))
    return [caution.strip() for caution in text.split("||") if caution.strip()]
