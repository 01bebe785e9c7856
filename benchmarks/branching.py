"""Compares sampling by branches with majority voting and with the budget policies, at equal tokens.

    python -m benchmarks.branching
    python -m benchmarks.branching --thoughts --model embedded:overconfident --limit 300 --tuning 0 --thresholds 0.25 1
    python -m benchmarks.branching --model openai:NAME --base-url URL --tasks FILE --grader NAME --folder FOLDER

Every way of extending is recorded on the same problems. They all continue the same first samples. Then each policy is
replayed under a ledger at the same totals; a policy that needs an expectation gets one from the other folds. The
thresholds are 2 bits, as EAGer's program suggests, and the best one on other problems; with `--tuning 0` they are those
that are given.
Intervals are 95 % bootstrap over problems, paired with majority voting that gives each problem the same number of
samples. With `--thoughts` a sample is a whole thought instead of one step. A second look at it would not fit into the
model's context, so `refine` is left out. `--folder` keeps the traces; the same command goes on after a stop.
`--publish` writes them again with the mean bits of each step in place of its text and its tokens: `--replay` needs no
more, except with `--names`.
Model, prompts, grader, temperature and limits are given as to `justenough collect`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.real.capitals import named
from benchmarks.timing import RESULTS
from justenough.budget import Expectation, Recorded, cross_fit, policy_named, simulate
from justenough.cli import arguments, running
from justenough.files import write_text
from justenough.grading import Problem, open_grader, read_tasks
from justenough.runner import Runner, RunSettings
from justenough.runner.collect import Collector, settings_digest
from justenough.runner.journal import Journal, journal_of
from justenough.runner.settings import SAMPLED
from justenough.runner.shaping import shaping_of
from justenough.runner.walk import majority
from justenough.stats import paired_bootstrap
from justenough.stats.text import percent, points, table
from justenough.toy.backend import EmbeddedBackend
from justenough.trace import Step, Trace
from justenough.trace.files import TraceFile, write_traces

THRESHOLDS: Final = (0.1, 0.5, 1.0)
SUGGESTED: Final = 2.0
SHARES: Final = (1.5, 2.0, 3.0, 4.0)
"""Totals, in tokens of one sample for each problem."""
DRAWS: Final = 10
BASELINE: Final = ("vote", "uniform")


class Played(NamedTuple):
    """A policy at one total, as the mean over draws."""

    correct: NDArray[np.float64]
    """Share of the draws in which each problem is right, (n,)."""
    spent: float


class Recorder:
    """Records ways to extend on the same problems; all continue the first samples of the first way."""

    def __init__(self, options: argparse.Namespace, problems: Sequence[Problem], folder: Path) -> None:
        self.options, self.problems, self.folder = options, problems, folder
        self.first: Sequence[Trace] = ()

    def settings(self, way: str) -> RunSettings:
        """Of `refine`, `vote` or a branching; the last has twice the samples of a vote, as a branch is shorter."""
        samples = self.options.samples
        extend, spec, steps = ("branch", way, 2 * samples) if ":" in way else (way, None, samples)
        given = argparse.Namespace(**{**vars(self.options), "extend": extend, "branching": spec})
        return running.run_settings(given, steps=running.STEPS if extend == "refine" else steps)

    def record(self, way: str, name: str) -> Recorded:
        """Record all steps of a way, or read them from the folder."""
        out = self.folder / f"{name.replace(':', '-')}.parquet"
        traces = list(TraceFile(out).plain()) if self.options.replay else asyncio.run(self._collect(way, out))
        self.first = self.first or traces
        if self.options.publish is not None:
            write_traces([_short(trace) for trace in traces], self.options.publish / out.name)
        return Recorded.of([by_names(trace) for trace in traces] if self.options.names else traces)

    async def _collect(self, way: str, out: Path) -> list[Trace]:
        grader, settings = self.options.grader, self.settings(way)
        async with running.backends(self.options) as (backend, _):
            if self.options.thoughts:
                embedded = cast("EmbeddedBackend", backend)
                embedded.prompts = replace(embedded.prompts, ask=embedded.prompts.think)
            with closing(open_grader(grader)) as opened:
                runner = Runner(backend, settings, grader=opened)
                collector = Collector(runner, digest=settings_digest(backend, settings, grader=grader))
                if self.first:
                    self._begin(collector, out)
                return list((await collector.collect(self.problems, out)).traces)

    def _begin(self, collector: Collector, out: Path) -> None:
        """Write the first samples to the journal of `out`, as if they had been generated for it."""
        runner, digest = collector.runner, collector.digest
        with Journal(journal_of(out), digest=digest, shaping=shaping_of(runner)) as journal:
            known = {*journal.traces, *(trace.id for trace in (TraceFile(out).plain() if out.exists() else ()))}
            for problem, trace in zip(self.problems, self.first, strict=True):
                if problem.id not in known:
                    step = _first(trace, sampled=runner.settings.extend in SAMPLED)
                    journal.append(runner.trace(problem, [step], settings_digest=digest))


def _first(trace: Trace, *, sampled: bool) -> Step:
    """The first step, with its answer as a vote if `sampled`."""
    step = trace.steps[0]
    vote = {"sample": step.answer, "sample_correct": step.correct} if sampled else {}
    kept = {name: value for name, value in step.extra.items() if name not in ("sample", "sample_correct")}
    return replace(step, extra={**kept, **vote})


def _short(trace: Trace) -> Trace:
    """The trace with the mean bits of each step in place of its text and its tokens."""
    steps = (
        replace(step, text="", entropy=fmean(step.entropies or ()), entropies=None, logprobs=None, token_texts=None,
                confidences=None)
        for step in trace.steps
    )  # fmt: skip
    return replace(trace, steps=tuple(steps))


def by_names(trace: Trace) -> Trace:
    """The trace with votes on the names in each sample; its answer is the first sample with the most frequent name."""
    steps = trace.steps
    if "sample" not in steps[0].extra:
        return trace
    names = [named(step.text, trace.problem or "") for step in steps]
    chosen = [majority(names[:number]) for number in range(1, len(names) + 1)]
    samples = [steps[names.index(name)].extra for name in chosen]
    return replace(
        trace,
        steps=tuple(
            replace(
                step, answer=cast("str | None", sample["sample"]), correct=cast("bool | None", sample["sample_correct"])
            )
            for step, sample in zip(steps, samples, strict=True)
        ),
    )


def play(held: Recorded, policy: str, total: int, known: Sequence[Expectation]) -> Played:
    """Replay a policy; one that depends on its seed is drawn several times."""
    draws = DRAWS if policy_named(policy).by_chance else 1
    made = [simulate(held, policy=policy, total=total, expectation=known, seed=seed) for seed in range(draws)]
    return Played(np.mean([each.correct for each in made], axis=0), float(np.mean([each.spent for each in made])))


def tuned(name: str, recorder: Recorder, thresholds: Sequence[float]) -> str:
    """The threshold with the best mean accuracy over the totals on these problems."""
    means: dict[str, float] = {}
    for threshold in thresholds:
        spec = f"{name}:{threshold}"
        held = recorder.record(spec, f"tune-{spec}")
        first = held.tokens[:, 0].sum()
        known = cross_fit(held)
        totals = [round(share * first) for share in SHARES]
        means[spec] = float(np.mean([play(held, "uniform", total, known).correct.mean() for total in totals]))
        print(
            f"{spec}: {percent(means[spec])} on {len(recorder.problems)} other problems, mean over the totals",
            flush=True,
        )
    return max(means, key=lambda spec: means[spec])


def compare(recorder: Recorder, others: Recorder, thresholds: Sequence[float]) -> dict[str, object]:
    """Play all ways and policies at all totals, and print one table for each total."""
    ways: dict[str, Sequence[str]] = {}
    if not recorder.options.thoughts:
        ways["refine"] = "uniform", "entropy-proportional", "greedy", "clear"
    ways["vote"] = "uniform", "greedy", "clear"
    for name in ("eager", "entropy-gated"):
        specs = [f"{name}:{threshold}" for threshold in thresholds]
        if others.problems:
            specs = [f"{name}:{SUGGESTED}", tuned(name, others, thresholds)]
        ways |= dict.fromkeys(specs, ("uniform", "greedy"))
    played: dict[float, dict[tuple[str, str], Played]] = {share: {} for share in SHARES}
    first = 0
    for way, policies in ways.items():
        held = recorder.record(way, way)
        first = first or int(held.tokens[:, 0].sum())
        known = cross_fit(held)
        print(f"{way}: {np.mean(held.lengths):.2f} steps and {held.tokens[:, -1].mean():.1f} tokens for each problem")
        for share in SHARES:
            for policy in policies:
                played[share][way, policy] = play(held, policy, round(share * first), known)
    return {
        f"{round(share * first)} tokens": show(rows, total=round(share * first), n=len(recorder.first))
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
    arguments.add_model(parser, default="embedded")
    parser.add_argument("--tasks", default="arithmetic", help="a built-in task or a file, default arithmetic")
    parser.add_argument("--limit", type=int, default=400, help="problems that are measured")
    parser.add_argument("--tuning", type=int, default=200, help="further problems, for the thresholds")
    parser.add_argument("--thresholds", type=float, nargs="+", default=THRESHOLDS, help="in bits")
    parser.add_argument("--samples", type=int, default=6, help="of a vote, default 6; twice as many of a branching")
    parser.add_argument("--thoughts", action="store_true", help="a sample is a whole thought")
    parser.add_argument("--folder", type=Path, help="keep the traces here")
    about = "votes are on the names in a sample that are not in the question, not on its whole text"
    parser.add_argument("--names", action="store_true", help=about)
    parser.add_argument(
        "--replay",
        action="store_true",
        help="only read --folder, for the given --thresholds",
    )
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="write short traces to this folder")
    parser.add_argument("--out", type=Path, help="the result as JSON; default: below benchmarks/results")
    options = parser.parse_args(argv)
    if options.thoughts and not options.model.startswith("embedded"):
        parser.error("--thoughts is for embedded models; the prompts of other models say how they think: --prompts")
    if options.replay and options.folder is None:
        parser.error("--replay reads the traces in --folder")
    problems = [] if options.replay else read_tasks(options.tasks, limit=options.limit + options.tuning)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        recorder = Recorder(options, problems[: options.limit], folder)
        result = compare(recorder, Recorder(options, problems[options.limit :], folder), options.thresholds)
    name = f"branching-{'thoughts' if options.thoughts else 'steps'}-{options.model.replace('/', '-')}"
    out = options.out or RESULTS / f"{name}.json"
    value = {"task": recorder.first[0].task, "problems": len(recorder.first), "totals": result}
    write_text(out, json.dumps(value, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
