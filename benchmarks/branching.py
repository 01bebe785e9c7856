"""Compares sampling by branches with majority voting and with the budget policies, at equal tokens.

    python -m benchmarks.branching [--task arithmetic] [--limit 600] [--folder FOLDER]

Every way of extending is recorded on the same problems, with the same first sample. Then each policy is replayed under
a ledger at the same totals; a policy that needs an expectation gets one from the other folds. The thresholds are those
that EAGer's program suggests (2 bits), and the best ones on other problems. Intervals are 95 % bootstrap over problems,
paired with majority voting that gives each problem the same number of samples. FOLDER keeps the traces.
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

THRESHOLDS: Final = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0)
SHARES: Final = (1.5, 2.0, 3.0, 4.0)
"""Totals, in tokens of one sample for each problem."""
DRAWS: Final = 20
REFINE: Final = RunSettings()
VOTE: Final = RunSettings(extend="vote", max_steps=8)
BASELINE: Final = ("vote", "uniform")


class Played(NamedTuple):
    """A policy at one total, as the mean over draws."""

    correct: NDArray[np.float64]
    """Share of the draws in which each problem is right, (n,)."""
    spent: float


def branching(spec: str) -> RunSettings:
    """The settings of a branching; it has twice the samples of a vote, because a branch is shorter."""
    return RunSettings(extend="branch", max_steps=16, branching=branching_named(spec))


def recorded(problems: Sequence[Problem], settings: RunSettings, out: Path, *, steps: int) -> Recorded:
    """Record all steps of a way to extend, or read them from `out`."""

    async def run() -> Recorded:
        backend = EmbeddedBackend()
        try:
            result = await collect(problems, out, backend=backend, settings=replace(settings, max_steps=steps))
        finally:
            await backend.close()
        return Recorded.of(list(result.traces))

    return asyncio.run(run())


def play(held: Recorded, policy: str, total: int, known: Sequence[Expectation]) -> Played:
    """Replay a policy; one that depends on its seed is drawn several times."""
    draws = DRAWS if policy_named(policy).by_chance else 1
    made = [simulate(held, policy=policy, total=total, expectation=known, seed=seed) for seed in range(draws)]
    return Played(np.mean([each.correct for each in made], axis=0), float(np.mean([each.spent for each in made])))


def tuned(name: str, problems: Sequence[Problem], folder: Path) -> str:
    """The threshold with the best mean accuracy over the totals on these problems."""
    means: dict[str, float] = {}
    for threshold in THRESHOLDS:
        spec = f"{name}:{threshold}"
        held = recorded(problems, branching(spec), folder / f"tune-{spec}.parquet", steps=16)
        first = held.tokens[:, 0].sum()
        known = cross_fit(held)
        totals = [round(share * first) for share in SHARES]
        means[spec] = float(np.mean([play(held, "uniform", total, known).correct.mean() for total in totals]))
        print(f"{spec}: {percent(means[spec])} on {len(problems)} other problems, mean over the totals", flush=True)
    return max(means, key=lambda spec: means[spec])


def compare(problems: Sequence[Problem], others: Sequence[Problem], folder: Path) -> dict[str, object]:
    """Play all ways and policies at all totals, and print one table for each total."""
    ways: dict[str, tuple[RunSettings, Sequence[str]]] = {
        "vote": (VOTE, ("uniform", "greedy", "clear")),
        "refine": (REFINE, ("uniform", "entropy-proportional", "greedy", "clear")),
    }
    for name in ("eager", "entropy-gated"):
        for spec in dict.fromkeys((f"{name}:2.0", tuned(name, others, folder))):
            ways[spec] = branching(spec), ("uniform", "greedy")
    played: dict[float, dict[tuple[str, str], Played]] = {share: {} for share in SHARES}
    first = 0
    for way, (settings, policies) in ways.items():
        held = recorded(problems, settings, folder / f"{way}.parquet", steps=settings.max_steps)
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
    body, out = [], {}
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
    parser.add_argument("--limit", type=int, default=600, help="problems that are measured")
    parser.add_argument("--tuning", type=int, default=300, help="further problems, for the thresholds")
    parser.add_argument("--folder", type=Path, help="keep the traces here")
    arguments = parser.parse_args(argv)
    problems = read_tasks(arguments.task, limit=arguments.limit + arguments.tuning)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = compare(problems[: arguments.limit], problems[arguments.limit :], folder)
    write(f"branching-{Path(arguments.task).stem}", {"problems": arguments.limit, "totals": result})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
