"""Numbers as text, and names of methods in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from justenough.calibration.thresholds import EXPLANATIONS
from justenough.evaluation.figures import Figures
from justenough.stats import Estimate

NOTHING: Final = "–"
NO_THRESHOLD: Final = "no threshold"


def signed(value: float, *, digits: int = 1) -> str:
    """`+1.5` or `−0.3`, with a true minus; a value that rounds to zero has no sign."""
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "−")


def percent(value: float | None) -> str:
    """A fraction as `31.2 %`."""
    if value is None:
        return NOTHING
    return f"{100 * value:.1f} %".replace("-", "−").replace("−0.0 ", "0.0 ")


def points(value: float) -> str:
    """A difference of two fractions as `+1.5 points`."""
    return f"{signed(100 * value)} points"


def number(value: float | None, *, digits: int = 2) -> str:
    """A rounded number with a true minus."""
    return NOTHING if value is None else f"{value:.{digits}f}".replace("-", "−")


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


def number_with_interval(estimate: Estimate | None, *, digits: int = 2) -> str:
    """`2.29 [1.99 to 2.64]`."""
    value = number(estimate.value if estimate else None, digits=digits)
    return with_interval(value, interval(estimate, digits=digits))


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
    return {
        "mean": "entropy mean",
        "info": "information-theoretic",
        "bayes": "Bayes-optimal",
        "universal": "scale-invariant universal",
        "risk": "risk-controlled",
        "net": "net-controlled",
    }.get(name, name)


def outcome_words(reason: str) -> str:
    """The outcome of a threshold method in words."""
    return next((text for known, text in EXPLANATIONS.items() if known == reason), reason)
