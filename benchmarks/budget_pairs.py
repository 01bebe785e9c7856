"""Does reallocation beat uniform on recorded answers? One rule selects all pairs; p-values are corrected.

    python -m benchmarks.budget_pairs PATH/mmlu_pro_answers.parquet

github Linwei94/LLM-Calibration-Study at ddc349e3 (MIT). The signal is `1 - mean_token_prob`, a stand-in for entropy.
An `effort` pair is measured in tokens. Tokens of different models are not added, so a cascade is measured in cost: the
price of a token is proportional to its model's parameters. Both are also measured in calls, where each step counts 1.
The tested claim is the mean change in accuracy against uniform at the same total, over the totals between one step for
each problem and all steps for each problem.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pyarrow.parquet as pq

from benchmarks.budget import answers, interval, priced
from benchmarks.recorded.sizes import holm, sized_pairs
from justenough.budget import STOPPING, Recorded, Sweep, cross_fit, stops_at_the_mean, sweep
from justenough.stats import Estimate
from justenough.trace import Json

POLICIES = ("uniform", "entropy-proportional", "greedy", "oracle")


def p_value(estimate: Estimate) -> float:
    """Two-sided p-value from the interval's width, by the normal distribution; 1 if the interval has no width."""
    if estimate.low is None or estimate.high is None or estimate.high == estimate.low:
        return 1.0
    deviation = (estimate.high - estimate.low) / (2 * NormalDist().inv_cdf(0.975))
    return 2 * (1 - NormalDist().cdf(abs(estimate.value) / deviation))


def against_stopping(result: Sweep, policy: str) -> Estimate:
    """A policy's change against plain early stopping, at the total that early stopping spends."""
    total = next(row.total for row in result.rows if row.policy == STOPPING)
    row = result.at(policy, total)
    if row is None or row.against_stopping is None:
        raise TypeError(f"{policy} was not replayed at {total}")
    return row.against_stopping


def verdicts(policy: str, names: Sequence[str], sweeps: Sequence[tuple[Sweep, Sweep]], *, unit: str) -> dict[str, Json]:
    """How often a policy beats its rivals, in `unit` and in calls; p-values are adjusted for the number of tests."""
    results: dict[str, Json] = {}
    for what, estimates in (
        (f"against uniform, {unit}", [spent.overall[policy] for spent, _ in sweeps]),
        (f"against uniform at equal spend, {unit}", [spent.equal_spend[policy] for spent, _ in sweeps]),
        ("against uniform, calls", [calls.overall[policy] for _, calls in sweeps]),
        (f"against early stopping, {unit}", [against_stopping(spent, policy) for spent, _ in sweeps]),
    ):
        adjusted = holm([p_value(estimate) for estimate in estimates])
        tests = list(zip(names, estimates, adjusted, strict=True))
        better = [name for name, estimate, q in tests if estimate.value > 0 and q <= 0.05]
        worse = [name for name, estimate, q in tests if estimate.value < 0 and q <= 0.05]
        alone = sum(estimate.low is not None and estimate.low > 0 for estimate in estimates)
        mean = math.fsum(estimate.value for estimate in estimates) / len(estimates)
        undecided = len(tests) - len(better) - len(worse)
        print(
            f"\n{policy} {what}: mean {100 * mean:+.2f} points over {len(tests)}; interval above 0 in {alone};"
            f" after Holm better in {len(better)}, worse in {len(worse)}, cannot tell in {undecided}\n"
            f"  better: {', '.join(better) or 'none'}\n  worse: {', '.join(worse) or 'none'}"
        )
        results[f"{policy} {what}"] = {name: {**estimate._asdict(), "p_holm": q} for name, estimate, q in tests}
    return results


def written(path: Path, results: Mapping[str, Json]) -> None:
    """Write the results and print the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all pairs; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budget_pairs", description=__doc__.splitlines()[0])
    parser.add_argument("answers", type=Path)
    parser.add_argument("--points", type=int, default=7)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/budget-pairs.json"))
    options = parser.parse_args(argv)
    models = sorted(set(pq.read_table(options.answers, columns=["model"]).column("model").to_pylist()))
    pairs = sized_pairs(models)
    sweeps: list[tuple[Sweep, Sweep]] = []
    for pair in pairs:
        held = Recorded.of(answers(options.answers, pair.first, pair.then))
        if pair.kind != "effort":
            held = priced(held, pair.prices)
        shared: dict[str, Any] = {"policies": POLICIES, "points": options.points, "draws": options.draws}
        shared |= {"expectations": cross_fit(held), "stops": stops_at_the_mean(held).tolist()}
        spent, calls = sweep(held, **shared), sweep(held, unit="calls", **shared)
        sweeps.append((spent, calls))
        unit = "tokens" if pair.kind == "effort" else "cost"
        print(
            f"{pair.kind:7} {pair.name:52} n {spent.problems}  gain of step 2"
            f" {100 * float(held.correct[:, 1].mean() - held.correct[:, 0].mean()):+5.1f}\n"
            f"    {unit:6} greedy {interval(spent.overall['greedy'])}   entropy-proportional"
            f" {interval(spent.overall['entropy-proportional'])}   oracle {interval(spent.overall['oracle'])}\n"
            f"    calls  greedy {interval(calls.overall['greedy'])}   entropy-proportional"
            f" {interval(calls.overall['entropy-proportional'])}\n"
            f"    at equal spend greedy {interval(spent.equal_spend['greedy'])}; against early stopping greedy"
            f" {interval(against_stopping(spent, 'greedy'))}   uniform {interval(against_stopping(spent, 'uniform'))}",
            flush=True,
        )
    results: dict[str, Json] = {"pairs": len(pairs)}
    names = [pair.name for pair in pairs]
    for policy in ("greedy", "entropy-proportional"):
        results |= verdicts(policy, names, sweeps, unit="tokens or cost")
    written(options.out, results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
