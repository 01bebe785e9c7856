"""The tables of the report. Every form shows the same tables, so all forms have the same numbers."""

from __future__ import annotations

from collections.abc import Callable

from justenough import __version__
from justenough.evaluation.draws import Spread
from justenough.report.budgetsheets import budget_claim, budget_curve, budget_shares
from justenough.report.data import Contents
from justenough.report.demosheets import live, number_in, recommended, siblings
from justenough.report.rulesheets import columns, missing, money_and_time, more_rules, rules
from justenough.report.tables import Sheet
from justenough.report.words import (
    NO_THRESHOLD,
    NOTHING,
    accuracy_change,
    bits,
    count,
    margin_words,
    method_words,
    outcome_words,
    percent,
    percent_interval,
    percent_with_interval,
    points,
    points_interval,
    signed,
    with_interval,
)
from justenough.stats.text import spread


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
        ("tokens saved", saving if saving == NO_THRESHOLD else percent_with_interval(gated.saving)),
        ("change in accuracy", with_interval(points(change.value), points_interval(change))),
        (f"verdict at a margin of {margin_words(evaluation.margin)}", NOTHING if test is None else test.verdict),
        ("accuracy of the gate", percent(gated.accuracy)),
        ("accuracy of step 1", percent(evaluation.accuracy_first)),
        (f"accuracy of all {evaluation.steps} steps", percent(evaluation.accuracy_full)),
        ("problems stopped early", percent(gated.stopped)),
        ("harm: stopped at a wrong answer, last answer right", percent_with_interval(gated.harm)),
        ("rescue: stopped at a right answer, last answer wrong", percent_with_interval(gated.rescue)),
        ("tokens of the gate", count(gated.tokens)),
        ("tokens of step 1 alone", count(evaluation.tokens_first)),
        ("tokens of the last step alone", count(evaluation.tokens_last)),
        ("tokens of all steps", count(evaluation.tokens_full)),
        ("saving compared with step 1 alone", percent(gated.saving_vs_first)),
        ("saving compared with the last step alone", percent(gated.saving_vs_last)),
        ("saving of the oracle", percent(evaluation.oracle_saving)),
        ("share of the oracle's saving", percent(gated.oracle_share)),
        ("does the signal separate right from wrong?", evidence.sentence),
        ("Cohen's d", spread(evidence.cohens_d)),
        ("AUROC", spread(evidence.auroc, digits=3)),
        ("AUROC within groups", spread(evidence.within_groups, digits=3)),
        ("problems without an answer", count(evaluation.unanswered)),
        *money_and_time(gated),
    ]
    return Sheet("figures", "Key figures", ("figure", "value"), rows, "Brackets hold 95 % intervals.")


def thresholds(contents: Contents) -> Sheet:
    """The threshold of each method."""
    evaluation = contents.evaluation
    rows = [
        (method_words(name), f"{bits(value)} {contents.unit}" if value is not None else NO_THRESHOLD,
         outcome_words(evaluation.threshold_outcomes.get(name, "ok")))
        for name, value in evaluation.thresholds.items()
    ]  # fmt: skip
    fitted = contents.calibration
    examples = f"the {fitted.n} examples of the calibration" if fitted else "all of these problems"
    return Sheet("thresholds", "Thresholds", ("method", "τ", "outcome"), rows, f"Fitted on {examples}.")


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
    drawn = contents.evaluation.draws
    rows = [
        ("saving", *_three(percent, drawn.saving)),
        ("change, points", *_three(_signed_points, drawn.accuracy_change)),
    ]
    if drawn.threshold is not None:
        rows.append((f"τ, {contents.unit}", *_three(bits, drawn.threshold)))
    note = (
        f"{drawn.draws} random draws of {drawn.n} examples; method: {method_words(drawn.method)}."
        f" {percent(drawn.refused)} of the draws gave no threshold or were refused; they count as never stopping."
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
    note = (
        f"For each number of labels, {contents.sizes[0].draws if contents.sizes else 0}"
        f" random draws from these problems ({method_words(contents.evaluation.method)}). Shown are the mean and the"
        " range from the 5th to the 95th percentile. Each draw is tested on the problems"
        " that are not in it, and is compared there with the threshold"
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
    gate = [key_figures(contents), thresholds(contents), sweep(contents)]
    of_rules = [rules(contents), more_rules(contents), columns(contents)]
    signal = [draws(contents), sizes(contents), histogram(contents), roc(contents), reliability(contents)]
    budget = [budget_claim(contents), budget_curve(contents), *budget_shares(contents)]
    rest = [families(contents), live(contents), recommended(contents), siblings(contents), missing(contents)]
    sheets = [*gate, *of_rules, *signal, *budget, *rest, provenance(contents)]
    return [sheet for sheet in sheets if sheet is not None and sheet.rows]
