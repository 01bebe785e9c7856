"""The tables of the report. Every form shows the same tables, so all forms have the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from justenough import __version__
from justenough.evaluation.draws import Spread
from justenough.evaluation.figures import Figures
from justenough.report.budgetsheets import budget_claim, budget_curve, budget_shares
from justenough.report.data import Contents
from justenough.report.demosheets import live, number_in, recommended, siblings
from justenough.report.tables import Sheet
from justenough.report.terms import legend
from justenough.report.words import (
    NO_THRESHOLD,
    NOTHING,
    accuracy_change,
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

RULES: Final = ("rule", "accuracy", "change, points", "saving", "tokens", "stopped", "harm", "rescue", "verdict")
MORE: Final = ("rule", "saving vs step 1", "saving vs last step", "share of oracle", "unanswered", "McNemar p")
MONEY: Final = ("cost", "money saved", "money vs last step")
"""Columns of a report with prices."""
TIME: Final = ("time saved",)
"""Column of a report with recorded seconds."""


def rule_row(name: str, figures: Figures) -> tuple[str, ...]:
    """The main figures of a rule, in the columns `RULES`."""
    change = accuracy_change(figures)
    return (
        name,
        percent(figures.accuracy),
        with_interval(signed(100 * change.value), points_interval(change)),
        _share(figures.saving),
        count(figures.tokens),
        percent(figures.stopped),
        _share(figures.harm),
        _share(figures.rescue),
        NOTHING if figures.non_inferiority is None else figures.non_inferiority.verdict,
    )


def more_row(name: str, figures: Figures) -> tuple[str, ...]:
    """The other figures of a rule: `MORE`, then `MONEY` and `TIME` if they are known."""
    return (
        name,
        percent(figures.saving_vs_first),
        percent(figures.saving_vs_last),
        percent(figures.oracle_share),
        percent(figures.unanswered),
        NOTHING if figures.mcnemar_p is None else f"{figures.mcnemar_p:.2g}",
        *(value for _, value in _money_and_time(figures)),
    )


def _money_and_time(figures: Figures) -> list[tuple[str, str]]:
    """The known columns of `MONEY` and `TIME`, each with its value."""
    money = () if figures.cost is None else MONEY
    values = (f"{figures.cost or 0:.6g}", _share(figures.cost_saving), percent(figures.cost_saving_vs_last))
    rows = list(zip(money, values, strict=False))
    return rows if figures.latency_saving is None else [*rows, (TIME[0], percent(figures.latency_saving))]


def _share(estimate: Estimate | None) -> str:
    return NOTHING if estimate is None else with_interval(percent(estimate.value), percent_interval(estimate))


def lacks_threshold(contents: Contents, rule: str) -> bool:
    """Whether the rule is a gate whose method gives no threshold."""
    thresholds, method = contents.evaluation.thresholds, rule.removeprefix("entropy-")
    return (
        rule != method
        and method in thresholds
        and thresholds[method] is None
        and contents.evaluation.rules[rule].stopped == 0
    )


def saving_words(contents: Contents) -> str:
    """The saving of the gate without its interval; a gate without a threshold has none."""
    gated = contents.evaluation.gated
    if contents.settings.threshold is None and gated.stopped == 0:
        return NO_THRESHOLD
    return percent(gated.saving.value if gated.saving else None)


def key_figures(contents: Contents) -> Sheet:
    """The main figures of the gate."""
    evaluation, gated, evidence = contents.evaluation, contents.evaluation.gated, contents.evaluation.separation
    change, test, saving = accuracy_change(gated), gated.non_inferiority, saving_words(contents)
    rows = [
        ("tokens saved", saving if saving == NO_THRESHOLD else with_interval(saving, percent_interval(gated.saving))),
        ("change in accuracy", with_interval(points(change.value), points_interval(change))),
        (f"verdict at a margin of {margin_words(evaluation.margin)}", NOTHING if test is None else test.verdict),
        ("accuracy of the gate", percent(gated.accuracy)),
        ("accuracy of step 1", percent(evaluation.accuracy_first)),
        (f"accuracy of all {evaluation.steps} steps", percent(evaluation.accuracy_full)),
        ("problems stopped early", percent(gated.stopped)),
        ("harm: stopped at a wrong answer, last answer right", _share(gated.harm)),
        ("rescue: stopped at a right answer, last answer wrong", _share(gated.rescue)),
        ("tokens of the gate", count(gated.tokens)),
        ("tokens of step 1 alone", count(evaluation.tokens_first)),
        ("tokens of the last step alone", count(evaluation.tokens_last)),
        ("tokens of all steps", count(evaluation.tokens_full)),
        ("saving compared with step 1 alone", percent(gated.saving_vs_first)),
        ("saving compared with the last step alone", percent(gated.saving_vs_last)),
        ("saving of the oracle", percent(evaluation.oracle_saving)),
        ("share of the oracle's saving", percent(gated.oracle_share)),
        ("does the signal separate right from wrong?", evidence.sentence),
        ("Cohen's d", estimate_words(evidence.cohens_d)),
        ("AUROC", estimate_words(evidence.auroc, digits=3)),
        ("AUROC within groups", estimate_words(evidence.within_groups, digits=3)),
        ("problems without an answer", count(evaluation.unanswered)),
        *_money_and_time(gated),
    ]
    return Sheet("figures", "Key figures", ("figure", "value"), rows, "Brackets hold 95 % intervals.")


def estimate_words(estimate: Estimate | None, *, digits: int = 2) -> str:
    """`2.29 [1.99 to 2.64]`."""
    if estimate is None:
        return NOTHING
    return with_interval(number(estimate.value, digits=digits), interval(estimate, digits=digits))


def thresholds(contents: Contents) -> Sheet:
    """The threshold of each method."""
    evaluation = contents.evaluation
    rows = [
        (method_words(name), f"{bits(value)} {contents.unit}" if value is not None else NO_THRESHOLD,
         outcome_words(evaluation.threshold_outcomes.get(name, "ok")))
        for name, value in evaluation.thresholds.items()
    ]  # fmt: skip
    examples = (
        f"the {contents.calibration.n} examples of the calibration" if contents.calibration else "all of these problems"
    )
    return Sheet("thresholds", "Thresholds", ("method", "τ", "outcome"), rows, f"Fitted on {examples}.")


def rules(contents: Contents) -> Sheet:
    """The main figures of all rules."""
    evaluation = contents.evaluation
    note = (
        f"Each rule is compared with running all {evaluation.steps} steps. Changes are in points of accuracy; brackets"
        f" hold 95 % intervals. The verdict uses a margin of {margin_words(evaluation.margin)}."
    )
    rows = [
        (name, NOTHING, NOTHING, NO_THRESHOLD, *[NOTHING] * (len(RULES) - 4))
        if lacks_threshold(contents, name)
        else rule_row(name, figures)
        for name, figures in evaluation.rules.items()
    ]
    return Sheet("rules", "All rules on the same problems", RULES, rows, note)


def more_rules(contents: Contents) -> Sheet:
    """The other figures of all rules that have a threshold or need none."""
    rows = [
        more_row(name, figures)
        for name, figures in contents.evaluation.rules.items()
        if not lacks_threshold(contents, name)
    ]
    header = (*MORE, *(name for name, _ in _money_and_time(contents.evaluation.gated)))
    return Sheet("more", "All rules: further figures", header, rows)


def columns(contents: Contents) -> Sheet:
    """What the columns of the tables of rules mean."""
    heads = dict.fromkeys((*RULES, *more_rules(contents).header))
    return Sheet("columns", "What the columns mean", ("column", "meaning"), legend(list(heads)))


def missing(contents: Contents) -> Sheet:
    """Rules that cannot be replayed on these traces."""
    rows = list(contents.evaluation.missing.items())
    return Sheet("missing", "Rules that were not replayed", ("rule", "what it needs"), rows)


def families(contents: Contents) -> Sheet:
    """Each family under the gate."""
    rows = [
        (row.name, count(row.problems), percent(row.first), percent(row.gated), percent(row.full), percent(row.saving),
         percent(row.stopped))
        for row in contents.families
    ]  # fmt: skip
    header = ("family", "problems", "step 1 right", "gate right", "all steps right", "saving", "stopped")
    return Sheet("families", "Families of problems", header, rows, f"The gate: {gate_words(contents)}.")


def gate_words(contents: Contents) -> str:
    """The gate whose decisions are shown for each problem."""
    settings = contents.settings
    threshold = NO_THRESHOLD if settings.threshold is None else f"τ = {bits(settings.threshold)} {contents.unit}"
    when = "after step 1" if settings.decide == "first" else "after every step"
    return f"{method_words(contents.evaluation.method)}, {threshold}, decides {when}"


def draws(contents: Contents) -> Sheet:
    """The results of other choices of the examples."""
    spread = contents.evaluation.draws
    rows = [
        ("saving", *_three(percent, spread.saving)),
        ("change, points", *_three(_signed_points, spread.accuracy_change)),
    ]
    if spread.threshold is not None:
        rows.append((f"τ, {contents.unit}", *_three(bits, spread.threshold)))
    note = (
        f"{spread.draws} random draws of {spread.n} examples; method: {method_words(spread.method)}."
        f" {percent(spread.refused)} of the draws gave no threshold or were refused; they count as never stopping."
    )
    percentile = number_in(contents.demo, "draw_percentile")
    if percentile is not None:
        note += f" The draw of this report saves more than {percent(percentile)} of them."
    return Sheet(
        "draws", "Effect of the choice of examples", ("", "mean", "5th percentile", "95th percentile"), rows, note
    )


def _three(words: Callable[[float], str], spread: Spread) -> tuple[str, str, str]:
    return words(spread.mean), words(spread.p5), words(spread.p95)


def _signed_points(value: float) -> str:
    return signed(100 * value)


def _with_range(words: Callable[[float], str], spread: Spread) -> str:
    mean, low, high = _three(words, spread)
    return with_interval(mean, f"{low} to {high}")


def sizes(contents: Contents) -> Sheet:
    """The chosen method with several numbers of labels."""
    rows = [
        (
            str(row.n),
            NOTHING if row.threshold is None else _with_range(bits, row.threshold),
            NO_THRESHOLD if row.none == 1 else _with_range(percent, row.saving),
            NOTHING if row.none == 1 else _with_range(_signed_points, row.accuracy_change),
            percent(row.none),
        )
        for row in contents.sizes
    ]
    header = ("labels", f"τ, {contents.unit}", "saving", "change, points", "no threshold")
    draws_of_each = contents.sizes[0].draws if contents.sizes else 0
    note = (
        f"For each number of labels, {draws_of_each} random draws from these problems; method:"
        f" {method_words(contents.evaluation.method)}. Shown are the mean and the range from the 5th to the 95th"
        " percentile. Each draw is tested on the problems that are not in it, and is compared there with the threshold"
        " that is fitted on all problems. A draw without a threshold counts as never stopping."
    )
    return Sheet("sizes", "How many labels are needed?", header, rows, note)


def sweep(contents: Contents) -> Sheet:
    """The gate at other thresholds."""
    rows = [
        (bits(row.threshold), percent(row.accuracy), _signed_points(row.change), percent(row.saving),
         percent(row.stopped), percent(row.harm), percent(row.rescue))
        for row in contents.sweep
    ]  # fmt: skip
    header = (f"τ, {contents.unit}", "accuracy", "change, points", "saving", "stopped", "harm", "rescue")
    return Sheet("sweep", "The gate at other thresholds", header, rows)


def histogram(contents: Contents) -> Sheet:
    """The signal of right and of wrong first answers."""
    rows = [
        (bits(entry.low), bits(entry.high), str(entry.right), str(entry.wrong))
        for entry in contents.histogram
        if entry.right or entry.wrong
    ]
    header = (f"from, {contents.unit}", "to", "right", "wrong")
    return Sheet("histogram", f"First answers by {contents.quantity}", header, rows)


def roc(contents: Contents) -> Sheet:
    """Eleven points of the ROC curve."""
    curve = contents.roc
    places = sorted({round(step * (len(curve) - 1) / 10) for step in range(11)}) if curve else []
    rows = [(percent(curve[at][0]), percent(curve[at][1])) for at in places]
    return Sheet("roc", "ROC curve", ("right answers above τ", "wrong answers above τ"), rows)


def reliability(contents: Contents) -> Sheet:
    """P(right | signal)."""
    rows = [
        (
            f"{bits(row.low)} to {bits(row.high)}",
            str(row.share.n),
            percent(row.share.value),
            percent_interval(row.share),
        )
        for row in contents.reliability
    ]
    header = (f"{contents.quantity}, {contents.unit}", "problems", "right", "95 % interval")
    return Sheet("reliability", f"Share of right first answers by {contents.quantity}", header, rows)


def provenance(contents: Contents) -> Sheet:
    """What is needed to make this report again."""
    evaluation, calibration = contents.evaluation, contents.calibration
    signal = ", ".join(f"{key} {value}" for key, value in evaluation.signal.to_json().items() if value is not None)
    rows = [
        ("command", contents.command),
        ("version", f"justenough {__version__}"),
        ("model", evaluation.model),
        ("task", evaluation.task or NOTHING),
        ("problems", f"{count(evaluation.problems)}, with at most {evaluation.steps} steps each"),
        ("shape", contents.settings.shape),
        ("signal", signal),
        ("seed", f"{evaluation.seed} (draws and resampling)"),
        ("data", f"sha256 {evaluation.data_fingerprint}"),
    ]
    if calibration is not None:
        examples = f"{calibration.n} examples, {calibration.n_right} right and {calibration.n_wrong} wrong"
        rows += [
            ("calibration", f"{method_words(calibration.method)} on {examples}; seed {calibration.seed}"),
            ("calibration data", f"sha256 {calibration.data_fingerprint}"),
            ("guarantee", calibration.guarantee or "none"),
        ]
    note = "The same command with the same data and version gives exactly the same file."
    return Sheet("provenance", "How this report was made", ("", ""), rows, note)


def all_sheets(contents: Contents) -> list[Sheet]:
    """All tables with rows, in the order of the page."""
    sheets = [
        key_figures(contents),
        thresholds(contents),
        sweep(contents),
        rules(contents),
        more_rules(contents),
        columns(contents),
        draws(contents),
        sizes(contents),
        histogram(contents),
        roc(contents),
        reliability(contents),
        budget_claim(contents),
        budget_curve(contents),
        *budget_shares(contents),
        families(contents),
        live(contents),
        recommended(contents),
        siblings(contents),
        missing(contents),
        provenance(contents),
    ]
    return [sheet for sheet in sheets if sheet is not None and sheet.rows]
