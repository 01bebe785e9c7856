"""An evaluation as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from justenough.stats.text import percent, points, spread, table

if TYPE_CHECKING:
    from justenough.evaluation import Evaluation
    from justenough.evaluation.figures import Figures


def evaluation_text(evaluation: Evaluation) -> str:
    """All figures of an evaluation as text."""
    separation, used = evaluation.separation, evaluation.left_out
    left_out = f"; {used} more are left out because the calibration was fitted on them" if used else ""
    lines = [
        f"{evaluation.model} on {evaluation.task or 'traces'}: {evaluation.problems} problems of"
        f" {evaluation.steps} steps{left_out}",
        f"right at step 1 {percent(evaluation.accuracy_first)}, after all steps {percent(evaluation.accuracy_full)};"
        f" {evaluation.unanswered} unanswered (counted as wrong)",
        f"signal: {separation.sentence}; d {spread(separation.cohens_d)}, AUROC {spread(separation.auroc, digits=3)},"
        f" within groups {spread(separation.within_groups, digits=3)}",
        "",
        rules_table(evaluation),
        "",
        f"decide: {evaluation.decide}; savings are against all steps, changes in points with 95 % intervals.",
    ]
    draws = evaluation.draws
    lines.append(
        f"{draws.draws} draws of {draws.n} examples, {draws.method}: saving {percent(draws.saving.mean)}"
        f" (5–95 %: {percent(draws.saving.p5)} to {percent(draws.saving.p95)}), change"
        f" {percent(draws.accuracy_change.mean, sign=True)} ({percent(draws.accuracy_change.p5, sign=True)} to"
        f" {percent(draws.accuracy_change.p95, sign=True)}), {percent(draws.refused)} refused"
    )
    gated = evaluation.gated
    if gated.cost_saving is not None:
        lines.append(
            f"money: {gated.cost or 0:.6g} for {evaluation.method}, saving {percent(gated.cost_saving.value)} against"
            f" all steps, {percent(gated.cost_saving_vs_last)} against the last step alone;"
            f" accuracy {points(gated.accuracy_change)} points"
        )
    lines += [f"warning: {warning}" for warning in evaluation.warnings]
    lines += [f"{name}: not replayed, {reason}" for name, reason in evaluation.missing.items()]
    return "\n".join(lines)


def rules_table(evaluation: Evaluation) -> str:
    """One row for each rule."""
    rows = [_row(name, figures) for name, figures in evaluation.rules.items()]
    head = ["rule", "accuracy", "change (points)", "saving", "vs step 1", "vs last", "oracle share", "harm"]
    head.append("non-inferior")
    head += ["money saved"] * (evaluation.gated.cost_saving is not None)
    head += ["time saved"] * (evaluation.gated.latency_saving is not None)
    head += ["layers saved"] * (evaluation.gated.layers_saving is not None)
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
    if figures.layers_saving is not None:
        row.append(percent(figures.layers_saving))
    return row
