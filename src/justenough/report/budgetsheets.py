"""The tables of the budget."""

from __future__ import annotations

from justenough.budget import POLICIES, STOPPING, Row
from justenough.report.budget import Budget, sorted_groups
from justenough.report.data import Sheet
from justenough.report.templates import sentences
from justenough.report.words import count
from justenough.stats.text import NOTHING, number, percent, points
from justenough.trace import Json


def budget_claim(budget: Budget) -> Sheet:
    """Each policy compared with the uniform one, as a mean over the totals."""
    rows = [
        (
            name,
            points(estimate),
            budget.sweep.verdict(name),
            points(budget.sweep.equal_spend[name]),
            budget.sweep.verdict(name, equal_spend=True),
            POLICIES[name]().needs,
        )
        for name, estimate in budget.sweep.overall.items()
        if name != "uniform"
    ]
    header = (
        "policy",
        "change against uniform at the same total, points",
        "result",
        "change at the tokens really spent, points",
        "result there",
        "needed before the run",
    )
    return Sheet("claim", "Is any policy better than the uniform one?", header, rows, sentences("budget", budget))


def budget_curve(budget: Budget) -> Sheet:
    """Each policy at each total."""
    rows = [
        (
            count(row.total),
            row.policy,
            percent(row.accuracy),
            NOTHING if row.policy == "uniform" else points(row.against_uniform),
            count(row.spent),
            number(row.calls / budget.sweep.problems),
        )
        for row in budget.sweep.rows
    ]
    header = ("total tokens", "policy", "right", "change against uniform, points", "tokens spent", "steps per problem")
    return Sheet("curve", "Accuracy against total tokens", header, rows)


def budget_shares(budget: Budget) -> list[Sheet]:
    """Steps of each group at one total, one table for each grouping."""
    rows = {row.policy: row for row in budget.sweep.rows if row.total == budget.shown}
    sheets = []
    for at, grouping in enumerate(budget.groupings):
        any_row = next(iter(rows.values()))
        body = [
            (
                name,
                count(any_row.groups[grouping][name].problems),
                *(number(row.groups[grouping][name].steps) for row in rows.values()),
            )
            for name in sorted_groups(list(any_row.groups[grouping]))
        ]
        sheets.append(
            Sheet(
                f"shares-{at + 1}",
                f"Steps for each group, by {grouping}",
                (grouping, "problems", *rows),
                body,
                f"Mean steps per problem at a total of {count(budget.shown)} tokens.",
            )
        )
    return sheets


def budget_json(budget: Budget) -> dict[str, Json]:
    """All rows with their groups."""
    return budget.sweep.to_json() | {"problems_in_all": budget.problems_in_all, "shown_total": budget.shown}


def budget_payload(budget: Budget) -> dict[str, Json]:
    """The data of the budget chart."""
    names = list(dict.fromkeys(row.policy for row in budget.sweep.rows))
    return {
        "policies": list[Json](names),
        "totals": list(budget.sweep.totals),
        "shown": budget.sweep.totals.index(budget.shown),
        "problems": budget.sweep.problems,
        "rows": [
            [_row(row, budget.groupings) if (row := budget.sweep.at(name, total)) else None for name in names]
            for total in budget.sweep.totals
        ],
        "groupings": [
            {"name": grouping, "groups": list(sorted_groups(list(budget.sweep.rows[0].groups[grouping])))}
            for grouping in budget.groupings
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
