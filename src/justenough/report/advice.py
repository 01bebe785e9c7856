"""The answer on the first screen: whether to gate this model (yes, no or not yet), why, and what to keep in mind."""

from __future__ import annotations

from typing import Final, NamedTuple

from justenough.calibration.calibration import Calibration
from justenough.evaluation import Evaluation, Figures
from justenough.report.data import Contents, signal_name
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


def advice(contents: Contents) -> Advice:
    """The advice on the gate of a report."""
    return advise(contents.evaluation, contents.calibration, threshold=contents.settings.threshold)


def advise(evaluation: Evaluation, calibration: Calibration | None, *, threshold: float | None) -> Advice:
    """The first reason against the gate with this threshold decides; without any reason the answer is yes."""
    better = beaten_by(evaluation)
    text = sentences("advice", evaluation, calibration, threshold, signal_name(evaluation), better)
    answer, _, reason = text.partition(": ")
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
