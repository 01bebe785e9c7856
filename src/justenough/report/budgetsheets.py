"""The budget's tables, in every form of the report."""

from __future__ import annotations

from justenough.budget import POLICIES, STOPPING, Row
from justenough.report.budget import Budget, sorted_groups
from justenough.report.data import Contents
from justenough.report.tables import Sheet
from justenough.report.words import (
    NOTHING,
    count,
    number,
    percent,
    points_interval,
    signed,
    with_interval,
)
from justenough.stats import Estimate
from justenough.trace import Json


def _change(estimate: Estimate) -> str:
    return with_interval(signed(100 * estimate.value), points_interval(estimate))


def budget_claim(found: Contents) -> Sheet | None:
    """Each policy against uniform, over all totals between the ends."""
    made = found.budget
    if made is None:
        return None
    rows = [
        (
            name,
            _change(estimate),
            made.sweep.verdict(name),
            _change(made.sweep.equal_spend[name]),
            made.sweep.verdict(name, equal_spend=True),
            POLICIES[name]().needs,
        )
        for name, estimate in made.sweep.overall.items()
        if name != "uniform"
    ]
    header = (
        "policy",
        "against uniform at the same total, points",
        "verdict",
        "at the tokens really spent",
        "verdict there",
        "needs beforehand",
    )
    return Sheet("claim", "Does reallocating beat uniform?", header, rows, note(made))


def note(made: Budget) -> str:
    """How it was measured."""
    sampled = (
        f" on a sample of {count(made.sweep.problems)} of {count(made.of)} problems"
        if made.of > made.sweep.problems
        else ""
    )
    gate = "the calibration’s gate" if made.calibrated else "the entropy mean of the other folds"
    return (
        f"Replayed{sampled} under a ledger at tokens really spent; what a step is expected to bring was fitted on other"
        " folds. Changes are paired with uniform at the same total, with 95 % intervals, and averaged over the totals"
        " between one step each and all steps each. In the chart these intervals are bars, from uniform’s accuracy on:"
        " one that misses uniform’s mark excludes 0. A policy may leave tokens unspent, so it is compared too with"
        f" uniform given only what it spent. Early stopping ({gate}) keeps what it saves and stands at its own total"
        " only."
    )


def budget_curve(found: Contents) -> Sheet | None:
    """Every policy at every total."""
    made = found.budget
    if made is None:
        return None
    rows = [
        (
            count(row.total),
            row.policy,
            percent(row.accuracy),
            NOTHING if row.policy == "uniform" else _change(row.against_uniform),
            count(row.spent),
            number(row.calls / made.sweep.problems),
        )
        for row in made.sweep.rows
    ]
    header = ("tokens in all", "policy", "right", "against uniform, points", "tokens spent", "steps a problem")
    return Sheet("curve", "Accuracy against total tokens", header, rows)


def budget_shares(found: Contents) -> list[Sheet]:
    """Who got how many steps at one total, one table for each grouping."""
    made = found.budget
    if made is None:
        return []
    rows = {row.policy: row for row in made.sweep.rows if row.total == made.shown}
    sheets = []
    for at, grouping in enumerate(made.groupings):
        any_row = next(iter(rows.values()))
        body = [
            (
                name,
                count(any_row.groups[grouping][name].problems),
                *(number(_steps(row, grouping, name)) for row in rows.values()),
            )
            for name in sorted_groups(list(any_row.groups[grouping]))
        ]
        sheets.append(
            Sheet(
                f"shares-{at + 1}",
                f"Who got how many steps, by {grouping}",
                (grouping, "problems", *rows),
                body,
                f"Steps a problem at {count(made.shown)} tokens in all.",
            )
        )
    return sheets


def _steps(row: Row, grouping: str, name: str) -> float:
    return row.groups[grouping][name].steps


def budget_json(found: Contents) -> Json:
    """All rows, with the groups."""
    made = found.budget
    return None if made is None else made.sweep.to_json() | {"problems_in_all": made.of, "shown_total": made.shown}


def budget_payload(found: Contents) -> Json:
    """What the page draws."""
    made = found.budget
    if made is None:
        return None
    names = list(dict.fromkeys(row.policy for row in made.sweep.rows))
    return {
        "policies": list(names),
        "totals": list(made.sweep.totals),
        "shown": made.sweep.totals.index(made.shown),
        "problems": made.sweep.problems,
        "rows": [
            [
                _row(row, made.groupings) if row is not None else None
                for name in names
                for row in [made.sweep.at(name, total)]
            ]
            for total in made.sweep.totals
        ],
        "groupings": [
            {"name": grouping, "groups": list(sorted_groups(list(made.sweep.rows[0].groups[grouping])))}
            for grouping in made.groupings
        ],
        "stopping": names.index(STOPPING) if STOPPING in names else None,
    }


def _row(row: Row, groupings: tuple[str, ...]) -> dict[str, Json]:
    change = row.against_uniform
    return {
        "accuracy": row.accuracy,
        "change": [change.value, change.low, change.high],
        "spent": row.spent,
        "groups": [
            [
                [share.problems, share.steps, share.cost, share.accuracy]
                for name in sorted_groups(list(row.groups[grouping]))
                for share in [row.groups[grouping][name]]
            ]
            for grouping in groupings
        ],
    }
