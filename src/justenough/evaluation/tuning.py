"""Fair tuning: the settings of published rules are chosen on the very labels that the gate gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from justenough.errors import NotEnoughExamples
from justenough.evaluation.draws import Averaged, drawn_from
from justenough.evaluation.figures import Ints, Outcomes, outcomes
from justenough.evaluation.table import Table
from justenough.rules.fitted import FITTED
from justenough.rules.looks import Bools, FirstPassage, Looks, passage, require
from justenough.rules.quantities import Quantity
from justenough.rules.rivals import GRIDS, not_applicable

TUNED: Final = ":tuned"
"""Ends the name of a rule whose settings were chosen on labels."""
FEWER: Final = 20
"""Most draws of a rule that is fitted anew in each of them."""


class Labelled(NamedTuple):
    """Problems with what rules see of them, in the same order."""

    table: Table
    looks: Looks


def reads_of(head: str) -> tuple[Quantity, ...]:
    """What a tuned rule needs."""
    return FITTED[head].reads if head in FITTED else GRIDS[head][0].reads


def reads_in(selection: str) -> dict[Quantity, None]:
    """What the published rules of a selection need."""
    names = {name.strip().removesuffix(TUNED).partition(":")[0] for name in selection.split(",")}
    heads = [head for head in (*GRIDS, *FITTED) if selection == "all" or head in names]
    return dict.fromkeys(read for head in heads for read in reads_of(head))


def tuned(
    head: str, decided: Labelled, labels: Labelled | None, *, n: int, draws: int, seed: int, margin: float
) -> Outcomes | str:
    """The mean outcomes of a rule over draws of `n` labelled problems, or why it cannot stop any problem.

    In each draw the setting is chosen that takes the fewest tokens of the labelled problems while it loses at most
    `margin` of their answers, right ones won being subtracted. If none does, or none saves tokens, nothing stops.
    Without `labels` the labelled problems are those that a threshold would be fitted on (see `calibration_draws`).
    Raises `MissingField`.
    """
    table, source = decided.table, labels or decided
    grid = [rule for rule in GRIDS.get(head, ()) if not_applicable(rule, table.steps) is None]
    if head in GRIDS and not grid:
        return not_applicable(min(GRIDS[head], key=lambda rule: rule.earliest), table.steps) or ""
    if head in FITTED:
        require(FITTED[head], source.looks, source.looks.before_last)
    fit = FITTED[head].fitted if head in FITTED else None
    usable = np.flatnonzero(np.isfinite(source.table.bits[:, 0]))
    usable = usable if len(usable) else np.arange(len(source.table))
    size = min(n, len(usable) if labels is not None else len(usable) // 2)
    if size < 1:
        return "more labelled problems"
    drawn = drawn_from(usable, n=size, draws=min(draws, FEWER) if fit is not None else draws, seed=seed)
    if fit is None:
        chosen = _chosen(grid, source.table.correct, source.looks, drawn, margin)
    else:
        chosen = [_fitted(fit, source.table.correct[row], source.looks.rows(row), margin) for row in drawn]
    # Equal settings have equal outcomes.
    groups: dict[FirstPassage | None, list[int]] = {}
    for number, (rule, _) in enumerate(chosen):
        groups.setdefault(rule, []).append(number)
    mean = Averaged(table, drawn, cross=labels is None)
    for rule, numbers in groups.items():
        if rule is None:
            mean.add(outcomes(table, np.full(len(table), table.steps - 1)), numbers)
        else:
            stops, tokens = passage(rule, decided.looks)
            mean.add(outcomes(table, stops, tokens.astype(np.float64)), numbers)
    return mean.result(head, [(None, reason) for _, reason in chosen])[1]


_Chosen = tuple[FirstPassage | None, str]
"""The rule that labels choose, if any, and the outcome's name."""


def _chosen(rules: Sequence[FirstPassage], right: Bools, looks: Looks, drawn: Ints, margin: float) -> list[_Chosen]:
    """The rule that each draw (draws, n) of labelled problems chooses."""
    least, best = np.full(len(drawn), np.inf), np.zeros(len(drawn), dtype=np.int64)
    for place, rule in enumerate(rules):
        stops, tokens = (row[drawn] for row in passage(rule, looks))
        lost = right[drawn, -1].sum(axis=1) - right[drawn, stops].sum(axis=1)
        better = (lost <= margin * drawn.shape[1]) & ((cost := tokens.sum(axis=1)) < least)
        least[better], best[better] = cost[better], place
    # A rule that probes may cost more than it saves.
    saves = least < looks.spent[drawn, looks.lengths[drawn] - 1].sum(axis=1)
    nothing: _Chosen = (None, "saves_nothing")
    return [(rules[one], "ok") if saved else nothing for one, saved in zip(best.tolist(), saves.tolist(), strict=True)]


def _fitted(
    fit: Callable[[Looks, Bools], Sequence[FirstPassage]], right: Bools, looks: Looks, margin: float
) -> _Chosen:
    """The rule that is fitted on all of these labelled problems, and chosen by them."""
    try:
        rules = fit(looks, right)
    except NotEnoughExamples:
        return None, "not_enough_labels"
    return _chosen(rules, right, looks, np.arange(len(right))[None], margin)[0]
