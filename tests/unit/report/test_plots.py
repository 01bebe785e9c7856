"""The SVG pictures: what they show, labels that do not overlap, and names that cannot break out."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from justenough.report.data import Bin, Contents, Scale
from justenough.report.plots import Box, Point, rule_points, rules_panel, signal_panel, svg

LOG = Scale("log", 0.001, 1.0)
BINS = [Bin(0.001, 0.03, 7, 0), Bin(0.03, 1.0, 2, 3)]


def texts(panel: list[str]) -> list[str]:
    root = ElementTree.fromstring(svg([panel], label="x"))
    return [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]


def boxes(panel: list[str], labels: list[str]) -> list[Box]:
    out = []
    for part in panel:
        found = re.match(r'<text x="([\d.]+)" y="([\d.]+)".* text-anchor="(\w+)".*>(.*)</text>', part)
        if found and found[4] in labels:
            x, y, wide = float(found[1]), float(found[2]), 6.0 * len(found[4])
            left = x if found[3] == "start" else x - wide
            out.append(Box(left, y - 10, left + wide, y + 2))
    return out


def test_the_signal_panel_counts_answers_and_marks_the_threshold() -> None:
    panel = signal_panel(BINS, LOG, title="m", quantity="entropy, bits", threshold=0.1)
    assert {"9 right", "3 wrong", "0.01", "stop ≤ 0.1", "entropy, bits"} <= set(texts(panel))
    assert sum("<rect" in part for part in panel) == 3
    assert not any("stop" in text for text in texts(signal_panel(BINS, LOG, title="m", quantity="x")))


def test_bars_are_as_high_as_their_counts() -> None:
    panel = signal_panel([Bin(0, 1, 4, 2)], Scale("linear", 0.0, 1.0), title="m", quantity="x")
    heights = [float(found[1]) for part in panel if (found := re.search(r'<rect.* height="([\d.]+)"', part))]
    assert heights[0] == 2 * heights[1]


def test_every_rule_of_the_evaluation_with_a_saving_is_a_point(contents: Contents) -> None:
    points = rule_points(contents.evaluation)
    assert {"all-steps", "oracle", "entropy-mean"} <= {point.label for point in points}
    assert all(0 <= point.low <= point.accuracy <= point.high <= 1 for point in points)
    assert 0 < sum(point.main for point in points) < len(points)
    panel = rules_panel(points, title="m")
    assert sum("<circle" in part for part in panel) == len(points)
    labels = [text for text in texts(panel) if text in {point.label for point in points}]
    assert "entropy-mean" in labels
    placed = boxes(panel, labels)
    assert len(placed) == len(labels)
    assert not any(one.meets(other) for at, one in enumerate(placed) for other in placed[:at])


def test_labels_of_equal_points_do_not_overlap_and_the_main_rule_comes_first() -> None:
    points = [Point(f"rule-{at}", 0.5, 0.9, 0.8, 1.0, at == 11) for at in range(12)]
    panel = rules_panel(points, title="m")
    labels = [text for text in texts(panel) if text.startswith("rule-")]
    assert labels[0] == "rule-11"
    assert 1 < len(labels) < 12
    placed = boxes(panel, labels)
    assert not any(one.meets(other) for at, one in enumerate(placed) for other in placed[:at])


def test_without_a_saving_the_panel_says_so() -> None:
    assert "no rule has a saving" in texts(rules_panel([], title="m"))


def test_a_rule_that_costs_more_than_all_steps_is_inside() -> None:
    panel = rules_panel([Point("dear", -0.4, 0.5, 0.5, 0.5), Point("cheap", 0.4, 0.5, 0.5, 0.5)], title="m")
    places = [float(found[1]) for part in panel if (found := re.match(r'<circle cx="([\d.]+)"', part))]
    assert min(places) >= 52
    assert "-40%" in texts(panel)


def test_names_from_files_cannot_break_out() -> None:
    evil = '</text><script>x</script>\x1b"&'
    panels = [
        signal_panel(BINS, LOG, title=evil, quantity=evil),
        rules_panel([Point(evil, 0.5, 0.5, 0, 1)], title=evil),
    ]
    picture = svg(panels, label=evil)
    root = ElementTree.fromstring(picture)
    assert "script" not in {node.tag.rpartition("}")[2] for node in root.iter()}
    assert "\x1b" not in picture
