"""Pictures as SVG files: answers by their signal, and rules by accuracy and saving."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import product
from typing import Final, Literal, NamedTuple

from justenough.evaluation import Evaluation
from justenough.report.data import Bin, Scale
from justenough.report.rulesheets import GATES, lacks_threshold
from justenough.stats.text import percent, safe

WIDTH: Final = 460
HEIGHT: Final = 320
LEFT, RIGHT, TOP, BASE = 52, 440, 56, 270
"""The limits of the plot area of a panel."""
BLUE, ORANGE, INK, GREY = "#2b6cb0", "#b45309", "#2d3748", "#5f6b7a"
LIGHT_BLUE, PALE = "#a9c7e8", "#dbe1e8"
Anchor = Literal["start", "middle", "end"]


class Point(NamedTuple):
    """A rule: tokens saved and accuracy as fractions, with the limits of the accuracy."""

    label: str
    saving: float
    accuracy: float
    low: float
    high: float
    main: bool = False
    """Whether it is a gate of this library; its label is placed first."""


class Box(NamedTuple):
    """A rectangle that a label occupies."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether the rectangles overlap."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def svg(panels: Sequence[Sequence[str]], *, label: str) -> str:
    """A picture with the panels side by side."""
    width = WIDTH * len(panels)
    groups = [
        "\n".join([f'<g transform="translate({WIDTH * at} 0)">', *panel, "</g>"]) for at, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}"'
        f' font-family="Helvetica, Arial, sans-serif" role="img" aria-label="{escape(safe(label))}">'
        f'<rect width="{width}" height="{HEIGHT}" fill="#ffffff"/>\n' + "\n".join(groups) + "\n</svg>\n"
    )


def signal_panel(
    bins: Sequence[Bin], scale: Scale, *, title: str, quantity: str, threshold: float | None = None
) -> list[str]:
    """Numbers of right and wrong first answers by their signal; a dashed line is the threshold."""
    most = max((max(bin.right, bin.wrong) for bin in bins), default=0) or 1
    parts = [_title(title), *_rows(((most, str(most)), (0, "0")), 0, most)]
    for colour, counts in ((BLUE, [bin.right for bin in bins]), (ORANGE, [bin.wrong for bin in bins])):
        wide = (RIGHT - LEFT) / len(bins)
        for at, count in enumerate(counts):
            tall = (BASE - TOP) * count / most
            if count:
                parts.append(bar(LEFT + wide * at, tall, wide - 1, colour=colour))
    for value in _signal_ticks(scale):
        parts.append(_text(_place(value, scale), BASE + 18, f"{value:g}", colour=GREY, anchor="middle"))
    totals = sum(bin.right for bin in bins), sum(bin.wrong for bin in bins)
    parts.append(_text(LEFT, TOP - 12, f"{totals[0]} right", colour=BLUE))
    parts.append(_text(LEFT + 90, TOP - 12, f"{totals[1]} wrong", colour=ORANGE))
    if threshold is not None:
        x = _place(threshold, scale)
        parts.append(_line(x, TOP - 4, x, BASE, colour=INK, dash=True))
        parts.append(_text(x, TOP - 12, f"stop ≤ {threshold:.3g}", anchor="end" if x > LEFT + 260 else "start"))
    return [*parts, _text(RIGHT, BASE + 38, quantity, colour=GREY, anchor="end")]


def rules_panel(points: Sequence[Point], *, title: str) -> list[str]:
    """Accuracy of each rule against the tokens that it saves; a label that has no room is only shown on hovering."""
    if not points:
        return [_title(title), _text(LEFT, TOP + 20, "no rule has a saving", colour=GREY)]
    low, high = min(point.low for point in points), max(point.high for point in points)
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (high - low) / step <= 6 or step == 0.5)
    low, high = math.floor(low / step) * step, max(math.ceil(high / step), math.floor(low / step) + 1) * step
    least = min(0.0, *(point.saving for point in points))

    def place(saving: float, accuracy: float) -> tuple[float, float]:
        return LEFT + (RIGHT - LEFT) * (saving - least) / (1 - least), BASE - (BASE - TOP) * (accuracy - low) / (
            high - low
        )

    marks = [(low + step * at, f"{low + step * at:.0%}") for at in range(round((high - low) / step) + 1)]
    parts = [_title(title), *_rows(marks, low, high)]
    for share in (least, 0.25, 0.5, 0.75, 1.0):
        parts.append(_text(place(share, 0)[0], BASE + 18, f"{share:.0%}", colour=GREY, anchor="middle"))
    parts += [
        _text(RIGHT, BASE + 38, "tokens saved", colour=GREY, anchor="end"),
        _text(8, TOP - 12, "accuracy", colour=GREY),
    ]
    places = [place(point.saving, point.accuracy) for point in points]
    for point, (x, _) in zip(points, places, strict=True):
        parts.append(
            _line(x, place(0, point.low)[1], x, place(0, point.high)[1], colour=LIGHT_BLUE if point.main else PALE)
        )
    for point, (x, y) in zip(points, places, strict=True):
        colour = BLUE if point.main else GREY
        about = f"{point.label}: accuracy {percent(point.accuracy)}, saving {percent(point.saving)}"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{_escaped(about)}</title></circle>'
        )
    return [*parts, *_labels(points, places)]


def rule_points(evaluation: Evaluation) -> list[Point]:
    """The rules of an evaluation that have a saving; a gate without a threshold has none."""
    points = []
    for name, figures in evaluation.rules.items():
        if figures.saving is None or lacks_threshold(evaluation, name):
            continue
        change = figures.accuracy_change.interval or (0.0, 0.0)
        low, high = (min(max(evaluation.accuracy_full + limit, 0.0), 1.0) for limit in change)
        points.append(Point(name, figures.saving.value, figures.accuracy, low, high, name.startswith(GATES)))
    return points


def _labels(points: Sequence[Point], places: Sequence[tuple[float, float]]) -> Iterator[str]:
    """The labels that fit without touching another label, a point or the edge; those of the main rules come first."""
    taken = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for point, (x, y) in sorted(zip(points, places, strict=True), key=lambda pair: not pair[0].main):
        wide = 6.0 * len(point.label)
        for shift, side in product((0, -10, 10, -18, 18), (1, -1)):
            left = x + 8 if side > 0 else x - 8 - wide
            box = Box(left, y + shift - 6, left + wide, y + shift + 6)
            if box.left > LEFT and box.right < WIDTH and box.top > TOP - 8 and not any(map(box.meets, taken)):
                taken.append(box)
                anchor: Anchor = "start" if side > 0 else "end"
                yield _text(x + 8 * side, y + shift + 4, point.label, colour=BLUE if point.main else INK, anchor=anchor)
                break


def _signal_ticks(scale: Scale) -> list[float]:
    if scale.kind == "log":
        powers = range(math.ceil(math.log10(scale.low)), math.floor(math.log10(scale.high)) + 1)
        return [10.0**power for power in powers]
    return [scale.low + (scale.high - scale.low) * at / 4 for at in range(5)]


def _place(value: float, scale: Scale) -> float:
    value = min(max(value, scale.low), scale.high)
    low, high = scale.low, scale.high
    share = math.log(value / low) / math.log(high / low) if scale.kind == "log" else (value - low) / (high - low)
    return LEFT + (RIGHT - LEFT) * share


def _rows(marks: Sequence[tuple[float, str]], low: float, high: float) -> Iterator[str]:
    for value, words in marks:
        y = BASE - (BASE - TOP) * (value - low) / (high - low)
        yield _line(LEFT, y, RIGHT, y, colour=PALE)
        yield _text(LEFT - 6, y + 4, words, colour=GREY, anchor="end")


def bar(left: float, tall: float, wide: float, *, colour: str) -> str:
    """A bar that stands on the base line."""
    place = f'x="{left:.1f}" y="{BASE - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
    return f'<rect {place} fill="{colour}" fill-opacity="0.62"/>'


def grid(most: float) -> Iterator[str]:
    """Horizontal lines from 0 to `most` bits."""
    return _rows([(most * at / 4, f"{most * at / 4:.2f}") for at in range(5)], 0, most)


def caption(x: float, y: float, words: str, *, colour: str, anchor: Anchor = "middle") -> str:
    """A text below or above the bars."""
    return _text(x, y, words, colour=colour, anchor=anchor)


def _title(words: str) -> str:
    return _text(8, 22, words, size=14)


def _text(x: float, y: float, words: str, *, colour: str = INK, size: int = 11, anchor: Anchor = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}" text-anchor="{anchor}"'
    # The white outline keeps a text readable on a line.
    place += ' stroke="#ffffff" stroke-width="2.5" paint-order="stroke"'
    return f"<text {place}>{_escaped(words)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, *, colour: str, dash: bool = False) -> str:
    dashes = ' stroke-dasharray="4 3"' if dash else ""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashes}/>'


def _escaped(words: str) -> str:
    return escape(safe(words).replace("\n", " "))
