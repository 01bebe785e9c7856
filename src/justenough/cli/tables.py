"""An evaluation as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from justenough.stats.text import counted, percent, points, signed, spread, table

if TYPE_CHECKING:
    from justenough.evaluation import Evaluation
    from justenough.evaluation.figures import Figures
    from justenough.stats.separation import Separation


def separation_cells(separation: Separation) -> list[str]:
    """Cohen's d, AUROC and AUROC within groups, each with its interval."""
    aurocs = (separation.auroc, separation.within_groups)
    return [spread(separation.cohens_d), *(spread(auroc, digits=3) for auroc in aurocs)]


def separation_text(separation: Separation) -> str:
    """The separation in one line."""
    return "d {}, AUROC {}, within groups {}".format(*separation_cells(separation))


def evaluation_text(evaluation: Evaluation) -> str:
    """All figures of an evaluation as text."""
    separation, overlap = evaluation.separation, evaluation.left_out
    left_out = f"; {overlap} more are left out because the calibration was fitted on them" if overlap else ""
    lines = [
        f"{evaluation.model} on {evaluation.task or 'traces'}: {counted(evaluation.problems, 'problem')} of"
        f" {counted(evaluation.steps, 'step')}{left_out}",
        f"right at step 1 {percent(evaluation.accuracy_first)}, after all steps {percent(evaluation.accuracy_full)};"
        f" {evaluation.unanswered} unanswered (counted as wrong)",
        f"signal: {separation.sentence}; {separation_text(separation)}",
        "",
        rules_table(evaluation),
        "",
        f"decide: {evaluation.decide}; savings are against all steps, changes in points with 95 % intervals.",
    ]
    if (best := evaluation.best) is not None:
        figures, rules = evaluation.rules[best], len(evaluation.rules)
        saving = percent(figures.saving.value if figures.saving else None)
        lines.append(
            f"best on these problems: {best}, saving {saving}, change {points(figures.accuracy_change)} points. Of"
            f" {rules} rules it saves most while it loses at most {percent(evaluation.margin)}. It was picked on these"
            " problems: expect less on others."
        )
    draws = evaluation.draws
    lines.append(
        f"{counted(draws.draws, 'draw')} of {counted(draws.n, 'example')}, {draws.method}: saving"
        f" {percent(draws.saving.mean)} (5–95 %: {percent(draws.saving.p5)} to {percent(draws.saving.p95)}), change"
        f" {signed(100 * draws.accuracy_change.mean)} points ({signed(100 * draws.accuracy_change.p5)} to"
        f" {signed(100 * draws.accuracy_change.p95)}), {percent(draws.refused)} refused"
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
    """One row for each rule; published rules at their authors' settings are marked."""
    from justenough.rules.rivals import RIVALS

    authors = {make("").name for make in RIVALS.values()}
    rows = [
        _row(f"{name} (authors)" if name in authors else name, figures) for name, figures in evaluation.rules.items()
    ]
    savings = ["saving", "vs step 1", "vs last", "oracle share"]
    head = ["rule", "accuracy", "change (points)", *savings, "harm", "non-inferior"]
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
