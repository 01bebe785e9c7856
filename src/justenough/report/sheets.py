"""The report's tables: every form shows these, so that all carry the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from justenough import __version__
from justenough.evaluation.draws import Spread
from justenough.evaluation.figures import Figures
from justenough.report.budgetsheets import budget_claim, budget_curve, budget_shares
from justenough.report.data import Contents
from justenough.report.demosheets import known, live, recommended, siblings
from justenough.report.tables import Sheet
from justenough.report.words import (
    NOTHING,
    bits,
    count,
    interval,
    margin_words,
    method_words,
    number,
    outcome_words,
    percent,
    percent_interval,
    points,
    points_interval,
    signed,
    with_interval,
)
from justenough.stats import Estimate

RULES: Final = (
    "rule",
    "accuracy",
    "change, points",
    "saving",
    "tokens",
    "vs step 1",
    "vs last step",
    "of oracle",
    "stopped",
    "harm",
    "rescue",
    "unanswered",
    "McNemar p",
    "non-inferiority",
)
MONEY: Final = ("cost", "money saved", "money vs last step")
"""Where prices were given."""
TIME: Final = ("time saved",)
"""Where seconds were recorded."""


def rule_row(name: str, figures: Figures) -> list[str]:
    """A rule's figures under `RULES`, and `MONEY` and `TIME` where they are known."""
    change, saving = figures.accuracy_change, figures.saving
    return [
        name,
        percent(figures.accuracy),
        with_interval(signed(100 * change.value), points_interval(change)),
        with_interval(percent(saving.value), percent_interval(saving)) if saving is not None else NOTHING,
        count(figures.tokens),
        percent(figures.saving_vs_first),
        percent(figures.saving_vs_last),
        percent(figures.oracle_share),
        percent(figures.stopped),
        _share(figures.harm),
        _share(figures.rescue),
        percent(figures.unanswered),
        NOTHING if figures.mcnemar_p is None else f"{figures.mcnemar_p:.2g}",
        NOTHING if figures.non_inferiority is None else figures.non_inferiority.verdict,
        *(value for _, value in _money_and_time(figures)),
    ]


def _money_and_time(figures: Figures) -> list[tuple[str, str]]:
    """The columns of `MONEY` and `TIME` that are known, with their values."""
    money = () if figures.cost is None else MONEY
    shown = (f"{figures.cost or 0:.6g}", _share(figures.cost_saving), percent(figures.cost_saving_vs_last))
    rows = list(zip(money, shown, strict=False))
    return rows if figures.latency_saving is None else [*rows, (TIME[0], percent(figures.latency_saving))]


def _share(estimate: Estimate | None) -> str:
    return NOTHING if estimate is None else with_interval(percent(estimate.value), percent_interval(estimate))


def key_figures(found: Contents) -> Sheet:
    """The saving with its accuracy change, and what stands beside them."""
    made, gated, evidence = found.made, found.made.gated, found.made.separation
    change = gated.accuracy_change
    verdict = gated.non_inferiority
    rows = [
        ("tokens saved", _share(gated.saving)),
        ("change in accuracy", with_interval(points(change.value), points_interval(change))),
        (f"at a margin of {margin_words(made.margin)}", NOTHING if verdict is None else verdict.verdict),
        ("accuracy of the gate", percent(gated.accuracy)),
        ("accuracy of step 1", percent(made.accuracy_first)),
        (f"accuracy of all {made.steps} steps", percent(made.accuracy_full)),
        ("stopped early", percent(gated.stopped)),
        ("harm: stopped wrong, would have ended right", _share(gated.harm)),
        ("rescue: stopped right, would have ended wrong", _share(gated.rescue)),
        ("tokens of the gate", count(gated.tokens)),
        ("tokens of step 1 alone", count(made.tokens_first)),
        ("tokens of the last step alone", count(made.tokens_last)),
        ("tokens of all steps", count(made.tokens_full)),
        ("saving against step 1 alone", percent(gated.saving_vs_first)),
        ("saving against the last step alone", percent(gated.saving_vs_last)),
        ("saving of the oracle", percent(made.oracle_saving)),
        ("share of the oracle's saving", percent(gated.oracle_share)),
        ("verdict on the signal", evidence.sentence),
        ("Cohen's d", estimate(evidence.cohens_d)),
        ("AUROC", estimate(evidence.auroc, digits=3)),
        ("AUROC within groups", estimate(evidence.within_groups, digits=3)),
        ("unanswered", count(made.unanswered)),
        *_money_and_time(gated),
    ]
    return Sheet("figures", "Key figures", ("figure", "value"), rows, "Intervals are 95 %.")


def estimate(found: Estimate | None, *, digits: int = 2) -> str:
    """`2.29 [1.99 to 2.64]`."""
    return (
        NOTHING if found is None else with_interval(number(found.value, digits=digits), interval(found, digits=digits))
    )


def thresholds(found: Contents) -> Sheet:
    """Each method's threshold."""
    made = found.made
    rows = [
        (method_words(name), f"{bits(value)} {found.unit}" if value is not None else "never stops",
         outcome_words(made.threshold_outcomes.get(name, "ok")))
        for name, value in made.thresholds.items()
    ]  # fmt: skip
    on = f"the calibration's {found.calibration.n} examples" if found.calibration else "all of these problems"
    return Sheet("thresholds", "Thresholds", ("method", "τ", "outcome"), rows, f"Fitted on {on}.")


def rules(found: Contents) -> Sheet:
    """All rules on the same problems."""
    made = found.made
    note = (
        f"Savings are against all {made.steps} steps, changes in points of accuracy; brackets hold 95 % intervals."
        f" Non-inferiority is at a margin of {margin_words(made.margin)}. Unanswered counts as wrong."
    )
    rows = [rule_row(name, figures) for name, figures in made.rules.items()]
    header = (*RULES, *(name for name, _ in _money_and_time(made.gated)))
    return Sheet("rules", "Every rule on the same problems", header, rows, note)


def families(found: Contents) -> Sheet:
    """Each family under the gate."""
    rows = [
        (row.name, count(row.problems), percent(row.first), percent(row.gated), percent(row.full), percent(row.saving),
         percent(row.stopped))
        for row in found.families
    ]  # fmt: skip
    header = ("family", "problems", "step 1 right", "gate right", "all steps right", "saving", "stopped")
    return Sheet("families", "Families of problems", header, rows, f"The gate: {gate_words(found)}.")


def gate_words(found: Contents) -> str:
    """The gate whose decisions are shown problem by problem."""
    settings = found.settings
    threshold = "never stops" if settings.threshold is None else f"τ = {bits(settings.threshold)} {found.unit}"
    when = "after step 1" if settings.decide == "first" else "after every step"
    return f"{method_words(found.made.method)}, {threshold}, decides {when}"


def draws(found: Contents) -> Sheet:
    """What other draws of the examples would have given."""
    made = found.made.draws

    def row(name: str, spread: Spread, text: str) -> tuple[str, str, str, str]:
        def shown(value: float) -> str:
            return signed(100 * value) if text == "points" else percent(value) if text == "%" else bits(value)

        return name, shown(spread.mean), shown(spread.p5), shown(spread.p95)

    rows = [row("saving", made.saving, "%"), row("change, points", made.accuracy_change, "points")]
    if made.threshold is not None:
        rows.append(row(f"τ, {found.unit}", made.threshold, ""))
    note = (
        f"{made.draws} draws of {made.n} examples, {method_words(made.method)}; {percent(made.refused)} gave no"
        " threshold or were refused, and count as never stopping."
    )
    percentile = known(found.demo, "draw_percentile")
    if percentile is not None:
        note += f" The one shown saves more than {percent(percentile)} of them."
    return Sheet("draws", "Luck of the draw", ("", "mean", "5th percentile", "95th percentile"), rows, note)


def sizes(found: Contents) -> Sheet:
    """The chosen method against the number of labels."""
    rows = [
        (
            str(row.n),
            NOTHING if row.threshold is None else _middle(bits, row.threshold),
            _middle(percent, row.saving),
            _middle(lambda value: signed(100 * value), row.accuracy_change),
            percent(row.none),
        )
        for row in found.sizes
    ]
    header = ("labels", f"τ, {found.unit}", "saving", "change, points", "no threshold")
    drawn = found.sizes[0].draws if found.sizes else 0
    note = (
        f"Over {drawn} draws of so many of these problems, {method_words(found.made.method)}: the mean and the range"
        " from the 5th to the 95th percentile. Each draw is judged on the problems that it left out, by its difference"
        " there from the threshold of all of them; one without a threshold never stops."
    )
    return Sheet("sizes", "How many labels?", header, rows, note)


def _middle(shown: Callable[[float], str], spread: Spread) -> str:
    return with_interval(shown(spread.mean), f"{shown(spread.p5)} to {shown(spread.p95)}")


def sweep(found: Contents) -> Sheet:
    """What the gate does at other thresholds."""
    rows = [
        (bits(row.threshold), percent(row.accuracy), points(row.change), percent(row.saving), percent(row.stopped),
         percent(row.harm), percent(row.rescue))
        for row in found.sweep
    ]  # fmt: skip
    header = (f"τ, {found.unit}", "accuracy", "change", "saving", "stopped", "harm", "rescue")
    return Sheet("sweep", "What a threshold does", header, rows)


def histogram(found: Contents) -> Sheet:
    """How unsure the model was of right and of wrong first answers."""
    rows = [
        (bits(entry.low), bits(entry.high), str(entry.right), str(entry.wrong))
        for entry in found.histogram
        if entry.right or entry.wrong
    ]
    header = (f"from, {found.unit}", "to", "right", "wrong")
    return Sheet("histogram", f"First answers by {found.quantity}", header, rows)


def roc(found: Contents) -> Sheet:
    """Eleven points of the curve."""
    curve = found.roc
    places = sorted({round(step * (len(curve) - 1) / 10) for step in range(11)}) if curve else []
    rows = [(percent(curve[at][0]), percent(curve[at][1])) for at in places]
    return Sheet("roc", "ROC", ("right answers that think on", "wrong answers that think on"), rows)


def reliability(found: Contents) -> Sheet:
    """P(right | signal)."""
    rows = [
        (
            f"{bits(row.low)} to {bits(row.high)}",
            str(row.share.n),
            percent(row.share.value),
            percent_interval(row.share),
        )
        for row in found.reliability
    ]
    header = (f"{found.quantity}, {found.unit}", "problems", "right", "95 % interval")
    return Sheet("reliability", "P(right) by bin", header, rows)


def provenance(found: Contents) -> Sheet:
    """What it takes to make this report again."""
    made, calibration = found.made, found.calibration
    signal = ", ".join(f"{key} {value}" for key, value in made.signal.to_json().items() if value is not None)
    rows = [
        ("command", found.command),
        ("version", f"justenough {__version__}"),
        ("model", made.model),
        ("task", made.task or NOTHING),
        ("problems", f"{count(made.problems)}, {made.steps} steps each at most"),
        ("shape", found.settings.shape),
        ("signal", signal),
        ("seed", f"{made.seed} (draws and resampling)"),
        ("data", f"sha256 {made.data_fingerprint}"),
    ]
    if calibration is not None:
        drawn = f"{calibration.n} examples, {calibration.n_right} right and {calibration.n_wrong} wrong"
        rows += [
            ("calibration", f"{method_words(calibration.method)} on {drawn}; seed {calibration.seed}"),
            ("calibration data", f"sha256 {calibration.data_fingerprint}"),
            ("guarantee", calibration.guarantee or "none"),
        ]
    note = "The same command on the same data and version gives the same bytes."
    return Sheet("provenance", "Provenance", ("", ""), rows, note)


def all_sheets(found: Contents) -> list[Sheet]:
    """In the order of the page."""
    sheets = [
        key_figures(found),
        thresholds(found),
        sweep(found),
        rules(found),
        draws(found),
        sizes(found),
        histogram(found),
        roc(found),
        reliability(found),
        budget_claim(found),
        budget_curve(found),
        *budget_shares(found),
        families(found),
        live(found),
        recommended(found),
        siblings(found),
        provenance(found),
    ]
    return [sheet for sheet in sheets if sheet is not None and sheet.rows]
