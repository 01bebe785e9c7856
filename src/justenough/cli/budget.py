"""`justenough budget`.

With --fit, the command plans which problems get further steps; it needs only the first step of each problem. Without
--fit, it replays the policies on traces with all steps at the same total cost. The gain of a step is then estimated on
other folds of the traces.

  uniform               the same number of steps for every problem
  first-come            all steps for the first problems, until the budget is spent
  entropy-proportional  more steps for a higher entropy of step 1
  greedy                the largest expected gain per token first
  clear                 greedy, but a step that gains too little leaves its tokens unspent
  knapsack              the best plan for the same expected gains
  oracle                knows which steps are right; an upper bound
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from justenough.cli import arguments
from justenough.cli.paths import input_file
from justenough.cli.terminal import print_json, say, show
from justenough.stats.text import counted, percent, points, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from justenough.trace import Json, Trace
    from justenough.trace.files import TraceFile


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_traces(parser)
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--total", metavar="TOKENS", help="tokens, or calls, of all problems together")
    amount.add_argument("--per-problem", metavar="X", help="tokens, or calls, per problem; all problems share the sum")
    arguments.add_unit(parser)
    option = arguments.add_option
    option(parser, "--policy", default="greedy", metavar="NAME", help="the policy, see below")
    fit = "labelled traces of other problems, to estimate the gain of a step"
    option(parser, "--fit", type=input_file, metavar="LABELLED", help=fit)
    arguments.add_seed(parser, help="seed of random order and resampling")
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Plan, or compare policies, and show the result."""
    from justenough.budget import POLICIES, policy_named, sweep
    from justenough.budget.simulation import Recorded

    traces = arguments.open_traces(options)
    policy_named(options.policy)
    if options.fit is not None:
        return _plan(options, traces)
    recorded = Recorded.of(traces)
    arguments.say_skipped(traces)
    total = _total(options, len(recorded.ids))
    names = list(dict.fromkeys([*POLICIES, options.policy]))
    comparison = sweep(recorded, policies=names, totals=[total], unit=options.unit, seed=options.seed)
    rows = {row.policy: row for row in comparison.rows}
    chosen = rows[options.policy]
    if options.json:
        print_json(
            {
                "policy": options.policy,
                "unit": comparison.unit,
                "total": chosen.total,
                "problems": comparison.problems,
                "accuracy": chosen.accuracy,
                "spent": chosen.spent,
                "steps_histogram": list(chosen.steps_histogram),
                "against_uniform": chosen.to_json()["against_uniform"],
                "policies": {name: row.to_json() for name, row in rows.items()},
                "warnings": list(comparison.warnings),
            }
        )
        return 0
    for warning in comparison.warnings:
        say(f"warning: {warning}")
    show(f"{counted(comparison.problems, 'problem')}, {chosen.total:,} {comparison.unit} in total")
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
    spent = f"{comparison.unit} spent"
    show(table(["policy", "accuracy", "against uniform (points)", spent, "problems with 0/1/2/… steps"], body))
    return 0


def _total(options: argparse.Namespace, problems: int) -> int:
    """The budget of all problems together."""
    if options.total is not None:
        return math.floor(arguments.budget_of(options.total))
    return math.floor(arguments.budget_of(options.per_problem) * problems)


def _plan(options: argparse.Namespace, traces: TraceFile) -> int:
    """Plan the steps of each problem from its first step, and show what each policy is expected to reach."""
    import numpy as np

    from justenough.budget import POLICIES, Expectation, allocate
    from justenough.report.budget import fifths, sorted_groups
    from justenough.trace.building import columns_of
    from justenough.trace.files import TraceFile

    expectation = Expectation.fit(TraceFile(options.fit))

    def checked() -> Iterator[Trace]:
        for trace in traces:
            expectation.check(model=trace.model, signal=trace.signal, ids=[trace.hashed_id])
            yield trace

    columns = columns_of(checked(), measure="first")
    arguments.say_skipped(traces)
    total = _total(options, len(columns))
    measured = columns.bits[columns.first]
    # A problem without a signal counts as the least sure one: the safe direction is to keep reasoning.
    highest = max(measured[np.isfinite(measured)].tolist(), default=0.0)
    bits = np.where(np.isfinite(measured), measured, highest)
    first = columns.spent()[:, 0].astype(np.float64).tolist() if options.unit == "tokens" else None
    names = list(dict.fromkeys([*(name for name in POLICIES if name != "oracle"), options.policy]))
    plans = {
        name: allocate(
            bits, total=total, policy=name, expectation=expectation, spent=first, unit=options.unit, seed=options.seed
        )
        for name in names
    }
    chosen = plans[options.policy]
    histograms = {
        name: np.bincount(plan.steps, minlength=expectation.max_steps + 1).tolist() for name, plan in plans.items()
    }
    if options.json:
        policies: dict[str, Json] = {
            name: {
                "expected_right": plan.expected_right,
                "expected_spend": plan.expected_spend,
                "steps_histogram": histograms[name],
            }
            for name, plan in plans.items()
        }
        steps: dict[str, Json] = dict(zip(columns.ids.tolist(), chosen.steps, strict=True))
        print_json(chosen.to_json() | {"problems": len(columns), "steps": steps, "policies": policies})
        return 0
    for warning in chosen.warnings:
        say(f"warning: {warning}")
    problems = counted(len(columns), "problem")
    show(f"{problems}, {total:,} {options.unit} in total with step 1; expected figures, not measured:")
    body = [
        [
            f"{name} *" if name == options.policy else name,
            percent(plan.expected_right),
            f"{plan.expected_spend:,.0f}",
            " / ".join(str(count) for count in histograms[name][1:]),
        ]
        for name, plan in plans.items()
    ]
    show(table(["policy", "expected right", f"expected {options.unit}", "problems with 1/2/… steps"], body))
    groups = fifths(measured)
    shares = []
    for name in sorted_groups(sorted(set(groups))):
        counts = [count for count, group in zip(chosen.steps, groups, strict=True) if group == name]
        shares.append([name, str(len(counts)), f"{sum(counts) / len(counts):.2f}"])
    show("\n" + table([f"{columns.signal.unit} of step 1", "problems", f"steps each, {options.policy}"], shares))
    return 0
