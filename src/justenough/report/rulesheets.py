"""The tables of the rules: their figures, what the columns mean, and the rules that were not replayed."""

from __future__ import annotations

from typing import Final

from justenough.evaluation import Evaluation
from justenough.evaluation.figures import Figures
from justenough.report.data import Contents, Sheet
from justenough.report.templates import meaning
from justenough.report.words import (
    NO_THRESHOLD,
    count,
    margin_words,
    percent_with_interval,
)
from justenough.stats.text import NOTHING, percent, points

RULES: Final = ("rule", "accuracy", "change, points", "saving", "tokens", "stopped", "harm", "rescue", "verdict")
MORE: Final = ("rule", "saving vs step 1", "saving vs last step", "share of oracle", "unanswered", "McNemar p")
MONEY: Final = ("cost", "money saved", "money vs last step")
"""Columns of a report with prices."""
TIME: Final = ("time saved",)
"""Column of a report with recorded seconds."""
LAYERS: Final = ("layers saved",)
"""Column of a report on a model whose tokens may leave the network early."""


GATES: Final = ("entropy-", "decider", "recommended")
"""Beginnings of the names of rules that are gates of this library."""


def rule_row(name: str, figures: Figures) -> tuple[str, ...]:
    """The main figures of a rule, in the columns `RULES`."""
    return (
        name,
        percent(figures.accuracy),
        points(figures.accuracy_change),
        percent_with_interval(figures.saving),
        count(figures.tokens),
        percent(figures.stopped),
        percent_with_interval(figures.harm),
        percent_with_interval(figures.rescue),
        NOTHING if figures.non_inferiority is None else figures.non_inferiority.verdict,
    )


def more_row(name: str, figures: Figures) -> tuple[str, ...]:
    """The other figures of a rule: `MORE`, then those of `MONEY`, `TIME` and `LAYERS` that are recorded."""
    return (
        name,
        percent(figures.saving_vs_first),
        percent(figures.saving_vs_last),
        percent(figures.oracle_share),
        percent(figures.unanswered),
        NOTHING if figures.mcnemar_p is None else f"{figures.mcnemar_p:.2g}",
        *(value for _, value in recorded_columns(figures)),
    )


def recorded_columns(figures: Figures) -> list[tuple[str, str]]:
    """The columns of `MONEY`, `TIME` and `LAYERS` that are recorded, each with its value."""
    rows: list[tuple[str, str]] = []
    if figures.cost is not None:
        values = percent_with_interval(figures.cost_saving), percent(figures.cost_saving_vs_last)
        rows += zip(MONEY, (f"{figures.cost:.6g}", *values), strict=True)
    shares = zip((*TIME, *LAYERS), (figures.latency_saving, figures.layers_saving), strict=True)
    return rows + [(name, percent(share)) for name, share in shares if share is not None]


def lacks_threshold(evaluation: Evaluation, rule: str) -> bool:
    """Whether the rule is a gate whose method gives no threshold."""
    method = rule.removeprefix("entropy-")
    thresholds, rules = evaluation.thresholds, evaluation.rules
    return rule != method and thresholds.get(method, 0.0) is None and rules[rule].stopped == 0


def rules(contents: Contents) -> Sheet:
    """The main figures of all rules."""
    evaluation = contents.evaluation
    note = (
        f"Each rule is compared with running all {evaluation.steps} steps. Changes are in points of accuracy; brackets"
        f" hold 95 % intervals. The verdict uses a margin of {margin_words(evaluation.margin)}."
    )
    rows = [
        (name, NOTHING, NOTHING, NO_THRESHOLD, *[NOTHING] * (len(RULES) - 4))
        if lacks_threshold(evaluation, name)
        else rule_row(name, figures)
        for name, figures in evaluation.rules.items()
    ]
    return Sheet("rules", "All rules on the same problems", RULES, rows, note)


def more_rules(contents: Contents) -> Sheet:
    """The other figures of all rules that have a threshold or need none."""
    rows = [
        more_row(name, figures)
        for name, figures in contents.evaluation.rules.items()
        if not lacks_threshold(contents.evaluation, name)
    ]
    header = (*MORE, *(name for name, _ in recorded_columns(contents.evaluation.gated)))
    return Sheet("further", "All rules: further figures", header, rows)


def columns(contents: Contents) -> Sheet:
    """What the columns of the tables of rules mean."""
    heads = dict.fromkeys((*RULES, *more_rules(contents).header))
    rows = [(head, text) for head in heads if (text := meaning(head)) is not None]
    return Sheet("columns", "What the columns mean", ("column", "meaning"), rows)


def missing(contents: Contents) -> Sheet:
    """Rules that cannot be replayed on these traces."""
    rows = list(contents.evaluation.missing.items())
    return Sheet("missing", "Rules that were not replayed", ("rule", "what it needs"), rows)
