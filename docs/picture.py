"""Draws the README's picture from the demo's results: `make demo && python docs/picture.py` writes docs/result.svg."""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path
from typing import Any, Final

from justenough import read_traces

ROOT: Final = Path(__file__).parent.parent
RIGHT, WRONG, INK, GREY = "#2b6cb0", "#dd7a1f", "#2d3748", "#8a94a3"
BINS: Final = 30
LOW, HIGH = 3e-4, 0.6
LABELS: Final = {
    "always-one-step": ("step 1 alone", 8, 14, "start"),
    "always-2-steps": ("always 2 steps", 8, -8, "start"),
    "all-steps": ("all 4 steps", 2, -9, "end"),
    "oracle": ("oracle (step 1)", -2, -9, "middle"),
    "entropy-mean": ("entropy mean, 10 labels", -2, 18, "middle"),
    "recommended": ("recommended, 300 labels", -4, 20, "start"),
}


def text(x: float, y: float, words: str, *, colour: str = INK, size: int = 12, anchor: str = "start") -> str:
    """An SVG text element."""
    place = f'x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}" text-anchor="{anchor}"'
    return f"<text {place}>{escape(words)}</text>"


def distributions(summary: dict[str, Any]) -> list[str]:
    """Histogram of the step-1 entropy of right and wrong answers on a logarithmic axis, with the threshold."""
    counts = {True: [0] * BINS, False: [0] * BINS}
    for trace in read_traces(ROOT / "demo" / "traces.parquet").traces:
        bits = trace.steps[0].bits(trace.signal)
        if bits is not None:
            place = math.log(min(max(bits, LOW), HIGH * 0.999) / LOW) / math.log(HIGH / LOW)
            counts[trace.steps[0].is_correct][int(place * BINS)] += 1
    left, width, base, height = 50, 380, 270, 190
    top = max(*counts[True], *counts[False])
    parts = [text(left, 34, "Entropy of the first step, 600 held-out problems", size=14)]
    for correct, colour in ((True, RIGHT), (False, WRONG)):
        for number, count in enumerate(counts[correct]):
            tall = height * count / top
            x = left + width * number / BINS
            parts.append(
                f'<rect x="{x:.1f}" y="{base - tall:.1f}" width="{width / BINS - 1:.1f}" height="{tall:.1f}"'
                f' fill="{colour}" fill-opacity="0.62"/>'
            )
    for bits in (0.001, 0.01, 0.1):
        x = left + width * math.log(bits / LOW) / math.log(HIGH / LOW)
        parts.append(text(x, base + 18, f"{bits:g}", colour=GREY, size=11, anchor="middle"))
    parts.append(text(left + width, base + 18, "bits", colour=GREY, size=11, anchor="end"))
    parts.append(f'<line x1="{left}" x2="{left + width}" y1="{base}" y2="{base}" stroke="{GREY}"/>')
    x = left + width * math.log(summary["thresholds"]["mean"] / LOW) / math.log(HIGH / LOW)
    parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="60" y2="{base}" stroke="{INK}" stroke-dasharray="4 3"/>')
    parts.append(text(x - 6, 70, "stop ◂ τ", anchor="end"))
    parts.append(text(left + 40, 110, "right", colour=RIGHT, size=13))
    parts.append(text(left + width - 70, 110, "wrong", colour=WRONG, size=13))
    return parts


def frontier(summary: dict[str, Any]) -> list[str]:
    """Each rule's accuracy against its tokens, with the interval of its change in accuracy."""
    left, width, base, height, low, high = 520, 350, 270, 200, 0.74, 0.99
    full = summary["tokens_full"]

    def place(tokens: float, accuracy: float) -> tuple[float, float]:
        return left + width * tokens / full, base - height * (min(max(accuracy, low), high) - low) / (high - low)

    parts = [text(left, 34, "Accuracy against tokens generated", size=14)]
    for accuracy in (0.75, 0.80, 0.85, 0.90, 0.95):
        y = place(0, accuracy)[1]
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e2e8f0"/>')
        parts.append(text(left - 6, y + 4, f"{accuracy:.0%}", colour=GREY, size=11, anchor="end"))
    for share in (0.25, 0.5, 0.75, 1.0):
        parts.append(text(left + width * share, base + 18, f"{share:.0%}", colour=GREY, size=11, anchor="middle"))
    parts.append(text(left, base + 18, "of all steps'", colour=GREY, size=11))
    for name, (label, dx, dy, anchor) in LABELS.items():
        row = summary["rules"].get(name)
        if row is None:
            continue
        x, y = place(row["tokens"], row["accuracy"])
        colour = RIGHT if name in ("entropy-mean", "recommended") else GREY
        limits = [place(row["tokens"], summary["accuracy_full"] + limit)[1] for limit in row["accuracy_change_ci"]]
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{limits[0]:.1f}" y2="{limits[1]:.1f}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>')
        parts.append(text(x + dx, y + dy, label, colour=colour if colour == RIGHT else INK, anchor=anchor))
    return parts


def main() -> None:
    """Write the SVG file."""
    summary = json.loads((ROOT / "demo" / "summary.json").read_text())
    parts = [*distributions(summary), *frontier(summary)]
    body = "\n".join(parts)
    (ROOT / "docs" / "result.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 920 310" font-family="Helvetica, Arial, sans-serif"'
        f' role="img"><rect width="920" height="310" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    main()
