"""Does reallocation beat uniform where a further step is a longer prompt? Five models on GSM8K, recorded answers.

    python -m benchmarks.budget_prompts PATH/gsm8k_answer_token_entropy.parquet

github itsmejul/llm-confidence at a6bee413 (Apache-2.0). Each question is answered directly (step 1), after a draft
(step 2) and after a chain of thought (step 3). Tokens and token limits of each step are recorded. The signal is the
normalised entropy of the answer's own tokens, not of the whole step. All five models are used, with every question
that has all three steps; a missing answer counts as wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq

from benchmarks.budget import Blind, interval
from benchmarks.budget_pairs import POLICIES, against_stopping, verdicts, written
from justenough.budget import (
    Expectation,
    Recorded,
    Sweep,
    cross_fit,
    simulate,
    stops_at_the_mean,
    sweep,
    totals_between,
)
from justenough.signal.signal import Signal
from justenough.stats import Estimate, paired_bootstrap
from justenough.trace import Json, Step, Trace

STEPS: Final = ("baseline", "cod", "cot")
SIGNAL: Final = Signal(kind="entropy of the answer's tokens, normalised", top_k=None)


def ladders(path: Path) -> dict[str, tuple[list[Trace], list[int]]]:
    """Model → its traces of three steps, and the token limits of the steps."""
    by_model: dict[str, dict[str, dict[str, dict[str, Json]]]] = {}
    for row in pq.read_table(path).to_pylist():
        by_model.setdefault(row["model"], {}).setdefault(row["prompt_id"], {})[row["prompting"]] = row
    result = {}
    for model, questions in sorted(by_model.items()):
        whole = {question: answers for question, answers in questions.items() if answers.keys() >= set(STEPS)}
        traces = [
            Trace(
                id=question,
                task="gsm8k",
                model=model,
                signal=SIGNAL,
                steps=tuple(_step(answers[name]) for name in STEPS),
            )
            for question, answers in sorted(whole.items())
        ]
        first = next(iter(whole.values()))
        result[model] = traces, [int(str(first[name]["max_tokens"])) for name in STEPS]
    return result


def _step(row: dict[str, Json]) -> Step:
    entropy, answer, correct = row["entropy"], row["llm_answer"], row["correct"]
    return Step(
        answer=None if answer is None else str(answer),
        correct=None if correct is None else bool(correct),
        tokens=int(str(row["tokens_used"])),
        uncertainty=entropy if isinstance(entropy, float) else None,
    )


def entropy_gain(held: Recorded, known: Sequence[Expectation], totals: Sequence[int], *, draws: int = 6) -> Estimate:
    """Gain of greedy from the entropy: its mean change against `Blind` over the totals, paired by problem."""
    gains = []
    for total in totals:
        sees = simulate(held, policy="greedy", total=total, expectation=known).correct.astype(np.float64)
        blind = [simulate(held, policy=Blind(), total=total, expectation=known, seed=seed) for seed in range(draws)]
        gains.append(sees - np.mean([run.correct for run in blind], axis=0))
    return paired_bootstrap(np.mean(gains, axis=0), seed=0)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all models; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budget_prompts", description=__doc__.splitlines()[0])
    parser.add_argument("answers", type=Path)
    parser.add_argument("--points", type=int, default=7)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/budget-prompts.json"))
    options = parser.parse_args(argv)
    sweeps: list[tuple[Sweep, Sweep]] = []
    names = []
    for model, (traces, limits) in ladders(options.answers).items():
        held = Recorded.of(traces, limits=limits)
        common = {"policies": (*POLICIES, Blind()), "points": options.points, "draws": options.draws}
        known, stops = cross_fit(held), stops_at_the_mean(held).tolist()
        spent, calls = (
            sweep(held, expectations=known, stops=stops, unit="tokens", **common),
            sweep(held, expectations=known, stops=stops, unit="calls", **common),
        )
        sweeps.append((spent, calls))
        between = totals_between(held, points=options.points, unit="tokens")[1:-1]
        names.append(model.rpartition("/")[2])
        right = " → ".join(f"{100 * float(share):.1f}" for share in held.correct.mean(axis=0))
        print(f"{names[-1]:24} n {spent.problems}  right after each step {right} %")
        for what, each in (("tokens", spent), ("calls", calls)):
            changes = "  ".join(f"{name} {interval(each.overall[name])}" for name in each.overall if name != "uniform")
            print(f"    {what:6} {changes}")
        print(
            f"    at equal spend greedy {interval(spent.equal_spend['greedy'])}; against early stopping greedy"
            f" {interval(against_stopping(spent, 'greedy'))}\n"
            f"    greedy against greedy that is blind to the entropy {interval(entropy_gain(held, known, between))}",
            flush=True,
        )
    results: dict[str, Json] = {}
    for policy in ("greedy", "entropy-proportional"):
        results |= verdicts(policy, names, sweeps, unit="tokens")
    written(options.out, results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
