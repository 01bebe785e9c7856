"""The answer on the first screen: whether to gate this model (yes, no or not yet), why, and what to keep in mind."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from justenough.evaluation import Evaluation, Figures
from justenough.report.data import Contents
from justenough.report.words import (
    accuracy_change,
    count,
    join,
    margin_words,
    number,
    outcome_words,
    percent,
    percent_with_interval,
    points,
    points_interval,
    sentence,
    with_interval,
)

BASELINES: Final = ("always-", "fixed-budget", "answer-convergence")
"""Rules that use no entropy. A gate should do better than these."""


class Advice(NamedTuple):
    """Whether to gate, with the reason."""

    answer: Literal["Yes", "No", "Not yet"]
    reason: str

    @property
    def sentence(self) -> str:
        """`No: the gate saves no tokens.`"""
        return f"{self.answer}: {self.reason}."


def advice(contents: Contents) -> Advice:
    """The first reason against the gate decides; without any reason the answer is yes."""
    evaluation = contents.evaluation
    against = (
        _nothing_to_save(evaluation)
        or _no_separation(contents)
        or _never_stops(contents)
        or _simpler_rule(evaluation)
        or _accuracy(evaluation)
        or _no_calibration(contents)
    )
    if against is not None:
        return against
    gated = evaluation.gated
    harm = percent(gated.harm.value if gated.harm else None)
    return Advice(
        "Yes",
        f"the gate saves {percent_with_interval(gated.saving)} of the tokens, the accuracy is not more than"
        f" {margin_words(evaluation.margin)} worse than with all {evaluation.steps} steps, and {harm} of the problems"
        " lose a right answer",
    )


def _nothing_to_save(evaluation: Evaluation) -> Advice | None:
    if evaluation.steps == 1:
        return Advice("No", "each trace has only one step, so there is no later step to save (collect with --steps 2)")
    if evaluation.gated.saving is None:
        return Advice("Not yet", "the traces hold no token counts, so the saving is not known")
    return None


def _no_separation(contents: Contents) -> Advice | None:
    evidence = contents.evaluation.separation
    if evidence.verdict == "cannot tell":
        return Advice(
            "Not yet",
            f"there are too few problems to say whether the {contents.quantity} of step 1 separates right answers from"
            f" wrong ones; about {count(evidence.needed)} more are needed",
        )
    if not evidence.gating_refused:
        return None
    area = f" (AUROC {number(evidence.auroc.value, digits=3)})" if evidence.auroc else ""
    signal = f"the {contents.quantity} of step 1"
    return Advice("No", f"{signal} does not separate right answers from wrong ones well enough{area}")


def _never_stops(contents: Contents) -> Advice | None:
    evaluation = contents.evaluation
    if evaluation.gated.stopped > 0:
        return None
    if contents.settings.threshold is not None:
        return Advice("No", "the gate stopped at no problem, so it saved no tokens")
    reason = evaluation.threshold_outcomes.get(evaluation.method, "ok")
    why = "" if reason == "ok" else f" ({outcome_words(reason)})"
    return Advice(
        "Not yet" if reason in ("too_few_right", "too_few_wrong") else "No",
        f"the gate has no threshold, so it never stops{why}",
    )


def _simpler_rule(evaluation: Evaluation) -> Advice | None:
    better = beaten_by(evaluation)
    if not better:
        return None
    best = max(better, key=lambda name: (better[name].accuracy, _value(better[name])))
    figures = f"{best} saves {_short(better[best])} of accuracy, the gate saves {_short(evaluation.gated)}"
    return Advice("No", f"a rule that uses no entropy does better here: {figures}")


def _accuracy(evaluation: Evaluation) -> Advice | None:
    gated = evaluation.gated
    if _value(gated) <= 0:
        return Advice("No", f"the gate saves no tokens ({percent(_value(gated))})")
    change = accuracy_change(gated)
    shown = f"{points(change.value)} (95 % interval {points_interval(change)})"
    margin = margin_words(evaluation.margin)
    if change.high is not None and change.high < -evaluation.margin:
        return Advice("No", f"the gate changes the accuracy by {shown}, which is a loss of more than {margin}")
    if change.low is None or change.low < -evaluation.margin:
        return Advice(
            "Not yet",
            f"the gate saves {percent_with_interval(gated.saving)} of the tokens and changes the accuracy by {shown},"
            f" so a loss of more than {margin} is still possible; evaluate it on more problems",
        )
    return None


def _no_calibration(contents: Contents) -> Advice | None:
    if contents.calibration is not None:
        return None
    return Advice(
        "Not yet",
        f"a gate saves {percent_with_interval(contents.evaluation.gated.saving)} of the tokens on average over many"
        " choices of examples, but this report has no calibration; run `justenough calibrate` and report again",
    )


def _value(figures: Figures) -> float:
    return figures.saving.value if figures.saving else 0.0


def _short(figures: Figures) -> str:
    return f"{percent(_value(figures))} of the tokens at {points(figures.accuracy_change.value)}"


def beaten_by(evaluation: Evaluation) -> dict[str, Figures]:
    """Rules without entropy that save at least as much as the gate, at no lower accuracy."""
    gated = evaluation.gated
    if gated.saving is None or gated.stopped == 0:
        return {}
    return {
        name: rule
        for name, rule in evaluation.rules.items()
        if name.startswith(BASELINES)
        and rule.saving is not None
        and rule.saving.value >= gated.saving.value
        and rule.accuracy >= gated.accuracy
    }


def cautions(contents: Contents) -> list[str]:
    """What to keep in mind before using the figures."""
    evaluation, calibration = contents.evaluation, contents.calibration
    notes: list[str] = []
    better = beaten_by(evaluation)
    if better:
        rules = join([f"{name} ({_short(rule)})" for name, rule in better.items()])
        notes.append(f"Rules that use no {contents.quantity} and do at least as well as this gate: {rules}.")
    if calibration is None:
        notes.append(
            f"No calibration was given. The key figures are means over {evaluation.draws.draws} draws of"
            f" {evaluation.draws.n} examples; each draw is tested on the other problems. The threshold at which the"
            " slider starts was fitted on all of these problems, so its figures are too good."
        )
    else:
        if calibration.decide != evaluation.decide:
            notes.append(f"The calibration uses `{calibration.decide}`, but this report uses `{evaluation.decide}`.")
        notes += [sentence(f"Warning of the calibration: {warning}") for warning in calibration.warnings]
    if evaluation.left_out:
        notes.append(f"{count(evaluation.left_out)} problems are left out because the threshold was fitted on them.")
    notes += [sentence(warning) for warning in evaluation.warnings]
    if evaluation.unanswered:
        notes.append(f"{count(evaluation.unanswered)} problems ended without an answer; they count as wrong.")
    return notes


def measured(contents: Contents) -> str:
    """The main figures in one neutral sentence."""
    evaluation = contents.evaluation
    gated, evidence = evaluation.gated, evaluation.separation
    change = accuracy_change(gated)
    area = f" (AUROC {number(evidence.auroc.value, digits=3)})" if evidence.auroc else ""
    manner = {"separates": "separates", "weak": "only weakly separates", "absent": "does not separate"}
    signal = f"The {contents.quantity} of step 1 {manner.get(evidence.verdict)} right and wrong answers{area}."
    saving = percent(gated.saving.value if gated.saving else None)
    shown = with_interval(points(change.value), points_interval(change))
    return (
        f"Measured on {count(evaluation.problems)} problems, compared with all {evaluation.steps} steps: tokens saved"
        f" {saving}, change in accuracy {shown}.{f' {signal}' if evidence.verdict in manner else ''}"
    )


def baselines_line(evaluation: Evaluation) -> str:
    """The tokens of the gate compared with other baselines."""
    gated = evaluation.gated
    parts = []
    if gated.saving_vs_first is not None:
        parts.append(f"the gate uses {number(1 - gated.saving_vs_first)} times the tokens of step 1 alone")
    if gated.saving_vs_last is not None:
        parts.append(f"{number(1 - gated.saving_vs_last)} times the tokens of the last step alone")
    text = f"{sentence(join(parts))} " if parts else ""
    text += f"An oracle, which knows all grades and stops where the gate may, saves {percent(evaluation.oracle_saving)}"
    if gated.oracle_share is not None:
        text += f"; the gate reaches {percent(gated.oracle_share)} of that"
    return f"{text}."
