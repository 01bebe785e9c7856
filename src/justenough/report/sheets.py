"""The tables of the report. Every form shows the same tables, so all forms have the same numbers."""

from __future__ import annotations

from collections.abc import Callable

from justenough import __version__
from justenough.calibration.calibration import DECIDER
from justenough.evaluation.draws import Spread
from justenough.report.budgetsheets import budget_claim, budget_curve, budget_shares
from justenough.report.data import SCORE, Contents, Sheet
from justenough.report.demosheets import live, number_in, recommended, siblings
from justenough.report.rulesheets import columns, missing, more_rules, recorded_columns, rules
from justenough.report.templates import sentences
from justenough.report.thoughts import thoughts
from justenough.report.tokensheet import tokens
from justenough.report.words import (
    NO_THRESHOLD,
    bits,
    change,
    count,
    margin_words,
    method_words,
    outcome_words,
    percent_with_interval,
)
from justenough.stats.text import NOTHING, number, percent, signed, spread


def saving_words(contents: Contents) -> str:
    """The saving of the gate with its interval; a gate without a threshold has none."""
    gated = contents.evaluation.gated
    without = contents.settings.threshold is None and gated.stopped == 0
    return NO_THRESHOLD if without else percent_with_interval(gated.saving)


def key_figures(contents: Contents) -> Sheet:
    """The main figures of the gate."""
    evaluation, gated, evidence = contents.evaluation, contents.evaluation.gated, contents.evaluation.separation
    test, saving = gated.non_inferiority, saving_words(contents)
    rows = [
        ("tokens saved", saving),
        ("change in accuracy", change(gated.accuracy_change)),
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
        *recorded_columns(gated),
    ]
    return Sheet("figures", "Key figures", ("figure", "value"), rows, "Brackets hold 95 % intervals.")


def thresholds(contents: Contents) -> Sheet:
    """The threshold of each method."""
    evaluation = contents.evaluation
    units = {name: SCORE if name == DECIDER else evaluation.signal.unit for name in evaluation.thresholds}
    rows = [
        (
            method_words(name),
            NO_THRESHOLD if value is None else f"{bits(value)} {units[name]}",
            outcome_words(evaluation.threshold_outcomes.get(name, "ok")),
        )
        for name, value in evaluation.thresholds.items()
    ]
    fitted = contents.calibration
    examples = f"the {fitted.n} examples of the calibration" if fitted else "all of these problems"
    return Sheet("thresholds", "Thresholds", ("method", "τ", "outcome"), rows, f"Fitted on {examples}.")


def decider(contents: Contents) -> Sheet | None:
    """The features of the decider, the most important first."""
    if contents.calibration is None or (score := contents.calibration.decider) is None:
        return None
    rows = [(name, number(weight)) for name, weight in score.carrying()]
    note = f"The decider estimates the risk that a stop loses a right answer; it was fitted on {score.n} problems."
    return Sheet("decider", "Features of the decider", ("feature", "weight"), rows, note)


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
        rows.append((f"τ, {contents.evaluation.signal.unit}", *_three(bits, drawn.threshold)))
    note = sentences("draws", drawn, number_in(contents.demo, "draw_percentile"))
    header = ("", "mean", "5th percentile", "95th percentile")
    return Sheet("draws", "Effect of the choice of examples", header, rows, note)


def _three(words: Callable[[float], str], spread: Spread) -> tuple[str, str, str]:
    return words(spread.mean), words(spread.p5), words(spread.p95)


def _signed_points(value: float) -> str:
    return signed(100 * value)


def _with_range(words: Callable[[float], str], spread: Spread) -> str:
    mean, low, high = _three(words, spread)
    return f"{mean} [{low} to {high}]"


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
    note = sentences("sizes", contents.sizes, contents.evaluation.method)
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
        (f"{bits(row.low)} to {bits(row.high)}", str(row.share.n), percent_with_interval(row.share))
        for row in contents.reliability
    ]
    quantity = f"{contents.quantity}, {contents.unit}" if contents.unit != contents.quantity else contents.quantity
    header = (quantity, "problems", "right")
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
    gate = [key_figures(contents), thresholds(contents), decider(contents), sweep(contents)]
    of_rules = [rules(contents), more_rules(contents), columns(contents)]
    signal = [draws(contents), sizes(contents), histogram(contents), roc(contents), reliability(contents)]
    budget = [] if (one := contents.budget) is None else [budget_claim(one), budget_curve(one), *budget_shares(one)]
    rest = [
        families(contents),
        tokens(contents),
        thoughts(contents),
        live(contents),
        recommended(contents),
        siblings(contents),
        missing(contents),
    ]
    sheets = [*gate, *of_rules, *signal, *budget, *rest, provenance(contents)]
    return [sheet for sheet in sheets if sheet is not None and sheet.rows]
