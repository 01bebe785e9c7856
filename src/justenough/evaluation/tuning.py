"""Fair tuning: the settings of published rules are chosen on the very labels that the gate gets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, NamedTuple

import numpy as np

from justenough.errors import NotEnoughExamples
from justenough.evaluation.draws import averaged
from justenough.evaluation.figures import Ints, Outcomes, outcomes
from justenough.evaluation.table import Table
from justenough.rules.fitted import FITTED
from justenough.rules.looks import Bools, FirstPassage, Looks, Quantity, passage, require
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
    done = {rule: passage(rule, source.looks) for rule in grid}

    def outcomes_of(rule: FirstPassage | None) -> Outcomes:
        if rule is None:
            return outcomes(table, np.full(len(table), table.steps - 1))
        stops, tokens = done[rule] if labels is None and rule in done else passage(rule, decided.looks)
        return outcomes(table, stops, tokens.astype(np.float64))

    # A fitted rule is another one in each draw.
    recalled = cache(outcomes_of) if fit is None else outcomes_of

    def decide(drawn: Ints) -> tuple[Outcomes, None, str]:
        chosen, reason = _chosen(source, drawn, done, fit, margin)
        return recalled(chosen), None, reason

    usable = np.flatnonzero(np.isfinite(source.table.bits[:, 0]))
    usable = usable if len(usable) else np.arange(len(source.table))
    size = min(n, len(usable) if labels is not None else len(usable) // 2)
    if size < 1:
        return "more labelled problems"
    draws = min(draws, FEWER) if head in FITTED else draws
    cross = labels is None
    spread = averaged(
        table, head, decide, usable=usable, n=size, draws=draws, seed=seed, cross=cross, shared=fit is None
    )
    return spread[1]


def _chosen(
    source: Labelled,
    drawn: Ints,
    done: dict[FirstPassage, tuple[Ints, Ints]],
    fit: Callable[[Looks, Bools], Sequence[FirstPassage]] | None,
    margin: float,
) -> tuple[FirstPassage | None, str]:
    """The rule that labels choose, if any, and the outcome's name."""
    right, part = source.table.correct[drawn], source.looks.rows(drawn)
    try:
        candidates = list(done) if fit is None else fit(part, right)
    except NotEnoughExamples:
        return None, "not_enough_labels"
    options: list[tuple[float, FirstPassage]] = []
    for rule in candidates:
        stops, tokens = (row[drawn] for row in done[rule]) if rule in done else passage(rule, part)
        if int(right[:, -1].sum()) - int(right[np.arange(len(drawn)), stops].sum()) <= margin * len(drawn):
            options.append((float(tokens.sum()), rule))
    least, best = min(options, key=lambda option: option[0], default=(math.inf, None))
    # A rule that probes may cost more than it saves.
    saves = least < part.spent[np.arange(len(drawn)), part.lengths - 1].sum()
    return (best, "ok") if saves else (None, "saves_nothing")
