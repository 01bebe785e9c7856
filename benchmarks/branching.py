"""Compares sampling by branches with majority voting and with the budget policies, at equal tokens.

    python -m benchmarks.branching
    python -m benchmarks.branching --thoughts --model overconfident --limit 300 --tuning 0 --thresholds 0.25 1

Every way of extending is recorded on the same problems, with the same first sample. Then each policy is replayed under
a ledger at the same totals; a policy that needs an expectation gets one from the other folds. The thresholds are 2
bits, as EAGer's program suggests, and the best one on other problems; with `--tuning 0` they are those that are given.
Intervals are 95 % bootstrap over problems, paired with majority voting that gives each problem the same number of
samples. With `--thoughts` a sample is a whole thought instead of one step. A second look at it would not fit into the
model's context, so `refine` is left out. `--folder` keeps the traces.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import write
from justenough.budget import Expectation, Recorded, cross_fit, policy_named, simulate
from justenough.grading import Problem, read_tasks
from justenough.runner import RunSettings, branching_named
from justenough.runner.collect import collect
from justenough.stats import paired_bootstrap
from justenough.stats.text import percent, points, table
from justenough.toy.backend import EmbeddedBackend

THRESHOLDS: Final = (0.1, 0.5, 1.0)
SUGGESTED: Final = 2.0
SHARES: Final = (1.5, 2.0, 3.0, 4.0)
"""Totals, in tokens of one sample for each problem."""
DRAWS: Final = 10
REFINE: Final = RunSettings()
VOTE: Final = RunSettings(extend="vote", max_steps=6)
BASELINE: Final = ("vote", "uniform")


class Played(NamedTuple):
    """A policy at one total, as the mean over draws."""

    correct: NDArray[np.float64]
    """Share of the draws in which each problem is right, (n,)."""
    spent: float


def branching(spec: str) -> RunSettings:
    """The settings of a branching; it has twice the samples of a vote, because a branch is shorter."""
    return RunSettings(extend="branch", max_steps=12, branching=branching_named(spec))


class Asked(NamedTuple):
    """What is asked of which model, and where the traces are."""

    model: str
    thoughts: bool
    folder: Path


def recorded(problems: Sequence[Problem], settings: RunSettings, name: str, asked: Asked) -> Recorded:
    """Record all steps of a way to extend, or read them from the folder."""

    async def run() -> Recorded:
        backend = EmbeddedBackend(asked.model)
        if asked.thoughts:
            backend.prompts = replace(backend.prompts, ask=backend.prompts.think)
        try:
            result = await collect(problems, asked.folder / f"{name}.parquet", backend=backend, settings=settings)
        finally:
            await backend.close()
        return Recorded.of(list(result.traces))

    return asyncio.run(run())


def play(held: Recorded, policy: str, total: int, known: Sequence[Expectation]) -> Played:
    """Replay a policy; one that depends on its seed is drawn several times."""
    draws = DRAWS if policy_named(policy).by_chance else 1
    made = [simulate(held, policy=policy, total=total, expectation=known, seed=seed) for seed in range(draws)]
    return Played(np.mean([each.correct for each in made], axis=0), float(np.mean([each.spent for each in made])))


def tuned(name: str, problems: Sequence[Problem], thresholds: Sequence[float], asked: Asked) -> str:
    """The threshold with the best mean accuracy over the totals on these problems."""
    means: dict[str, float] = {}
    for threshold in thresholds:
        spec = f"{name}:{threshold}"
        held = recorded(problems, branching(spec), f"tune-{spec}", asked)
        first = held.tokens[:, 0].sum()
        known = cross_fit(held)
        totals = [round(share * first) for share in SHARES]
        means[spec] = float(np.mean([play(held, "uniform", total, known).correct.mean() for total in totals]))
        print(f"{spec}: {percent(means[spec])} on {len(problems)} other problems, mean over the totals", flush=True)
    return max(means, key=lambda spec: means[spec])


def compare(
    problems: Sequence[Problem], others: Sequence[Problem], thresholds: Sequence[float], asked: Asked
) -> dict[str, object]:
    """Play all ways and policies at all totals, and print one table for each total."""
    ways: dict[str, tuple[RunSettings, Sequence[str]]] = {"vote": (VOTE, ("uniform", "greedy", "clear"))}
    if not asked.thoughts:
        ways["refine"] = REFINE, ("uniform", "entropy-proportional", "greedy", "clear")
    for name in ("eager", "entropy-gated"):
        specs = [f"{name}:{threshold}" for threshold in thresholds]
        if others:
            specs = [f"{name}:{SUGGESTED}", tuned(name, others, thresholds, asked)]
        for spec in specs:
            ways[spec] = branching(spec), ("uniform", "greedy")
    played: dict[float, dict[tuple[str, str], Played]] = {share: {} for share in SHARES}
    first = 0
    for way, (settings, policies) in ways.items():
        held = recorded(problems, settings, way, asked)
        first = first or int(held.tokens[:, 0].sum())
        known = cross_fit(held)
        print(f"{way}: {np.mean(held.lengths):.2f} steps and {held.tokens[:, -1].mean():.1f} tokens for each problem")
        for share in SHARES:
            for policy in policies:
                played[share][way, policy] = play(held, policy, round(share * first), known)
    return {
        f"{round(share * first)} tokens": show(rows, total=round(share * first), n=len(problems))
        for share, rows in played.items()
    }


def show(rows: Mapping[tuple[str, str], Played], *, total: int, n: int) -> dict[str, object]:
    """Print the rows of one total."""
    body: list[list[str]] = []
    out: dict[str, object] = {}
    against = rows[BASELINE]
    for (way, policy), row in rows.items():
        change = paired_bootstrap(row.correct - against.correct)
        shown = "–" if (way, policy) == BASELINE else points(change)
        body.append([f"{way}, {policy}", percent(float(row.correct.mean())), shown, f"{row.spent:,.0f}"])
        out[f"{way}, {policy}"] = {
            "accuracy": float(row.correct.mean()), "change": change._asdict(), "spent": row.spent
        }  # fmt: skip
    print(f"\n{n} problems, {total:,} tokens in total")
    print(table(["way, policy", "right", "against majority voting, points", "tokens spent"], body), flush=True)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.branching", description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="arithmetic", help="a built-in task or a file, default arithmetic")
    parser.add_argument("--limit", type=int, default=400, help="problems that are measured")
    parser.add_argument("--tuning", type=int, default=200, help="further problems, for the thresholds")
    parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS, help="in bits")
    parser.add_argument("--model", default="embedded", help="an embedded model, default embedded")
    parser.add_argument("--thoughts", action="store_true", help="a sample is a whole thought")
    parser.add_argument("--folder", type=Path, help="keep the traces here")
    arguments = parser.parse_args(argv)
    problems = read_tasks(arguments.task, limit=arguments.limit + arguments.tuning)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        asked = Asked(arguments.model, arguments.thoughts, folder)
        result = compare(problems[: arguments.limit], problems[arguments.limit :], arguments.thresholds, asked)
    name = f"branching-{'thoughts' if arguments.thoughts else 'steps'}-{arguments.model}"
    write(name, {"task": arguments.task, "problems": arguments.limit, "totals": result})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
