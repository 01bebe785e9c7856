"""`justenough budget`."""

from __future__ import annotations

import argparse
import math

from justenough.cli import arguments
from justenough.cli.terminal import percent, points, print_json, say, table

EPILOG = """\
Replays policies on traces with all steps recorded, at one total; estimates are fitted on other folds:

  uniform               everyone the same number of steps
  first-come            all steps for whoever comes first
  entropy-proportional  shares that rise with the entropy of step 1
  greedy                largest expected gain per token
  knapsack              offline optimum of the same estimates
  oracle                knows which steps are right: the bound
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    arguments.add_traces(parser)
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--total", metavar="TOKENS", help="tokens, or calls, for all problems together")
    amount.add_argument("--per-problem", metavar="X", help="tokens, or calls, a problem, pooled")
    arguments.add_unit(parser)
    parser.add_argument("--policy", default="greedy", metavar="NAME", help="the policy planned for (default greedy)")
    parser.add_argument("--seed", type=int, default=0, help="of random order and resampling (default 0)")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Plan and show."""
    from justenough.budget import POLICIES, policy_named, sweep

    traces = arguments.load_traces(options)
    policy_named(options.policy)
    given = (
        arguments.budget_of(options.total)
        if options.total is not None
        else arguments.budget_of(options.per_problem) * len(traces)
    )
    names = list(dict.fromkeys([*POLICIES, options.policy]))
    made = sweep(traces, policies=names, totals=[math.floor(given)], unit=options.unit, seed=options.seed)
    rows = {row.policy: row for row in made.rows}
    chosen = rows[options.policy]
    if options.json:
        print_json(
            {
                "policy": options.policy,
                "unit": made.unit,
                "total": chosen.total,
                "problems": made.problems,
                "accuracy": chosen.accuracy,
                "spent": chosen.spent,
                "steps_histogram": list(chosen.steps_histogram),
                "against_uniform": chosen.to_json()["against_uniform"],
                "policies": {name: row.to_json() for name, row in rows.items()},
                "warnings": list(made.warnings),
            }
        )
        return 0
    for warning in made.warnings:
        say(f"warning: {warning}")
    say(f"{made.problems} problems, {chosen.total:,} {made.unit} in all")
    body = [
        [
            f"{name} *" if name == options.policy else name,
            percent(row.accuracy),
            "–" if name == "uniform" else points(row.against_uniform),
            f"{row.spent:,.0f}",
            " / ".join(f"{count:.0f}" for count in row.steps_histogram),
        ]
        for name, row in rows.items()
    ]
    say(
        table(
            ["policy", "accuracy", "against uniform (points)", f"{made.unit} spent", "problems with 0/1/2/… steps"],
            body,
        )
    )
    return 0
