"""`justenough budget`."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.terminal import print_json, say
from justenough.stats.text import percent, points, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from justenough.trace import Json, Trace

EPILOG = """\
With --fit: plans who gets further steps from the first step of each problem in TRACES alone. Without: replays policies
on traces with all steps recorded, at one total; estimates are fitted on other folds.

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
    parser.add_argument(
        "--fit", type=Path, metavar="LABELLED", help="labelled traces of other problems, from which gains are expected"
    )
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
    if options.fit is not None:
        return _plan(options, traces, math.floor(given))
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


def _plan(options: argparse.Namespace, traces: Sequence[Trace], total: int) -> int:
    """Who gets how many steps, from step 1 of each alone; what is expected of it under each policy."""
    import numpy as np

    from justenough.budget import POLICIES, Expectation, allocate
    from justenough.report.budget import fifths, sorted_groups
    from justenough.trace.files import read_traces

    known = Expectation.fit(read_traces(options.fit).traces)
    for trace in traces:
        known.check(model=trace.model, signal=trace.signal, ids=[trace.hashed_id])
    found = [trace.steps[0].usable_bits(trace.signal) for trace in traces]
    # Where there is no signal the safe direction is to think on.
    least_sure = max((bits for bits in found if bits is not None), default=0.0)
    bits = np.array([least_sure if value is None else value for value in found])
    first = [float(trace.tokens_to(1)) for trace in traces] if options.unit == "tokens" else None
    names = list(dict.fromkeys([*(name for name in POLICIES if name != "oracle"), options.policy]))
    plans = {
        name: allocate(
            bits, total=total, policy=name, expectation=known, spent=first, unit=options.unit, seed=options.seed
        )
        for name in names
    }
    chosen = plans[options.policy]
    histograms = {name: np.bincount(plan.steps, minlength=known.max_steps + 1).tolist() for name, plan in plans.items()}
    if options.json:
        policies: dict[str, Json] = {
            name: {
                "expected_right": plan.expected_right,
                "expected_spend": plan.expected_spend,
                "steps_histogram": histograms[name],
            }
            for name, plan in plans.items()
        }
        print_json(
            {
                **chosen.to_json(),
                "problems": len(traces),
                "steps": {trace.id: steps for trace, steps in zip(traces, chosen.steps, strict=True)},
                "policies": policies,
            }
        )
        return 0
    for warning in chosen.warnings:
        say(f"warning: {warning}")
    say(f"{len(traces)} problems, {total:,} {options.unit} in all, step 1 included; expected, not measured:")
    body = [
        [
            f"{name} *" if name == options.policy else name,
            percent(plan.expected_right),
            f"{plan.expected_spend:,.0f}",
            " / ".join(str(count) for count in histograms[name][1:]),
        ]
        for name, plan in plans.items()
    ]
    say(table(["policy", "expected right", f"expected {options.unit}", "problems with 1/2/… steps"], body))
    groups = fifths(np.array([math.nan if value is None else value for value in found]))
    steps = np.array(chosen.steps)
    shares = [
        [name, str(int(mine.sum())), f"{steps[mine].mean():.2f}"]
        for name in sorted_groups(sorted(set(groups)))
        for mine in [np.array([group == name for group in groups])]
    ]
    say("\n" + table([f"{traces[0].signal.unit} of step 1", "problems", f"steps each, {options.policy}"], shares))
    return 0
