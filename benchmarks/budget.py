"""Does reallocation beat uniform at the same total? Policies × totals, with paired intervals, on recorded runs.

    python -m benchmarks.budget TRACES.parquet
    python -m benchmarks.budget mmlu_pro_answers.parquet --pair Qwen3-8B Qwen3-8B-think

The first form reads traces with all steps (`justenough collect --steps 4`). The second form reads the answers of
github.com/Linwei94/LLM-Calibration-Study and uses two models' answers to a question as steps 1 and 2. The signal there
is `1 - mean_token_prob`, a stand-in for entropy. The command prints tables and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq

from justenough.budget import (
    POLICIES,
    UNITS,
    EntropyProportional,
    Greedy,
    Policy,
    Recorded,
    Sweep,
    Unit,
    View,
    stops_at_the_mean,
    sweep,
)
from justenough.budget.policies import Score
from justenough.errors import InputError, JustEnoughError
from justenough.signal.signal import Signal
from justenough.stats import Estimate
from justenough.stats.text import points
from justenough.trace import Json, Step, Trace
from justenough.trace.files import read_traces

STAND_IN = "1 - mean_token_prob"
TABLES = ("batch", "online", "ablation")


def answers(path: Path, first: str, last: str) -> list[Trace]:
    """Two models' answers to the same questions as steps 1 and 2."""
    columns = ["model", "question_id", "category", "extracted_answer", "mean_token_prob", "token_length", "correct"]
    rows = pq.read_table(path, columns=columns, filters=[("model", "in", [first, last])]).to_pylist()
    by_question: dict[tuple[int, str], dict[str, Json]] = {(row["question_id"], row["model"]): row for row in rows}
    signal = Signal(kind=STAND_IN, top_k=None, temperature=0.0)
    traces = []
    for question in sorted({question for question, _ in by_question}):
        pair = [by_question.get((question, model)) for model in (first, last)]
        if any(row is None for row in pair):
            continue
        steps = [_step(row) for row in pair if row is not None]
        group = str(by_question[question, first]["category"])
        traces.append(
            Trace(id=str(question), task="mmlu-pro", model=first, group=group, signal=signal, steps=tuple(steps))
        )
    if not traces:
        raise SystemExit(f"{path} has no question that {first} and {last} both answered")
    return traces


def _step(row: dict[str, Json]) -> Step:
    probability, answer = row["mean_token_prob"], row["extracted_answer"]
    sure = float(probability) if isinstance(probability, float) and np.isfinite(probability) else None
    return Step(
        answer=None if answer is None else str(answer),
        correct=bool(row["correct"]),
        tokens=int(str(row["token_length"])),
        uncertainty=None if sure is None else 1 - sure,
        model=str(row["model"]),
    )


@dataclass(frozen=True, slots=True)
class Blind:
    """Greedy that treats every problem as the average one. It shows the gain of greedy without the signal."""

    name: ClassVar[str] = "greedy, blind"
    needs: ClassVar[str] = "what greedy needs, except the problems' own entropies"
    online: ClassVar[bool] = False
    expects: ClassVar[bool] = True
    by_chance: ClassVar[bool] = True
    in_order: ClassVar[bool] = False

    def score(self, view: View) -> Score:
        """Greedy's scores at the mean P(right) and the mean cost of all problems."""
        right = None if view.right is None else np.broadcast_to(view.right.mean(axis=0), view.right.shape)
        cost = np.broadcast_to(view.cost.mean(axis=0), view.cost.shape)
        return Greedy(adaptive=False).score(replace(view, right=right, cost=cost, later=None))


def priced(held: Recorded, prices: Sequence[int]) -> Recorded:
    """The same runs with costs in place of tokens; `prices` are those of a token of each step."""
    each = np.asarray(prices, dtype=np.float64)
    if each.shape != (held.max_steps,) or each.min() < 1:
        raise InputError(f"prices {list(prices)} for {held.max_steps} steps", hint="one price of at least 1 per step")
    costs = np.cumsum(np.diff(held.tokens, axis=1, prepend=0.0) * each, axis=1)
    limits = tuple(limit * price for limit, price in zip(held.limits, prices, strict=True))
    return replace(held, tokens=costs, limits=limits)


def ablation(held: Recorded) -> list[Policy]:
    """Policies with one varied parameter each; δ is a quantile of the entropies, as bits differ between signals."""
    bits = held.bits[:, 0]
    quantiles = [float(np.nanquantile(bits, share)) for share in (0.25, 0.5, 0.75)]
    return [
        EntropyProportional(),
        *(EntropyProportional(alpha=alpha) for alpha in (0.25, 0.5, 0.75)),
        *(EntropyProportional(delta=round(delta, 4)) for delta in quantiles),
        *(EntropyProportional(gamma=gamma) for gamma in (0.5, 2.0, 4.0)),
        Greedy(),
        Greedy(adaptive=False),
    ]


def interval(estimate: Estimate) -> str:
    """A change in points with its interval."""
    return points(estimate, digits=2)


def table(result: Sweep) -> None:
    """Print accuracy, spend and changes for each total, and the claim."""
    print(f"\n{result.problems} problems, {result.form}, in {result.unit}; changes in points, with 95 % intervals")
    width = max(len(row.policy) for row in result.rows)
    total = None
    for row in result.rows:
        if row.total != total:
            total = row.total
            print(f"total {total}")
        steps = " ".join(f"{count:.0f}" for count in row.steps_histogram[1:])
        stopping = row.against_stopping
        print(
            f"  {row.policy:{width}}  accuracy {row.accuracy:.4f}  spent {row.spent:9.0f}  against uniform"
            f" {interval(row.against_uniform):22}  at equal spend {interval(row.at_equal_spend):22}"
            f"  problems with 1, 2, … steps: {steps}"
            + ("" if stopping is None else f"  against early stopping {interval(stopping)}")
        )
    print("over the totals between the ends: against uniform at the same total, and at the tokens really spent")
    for name, estimate in result.overall.items():
        even = result.equal_spend[name]
        print(
            f"  {name:{width}}  {interval(estimate):22} {result.verdict(name):12}"
            f" {interval(even):22} {result.verdict(name, equal_spend=True)}"
        )
    for warning in result.warnings:
        print(f"note: {warning}")


def measure(traces: Sequence[Trace], arguments: argparse.Namespace) -> dict[str, Json]:
    """Print and return all tables of one set of traces."""
    held = Recorded.of(traces)
    if arguments.prices:
        held = priced(held, arguments.prices)
    unit: Unit = arguments.unit
    stops = stops_at_the_mean(held, seed=arguments.seed).tolist()
    common = {"points": arguments.points, "draws": arguments.draws, "seed": arguments.seed}
    out: dict[str, Json] = {"signal": dict(held.signal.to_json()), "problems": len(traces)}
    policies: tuple[str | Policy, ...] = (*POLICIES, Blind())
    sweeps: dict[str, Callable[[], Sweep]] = {
        "batch": lambda: sweep(held, policies=policies, unit=unit, stops=stops, **common),
        "online": lambda: sweep(held, unit=unit, form="online", **common),
        "ablation": lambda: sweep(held, policies=ablation(held), unit=unit, **common),
    }
    for name in arguments.tables:
        result = sweeps[name]()
        print(f"\n== {name}", flush=True)
        table(result)
        out[name] = result.to_json()
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budget", description=__doc__.splitlines()[0])
    parser.add_argument("traces", type=Path, help="traces (Parquet or JSONL), or the answers file")
    parser.add_argument(
        "--pair", nargs=2, action="append", metavar=("FIRST", "LAST"), help="models of an answers file; repeatable"
    )
    parser.add_argument("--unit", choices=UNITS, default="tokens")
    parser.add_argument("--prices", type=int, nargs="+", help="price of a token of each step: count cost")
    parser.add_argument("--points", type=int, default=9, help="totals between one step each and all steps each")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/budget.json"))
    arguments = parser.parse_args(argv)
    if not arguments.traces.is_file():
        parser.error(f"there is no file {arguments.traces}")
    try:
        results: dict[str, Json] = {}
        if arguments.traces.suffix == ".parquet" and "mean_token_prob" in pq.read_schema(arguments.traces).names:
            for first, last in arguments.pair or [("Qwen3-8B", "Qwen3-8B-think")]:
                print(f"\n=== {first} → {last} (signal: {STAND_IN}, a stand-in)")
                results[f"{first} → {last}"] = measure(answers(arguments.traces, first, last), arguments)
        else:
            results[arguments.traces.name] = measure(read_traces(arguments.traces).traces, arguments)
    except JustEnoughError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nwritten: {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
