"""Numbers and names of methods as text; the formatters of single numbers are those of `stats.text`."""

from __future__ import annotations

import math
from typing import Final

from justenough.calibration.thresholds import EXPLANATIONS
from justenough.stats import Estimate
from justenough.stats.text import NOTHING, number, points

NO_THRESHOLD: Final = "no threshold"
_METHODS: Final = {
    "mean": "entropy mean",
    "info": "information-theoretic",
    "bayes": "Bayes-optimal",
    "universal": "scale-invariant universal",
    "risk": "risk-controlled",
    "net": "net-controlled",
    "decider": "decider",
}


def count(value: float) -> str:
    """`108,645`."""
    return f"{value:,.0f}"


def bits(value: float | None) -> str:
    """A threshold or a signal, with at least three significant digits."""
    if value is None:
        return NOTHING
    if value == 0 or abs(value) >= 0.1:
        return f"{value:.3f}"
    return f"{value:.2g}" if abs(value) < 1e-4 else f"{value:.3g}" if abs(value) < 1e-3 else f"{value:.4f}"


def percent_with_interval(estimate: Estimate | None) -> str:
    """`42.7 % [38.9 to 46.4]`, from fractions."""
    if estimate is None:
        return NOTHING
    low, high = (number(None if value is None else 100 * value, digits=1) for value in (estimate.low, estimate.high))
    limits = f" [{low} to {high}]" if estimate.interval else ""
    return f"{number(100 * estimate.value, digits=1)} %{limits}"


def change(estimate: Estimate) -> str:
    """A difference of fractions as `+1.5 points [−0.7 to +2.5]`."""
    value, bracket, limits = points(estimate).partition(" [")
    return f"{value} points{bracket}{limits}"


def sentence(text: str) -> str:
    """The text with a full stop, and a capital first letter unless it begins with a rule's name such as `deer:0.95`."""
    first = text[:1] if ":" in text.partition(" ")[0].rstrip(":") else text[:1].upper()
    return f"{first}{text[1:].rstrip('.')}."


def margin_words(margin: float) -> str:
    """`1 percentage point`."""
    return f"{100 * margin:g} percentage point{'' if math.isclose(margin, 0.01) else 's'}"


def method_words(name: str) -> str:
    """The name of a threshold method in words."""
    return _METHODS.get(name, name)


def outcome_words(reason: str) -> str:
    """The outcome of a threshold method in words."""
    return {str(outcome): text for outcome, text in EXPLANATIONS.items()}.get(reason, reason)
