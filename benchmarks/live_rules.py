"""Compares rules that need a live model with the gate on the same problems: `python -m benchmarks.live_rules`.

AdaDec looks ahead where it is unsure, which costs tokens. CALM and DeeBERT leave the network early, which saves
layers. The gate saves steps. The problems are held-out problems of the embedded model. Changes are against the whole
model with the same sampling noise, paired, with 95 % bootstrap intervals. The layer exits run one step only: a
generation that does not end fills the model's 640 positions and leaves no room for a second step. The benchmark needs
the `hf` extra and half an hour on a busy core; `--quick` is a short run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.timing import write
from justenough.backends.adadec import AdaDecBackend
from justenough.backends.layers.backend import LayerExitBackend
from justenough.backends.layers.certificate import certified
from justenough.backends.layers.cost import Cost
from justenough.backends.layers.leaving import Calm, DeeBert, Leaving
from justenough.backends.protocol import Backend
from justenough.calibration.calibration import load_calibration
from justenough.evaluation import evaluate
from justenough.grading import Exact, Problem, read_tasks
from justenough.runner import Runner, RunSettings
from justenough.runner.collect import run_all
from justenough.stats import non_inferiority, paired_bootstrap, wilson
from justenough.toy.adadec import embedded_adadec
from justenough.toy.backend import EmbeddedBackend, shipped_calibration
from justenough.trace import Trace

CHECKPOINT: Final = Path(__file__).parent.parent / "models" / "embedded"
STEPS: Final = 4
ROWS: Final = 64
MARGIN: Final = 0.01
Open = Callable[[], Backend]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The figures of one rule after step 1 or after all steps."""

    rule: str
    steps: int
    temperature: float
    accuracy: float
    change: tuple[float, float, float]
    """Against the whole model: value, low, high."""
    verdict: str
    answers_differ: int
    tokens: int
    """Including look-ahead tokens."""
    tokens_change: float
    layers: float
    """Mean number of layers for a token."""
    layers_saved: float
    work_saved: float
    """Multiply-adds of matrices, with off-ramps and propagated keys and values, but without attention's own sums."""


def collected(backend_of: Open, problems: Sequence[Problem], *, steps: int, temperature: float) -> list[Trace]:
    """The traces of one rule."""

    async def run() -> list[Trace]:
        backend = backend_of()
        try:
            settings = RunSettings(max_steps=steps, temperature=temperature)
            runner = Runner(backend, settings, grader=Exact())
            return [each.trace for each in await run_all(runner, problems, concurrency=backend.concurrency)]
        finally:
            await backend.close()

    return asyncio.run(run())


def row(
    name: str, traces: Sequence[Trace], whole: Sequence[Trace], *, upto: int, work: Cost, temperature: float
) -> Row:
    """The figures of a rule's first `upto` steps against those of the whole model."""
    mine, theirs = ([trace.steps[upto - 1] for trace in each] for each in (traces, whole))
    right, reference = (np.array([step.is_correct for step in each]) for each in (mine, theirs))
    change = paired_bootstrap(right.astype(np.float64) - reference.astype(np.float64))
    tokens, base = (sum(trace.tokens_to(upto) for trace in each) for each in (traces, whole))
    counts = [step.extra.get("layers") for trace in traces for step in trace.steps[:upto]]
    ramps = all(isinstance(count, int) for count in counts) and "@" in traces[0].model
    layers = sum(count for count in counts if isinstance(count, int)) if ramps else tokens * work.layers
    return Row(
        rule=name,
        steps=upto,
        temperature=temperature,
        accuracy=float(right.mean()),
        change=(change.value, change.low or 0.0, change.high or 0.0),
        verdict=non_inferiority(right, reference, margin=MARGIN).verdict,
        answers_differ=sum(one.answer != other.answer for one, other in zip(mine, theirs, strict=True)),
        tokens=tokens,
        tokens_change=tokens / base - 1,
        layers=layers / tokens,
        layers_saved=1 - layers / (base * work.layers),
        work_saved=work.saved(tokens, layers, base, ramps=ramps),
    )


def shown(rows: Sequence[Row], n: int) -> str:
    """A table in Markdown."""
    lines = [
        "| rule | right | change, points | verdict | differ | tokens | layers a token | layers saved | work saved |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in rows:
        interval = wilson(round(each.accuracy * n), n)
        limits = f"[{100 * (interval.low or 0):.1f}, {100 * (interval.high or 0):.1f}]" if interval else ""
        value, low, high = (100 * part for part in each.change)
        change = f"{value:+.1f} [{low:+.1f}, {high:+.1f}] | {each.verdict}"
        lines.append(
            f"| {each.rule} | {100 * each.accuracy:.1f} % {limits} | {change} | {each.answers_differ}"
            f" | {each.tokens:,} ({100 * each.tokens_change:+.1f} %) | {each.layers:.2f}"
            f" | {100 * each.layers_saved:.1f} % | {100 * each.work_saved:+.1f} % |"
        )
    return "\n".join(lines)


def adadec(problems: Sequence[Problem], work: Cost, *, temperature: float, whole: Sequence[Trace]) -> list[Row]:
    """AdaDec at its learned threshold and at a lower one, on the ONNX form."""
    rows: list[Row] = []
    for threshold in (None, 0.2):
        backends: list[AdaDecBackend] = []

        def opened(threshold: float | None = threshold, backends: list[AdaDecBackend] = backends) -> Backend:
            backends.append(embedded_adadec(threshold=threshold, concurrency=24))
            return backends[-1]

        traces = collected(opened, problems, steps=STEPS, temperature=temperature)
        backend = backends[0]
        name = f"AdaDec, {backend.threshold:g} bits{' (learned)' if threshold is None else ''}"
        print(f"{name}, temperature {temperature:g}: {backend.pauses} pauses, {backend.changed} overruled", flush=True)
        rows += [row(name, traces, whole, upto=upto, work=work, temperature=temperature) for upto in (1, STEPS)]
        print("\n".join(shown(rows[-2:], len(problems)).splitlines()[-2:]), flush=True)
    return rows


def rules() -> list[tuple[str, Leaving, int]]:
    """Name, rule and number of steps of each layer exit."""
    result: list[tuple[str, Leaving, int]] = []
    for certificate in certified(CHECKPOINT / "offramps", "softmax")[1].certificates:
        name = f"CALM, margin {certificate.setting:g} (risk ≤ {certificate.level:g})"
        result.append((name, Calm(certificate.setting), 1))
    result += [(f"CALM, margin {margin:g}", Calm(margin), 1) for margin in (0.9, 0.5)]
    return result + [(f"DeeBERT, {bits:g} bits", DeeBert(bits), 1) for bits in (0.01, 0.1, 0.5)]


async def clocked(problems: Sequence[Problem], *, rounds: int) -> dict[str, float]:
    """Median ratio of the seconds of one step to those of the whole model in the same round."""
    margin = certified(CHECKPOINT / "offramps", "softmax")[1].threshold()
    pairs: dict[str, tuple[Backend, Backend]] = {
        "AdaDec (learned), 8 streams": (EmbeddedBackend(concurrency=8), embedded_adadec())
    }
    for width in (1, ROWS):
        whole = LayerExitBackend(CHECKPOINT, None, concurrency=width, threads=1)
        for name, leaving in ((f"CALM, margin {margin:g}", Calm(margin)), ("CALM, margin 0.5", Calm(0.5))):
            pairs[f"{name}, {width} streams"] = (
                whole,
                LayerExitBackend(CHECKPOINT, leaving, concurrency=width, threads=1),
            )
    ratios: dict[str, list[float]] = {name: [] for name in pairs}
    for turn in range(rounds + 1):
        for name, pair in pairs.items():
            seconds = []
            for backend in pair:
                runner = Runner(backend, RunSettings(max_steps=1), grader=Exact())
                begun = time.perf_counter()
                await run_all(runner, problems, concurrency=backend.concurrency)
                seconds.append(time.perf_counter() - begun)
            # The first round loads the models, so it does not count.
            if turn:
                ratios[name].append(seconds[1] / seconds[0])
    return {name: statistics.median(values) for name, values in ratios.items()}


def main() -> None:
    """Collect, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="24 problems, for a quick check")
    options = parser.parse_args()
    n = 24 if options.quick else 300
    problems = read_tasks("arithmetic", limit=n)
    work = Cost.of(json.loads((CHECKPOINT / "config.json").read_text()))
    rows: list[Row] = []
    sampled = collected(EmbeddedBackend, problems, steps=STEPS, temperature=0.8)
    greedy = collected(EmbeddedBackend, problems, steps=STEPS, temperature=0.0)
    for temperature, whole in ((0.0, greedy), (0.8, sampled)):
        name = f"whole model, temperature {temperature:g}"
        rows += [row(name, whole, whole, upto=upto, work=work, temperature=temperature) for upto in (1, STEPS)]
        rows += adadec(problems, work, temperature=temperature, whole=whole)
    gated = evaluate(sampled, calibration=load_calibration(shipped_calibration()), rules="all-steps", draws=1).gated
    for name, leaving, steps in rules():

        def opened(leaving: Leaving = leaving) -> Backend:
            return LayerExitBackend(CHECKPOINT, leaving, concurrency=ROWS, threads=1)

        traces = collected(opened, problems, steps=steps, temperature=0.8)
        rows += [row(name, traces, sampled, upto=upto, work=work, temperature=0.8) for upto in sorted({1, steps})]
        print("\n".join(shown(rows[-1:], n).splitlines()[-1:]), flush=True)
    for upto in (1, STEPS):
        print(f"\n{n} problems, {'step 1' if upto == 1 else 'all four steps'}\n")
        print(shown([each for each in rows if each.steps == upto], n))
    saving, change = gated.saving, gated.accuracy_change
    if saving is not None and saving.interval is not None and change.interval is not None:
        print(
            f"\nthe gate (entropy mean, 300 labels), same problems: {100 * saving.value:.1f} %"
            f" [{100 * saving.interval[0]:.1f}, {100 * saving.interval[1]:.1f}] of the tokens of all four steps saved,"
            f" and so of the layers; {100 * gated.accuracy:.1f} % right, change {100 * change.value:+.1f}"
            f" [{100 * change.interval[0]:+.1f}, {100 * change.interval[1]:+.1f}] points"
        )
    ratios = asyncio.run(clocked(problems[: 6 if options.quick else 16], rounds=2 if options.quick else 3))
    print("\nwall-clock time relative to the whole model, one step, side by side, median of rounds")
    for name, ratio in ratios.items():
        print(f"  {name}: {ratio:.2f}")
    value = {"problems": n, "rows": [asdict(each) for each in rows], "gate": gated.to_json(), "seconds_ratio": ratios}
    write("live_rules", value)


if __name__ == "__main__":
    main()
