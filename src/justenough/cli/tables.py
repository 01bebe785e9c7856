"""An evaluation as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from justenough.stats.text import percent, points, spread, table

if TYPE_CHECKING:
    from justenough.evaluation import Evaluation
    from justenough.evaluation.figures import Figures


def evaluation_text(made: Evaluation) -> str:
    """All figures of an evaluation as text."""
    found = made.separation
    lines = [
        f"{made.model} on {made.task or 'traces'}: {made.problems} problems of {made.steps} steps"
        + (f"; {made.left_out} more are left out because the calibration was fitted on them" if made.left_out else ""),
        f"right at step 1 {percent(made.accuracy_first)}, after all steps {percent(made.accuracy_full)};"
        f" {made.unanswered} unanswered (counted as wrong)",
        f"signal: {found.sentence}; d {spread(found.cohens_d)}, AUROC {spread(found.auroc, digits=3)},"
        f" within groups {spread(found.within_groups, digits=3)}",
        "",
        rules_table(made),
        "",
        f"decide: {made.decide}; savings are against all steps, changes in points with 95 % intervals.",
    ]
    draws = made.draws
    lines.append(
        f"{draws.draws} draws of {draws.n} examples, {draws.method}: saving {percent(draws.saving.mean)}"
        f" (5–95 %: {percent(draws.saving.p5)} to {percent(draws.saving.p95)}), change"
        f" {percent(draws.accuracy_change.mean, sign=True)} ({percent(draws.accuracy_change.p5, sign=True)} to"
        f" {percent(draws.accuracy_change.p95, sign=True)}), {percent(draws.refused)} refused"
    )
    gated = made.gated
    if gated.cost_saving is not None:
        lines.append(
            f"money: {gated.cost or 0:.6g} for {made.method}, saving {percent(gated.cost_saving.value)} against all"
            f" steps, {percent(gated.cost_saving_vs_last)} against the last step alone;"
            f" accuracy {points(gated.accuracy_change)} points"
        )
    lines += [f"warning: {warning}" for warning in made.warnings]
    lines += [f"{name}: not replayed, {reason}" for name, reason in made.missing.items()]
    return "\n".join(lines)


def rules_table(made: Evaluation) -> str:
    """One row for each rule."""
    rows = [_row(name, figures) for name, figures in made.rules.items()]
    head = [
        "rule",
        "accuracy",
        "change (points)",
        "saving",
        "vs step 1",
        "vs last",
        "oracle share",
        "harm",
        "non-inferior",
    ]
    if made.gated.cost_saving is not None:
        head.append("money saved")
    if made.gated.latency_saving is not None:
        head.append("time saved")
    return table(head, rows)


def _row(name: str, figures: Figures) -> list[str]:
    verdict = figures.non_inferiority
    row = [
        name,
        percent(figures.accuracy),
        points(figures.accuracy_change),
        percent(figures.saving.value if figures.saving else None),
        percent(figures.saving_vs_first, sign=True),
        percent(figures.saving_vs_last, sign=True),
        percent(figures.oracle_share),
        percent(figures.harm.value if figures.harm else None),
        verdict.verdict if verdict is not None else "–",
    ]
    if figures.cost_saving is not None:
        row.append(percent(figures.cost_saving.value))
    if figures.latency_saving is not None:
        row.append(percent(figures.latency_saving))
    return row
