"""Figures in words: the verdict, what to beware of, and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from justenough.calibration.thresholds import EXPLANATIONS
from justenough.evaluation import Evaluation, Figures
from justenough.stats import Estimate

if TYPE_CHECKING:
    from justenough.report.data import Contents

NOTHING: Final = "–"
BASELINES: Final = ("always-", "fixed-budget", "answer-convergence")
"""Rules that look at no entropy: a gate must beat them."""


def signed(value: float, *, digits: int = 1) -> str:
    """`+1.5` or `−0.3`, with a true minus; no sign for what rounds to zero."""
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def percent(value: float | None) -> str:
    """A fraction as `31.2 %`."""
    if value is None:
        return NOTHING
    return f"{100 * value:.1f} %".replace("-", "−").replace("−0.0 ", "0.0 ")


def points(value: float) -> str:
    """A difference of fractions as `+1.5 points`."""
    return f"{signed(100 * value)} points"


def number(value: float | None, *, digits: int = 2) -> str:
    """Rounded, with a true minus."""
    return NOTHING if value is None else f"{value:.{digits}f}".replace("-", "−")


def count(value: float) -> str:
    """`108,645`."""
    return f"{value:,.0f}"


def bits(value: float | None) -> str:
    """A threshold or signal, to three significant digits at least."""
    if value is None:
        return NOTHING
    if value == 0 or abs(value) >= 0.1:
        return f"{value:.3f}"
    return f"{value:.2g}" if abs(value) < 1e-4 else f"{value:.3g}" if abs(value) < 1e-3 else f"{value:.4f}"


def percent_interval(estimate: Estimate | None) -> str:
    """`38.9 to 46.4`, in percent; empty where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{number(100 * estimate.low, digits=1)} to {number(100 * estimate.high, digits=1)}"


def points_interval(estimate: Estimate | None) -> str:
    """`−0.7 to +2.5`, in points; empty where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{signed(100 * estimate.low)} to {signed(100 * estimate.high)}"


def interval(estimate: Estimate | None, *, digits: int = 2) -> str:
    """`1.99 to 2.64`; empty where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{number(estimate.low, digits=digits)} to {number(estimate.high, digits=digits)}"


def with_interval(value: str, limits: str) -> str:
    """`42.7 % [38.9 to 46.4]`."""
    return f"{value} [{limits}]" if limits else value


def verdict(made: Evaluation, *, strong: Callable[[str], str] = str) -> str:
    """The verdict in one sentence; `strong` marks what is to catch the eye."""
    return f"{_gain(made, strong)}, {_separates(made)}."


def _gain(made: Evaluation, strong: Callable[[str], str]) -> str:
    saving, change = made.gated.saving, made.gated.accuracy_change
    if saving is None:
        return "No tokens are recorded, so no saving can be told"
    if made.gated.stopped == 0:
        return f"The gate stopped {strong('nothing')}: it saved no token and changed no answer"
    limits = points_interval(change)
    saved = "saved" if saving.value >= 0 else "cost"
    more = "of the tokens" if saving.value >= 0 else "more tokens"
    return (
        f"Stopping early {saved} {strong(percent(abs(saving.value)))} {more} at"
        f" {strong(points(change.value))} of accuracy{f' (95 % interval {limits})' if limits else ''}"
        f" against all {made.steps} steps"
    )


def _separates(made: Evaluation) -> str:
    found = made.separation
    area = f" (AUROC {number(found.auroc.value, digits=3)})" if found.auroc is not None else ""
    what = "entropy" if made.signal.unit == "bits" else made.signal.unit
    return {
        "separates": f"and the {what} of step 1 separates right answers from wrong ones{area}",
        "weak": f"but the {what} of step 1 separates right answers from wrong ones only weakly{area}",
        "absent": f"but the {what} of step 1 does not tell right answers from wrong ones{area}",
        "cannot tell": f"and whether the {what} of step 1 tells right from wrong cannot be said yet:"
        f" {found.needed} more problems are needed",
    }[found.verdict]


def cautions(found: Contents) -> list[str]:
    """What a sceptical reader should know first."""
    made, calibration = found.made, found.calibration
    said: list[str] = []
    if made.separation.gating_refused:
        said.append(
            "Gating is not advisable on these problems: the signal does not separate right from wrong well enough."
        )
    if better := beaten_by(made):
        rows = [
            f"{name} ({percent(saving.value if saving else None)} saved, {points(rule.accuracy_change.value)})"
            for name, rule in better.items()
            for saving in [rule.saving]
        ]
        said.append(
            f"Without looking at any {found.quantity}, {join(rows)} saved at least as much at no lower accuracy:"
            " on these problems this gate is not the rule to choose."
        )
    if calibration is None:
        said.append(
            f"No calibration was given: the key figures are means over {made.draws.draws} draws of {made.draws.n}"
            " examples, each judged on the other problems; the threshold that the slider starts at was fitted on all"
            " of these problems and flatters them."
        )
    else:
        if calibration.decide != made.decide:
            said.append(f"The calibration decides `{calibration.decide}`, this report `{made.decide}`.")
        if calibration.warnings:
            said.append(f"The calibration warns: {'; '.join(calibration.warnings)}.")
    if made.left_out:
        said.append(f"{made.left_out} problems that the calibration was fitted on are left out.")
    said += [f"{warning[0].upper()}{warning[1:]}." for warning in made.warnings]
    if made.unanswered:
        said.append(f"{made.unanswered} problems ended without an answer and count as wrong.")
    if made.missing:
        said.append(
            f"Not replayed, for want of: {', '.join(f'{name} ({what})' for name, what in made.missing.items())}."
        )
    return said


def beaten_by(made: Evaluation) -> dict[str, Figures]:
    """Rules that look at no entropy and did at least as well in both accuracy and saving."""
    gated = made.gated
    if gated.saving is None or gated.stopped == 0:
        return {}
    return {
        name: rule
        for name, rule in made.rules.items()
        if name.startswith(BASELINES)
        and rule.saving is not None
        and rule.saving.value >= gated.saving.value
        and rule.accuracy >= gated.accuracy
    }


def baselines_line(made: Evaluation) -> str:
    """What the choice of baseline does to the saving."""
    gated = made.gated
    said = []
    if gated.saving_vs_first is not None:
        said.append(f"Against step 1 alone it spent {number(1 - gated.saving_vs_first, digits=2)} times the tokens")
    if gated.saving_vs_last is not None:
        said.append(f"against the last step alone {number(1 - gated.saving_vs_last, digits=2)} times")
    share = f"an oracle that decides at the same place saves {percent(made.oracle_saving)}"
    if gated.oracle_share is not None:
        share += f", of which this is {percent(gated.oracle_share)}"
    said.append(share)
    line = "; ".join(said)
    return f"{line[0].upper()}{line[1:]}."


def join(parts: list[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def margin_words(margin: float) -> str:
    """`1 percentage point`."""
    return f"{100 * margin:g} percentage point{'' if math.isclose(margin, 0.01) else 's'}"


def method_words(name: str) -> str:
    """A method's name in words."""
    return {
        "mean": "entropy mean",
        "info": "information-theoretic",
        "bayes": "Bayes-optimal",
        "universal": "scale-invariant universal",
        "risk": "risk-controlled",
        "net": "net-controlled",
    }.get(name, name)


def outcome_words(reason: str) -> str:
    """A threshold's outcome in words."""
    return next((text for known, text in EXPLANATIONS.items() if known == reason), reason)
