"""Numbers as text, with the formatters of `stats.text`, and names of methods in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from justenough.calibration.thresholds import EXPLANATIONS
from justenough.evaluation.figures import Figures
from justenough.stats import Estimate
from justenough.stats.text import NOTHING as NOTHING
from justenough.stats.text import number as number
from justenough.stats.text import percent as percent
from justenough.stats.text import signed as signed

NO_THRESHOLD: Final = "no threshold"
_METHODS: Final = {
    "mean": "entropy mean",
    "info": "information-theoretic",
    "bayes": "Bayes-optimal",
    "universal": "scale-invariant universal",
    "risk": "risk-controlled",
    "net": "net-controlled",
}


def points(value: float) -> str:
    """A difference of two fractions as `+1.5 points`."""
    return f"{signed(100 * value)} points"


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


def percent_interval(estimate: Estimate | None) -> str:
    """`38.9 to 46.4`, in percent; empty without an interval."""
    return _limits(estimate, lambda value: number(100 * value, digits=1))


def points_interval(estimate: Estimate | None) -> str:
    """`−0.7 to +2.5`, in points; empty without an interval."""
    return _limits(estimate, lambda value: signed(100 * value))


def interval(estimate: Estimate | None, *, digits: int = 2) -> str:
    """`1.99 to 2.64`; empty without an interval."""
    return _limits(estimate, lambda value: number(value, digits=digits))


def _limits(estimate: Estimate | None, words: Callable[[float], str]) -> str:
    limits = estimate.interval if estimate else None
    return "" if limits is None else f"{words(limits[0])} to {words(limits[1])}"


def with_interval(value: str, limits: str) -> str:
    """`42.7 % [38.9 to 46.4]`."""
    return f"{value} [{limits}]" if limits else value


def percent_with_interval(estimate: Estimate | None) -> str:
    """`42.7 % [38.9 to 46.4]`, from fractions."""
    return NOTHING if estimate is None else with_interval(percent(estimate.value), percent_interval(estimate))


def accuracy_change(figures: Figures) -> Estimate:
    """The change in accuracy with the one interval that the report shows for it.

    This is Tango's score interval, from which the non-inferiority verdict also comes. A mean over calibration draws has
    no pairs of answers; its interval is the bootstrap's.
    """
    change, test = figures.accuracy_change, figures.non_inferiority
    return change if test is None else change._replace(low=test.low, high=test.high)


def join(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentence(text: str) -> str:
    """The text with a capital first letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def margin_words(margin: float) -> str:
    """`1 percentage point`."""
    return f"{100 * margin:g} percentage point{'' if math.isclose(margin, 0.01) else 's'}"


def method_words(name: str) -> str:
    """The name of a threshold method in words."""
    return _METHODS.get(name, name)


def outcome_words(reason: str) -> str:
    """The outcome of a threshold method in words."""
    return {str(known): text for known, text in EXPLANATIONS.items()}.get(reason, reason)
