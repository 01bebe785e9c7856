"""Replay at scale: `python -m benchmarks.scale [--stages] [STEPS ...]`, by default at 10⁴, 10⁵ and 10⁶ steps.

It generates traces as a streaming run records them, in a temporary folder: problems with 4 segments of a thought (8 to
64 tokens each, 24 on average, the length of a short paragraph), with top-20 log-probabilities of every token in
float32, as servers send them, and an elicited answer of 4 tokens after each segment. A new process for each size, with
its own peak memory, then measures the whole of `justenough evaluate` (all rules, 200 calibration draws, 2,000 resamples
for every interval). With `--stages` it first measures reading alone; reading with the entropy of every token and the
data's fingerprint; and the whole of `justenough calibrate`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.timing import write
from justenough.calibration.calibration import calibrate
from justenough.evaluation import evaluate
from justenough.evaluation.bench import Bench
from justenough.trace.files import TraceFile, first_of
from justenough.trace.writing import parquet_writer, trace_schema

SIZES: Final = (10_000, 100_000, 1_000_000)
STEPS: Final = 4
TOP_K: Final = 20
PROBE: Final = 4
GROUP: Final = 1000
"""Problems in a row group."""
WORDS: Final = "so the sum of the first two terms is then carried over to the next line and checked against the claim; "

Floats = NDArray[np.float64]


def lists(offsets: NDArray[np.int64], values: pa.Array) -> pa.ListArray:
    """An array of lists from their offsets and values."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def log_probabilities(rng: np.random.Generator, gaps: Floats) -> Floats:
    """Log-probabilities (T, 20) that hold all of the mass; a row with a larger gap is sharper."""
    falls = rng.standard_exponential((len(gaps), TOP_K), dtype=np.float32) * gaps[:, None].astype(np.float32)
    falls[:, 0] = 0
    logits = -np.cumsum(falls, axis=1)
    rows: Floats = np.minimum(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), 0).astype(np.float64)
    return rows


def problems(rng: np.random.Generator, first: int, count: int) -> pa.Table:
    """A row group of problems; easier problems have sharper tokens and more right answers."""
    steps = count * STEPS
    ease = np.repeat(rng.normal(size=count), STEPS) + np.tile(0.2 * np.arange(STEPS), count)
    lengths = np.clip(np.exp(rng.normal(np.log(22.5), 0.35, steps)), 8, 64).astype(np.int64)
    tokens = np.concatenate(([0], np.cumsum(lengths)))
    gaps = np.exp(np.repeat(1.0 + 0.5 * ease, lengths) + rng.normal(size=tokens[-1]))
    rows = log_probabilities(rng, gaps)
    right = rng.random(steps) < 1 / (1 + np.exp(-0.5 - 1.5 * ease))
    answers = np.where(right, "204", np.where(rng.random(steps) < 0.5, "198", "17"))
    texts = [(WORDS * 3)[: 4 * length] for length in lengths]
    probed = np.arange(steps + 1) * PROBE
    bits = np.abs(rng.normal(size=steps * PROBE)) * np.repeat(np.exp(-ease), PROBE) / 4
    kinds = trace_schema()
    step_kind = kinds.field("steps").type.value_type
    probe = {
        "answer": answers,
        "correct": right,
        "tokens": np.full(steps, PROBE),
        "text": np.char.add(np.where(rng.random(steps) < 0.1, "wait, ", ""), answers),
        "entropies": lists(probed, pa.array(bits)),
        "logprobs": lists(probed, pa.array(-bits / 3)),
    }
    step = {
        "text": texts,
        "answer": answers,
        "correct": right,
        "tokens": lengths,
        "latency_s": lengths * 0.02,
        "probe": struct(step_kind.field("probe").type, probe, steps),
        "top_logprobs": lists(tokens, lists(np.arange(tokens[-1] + 1) * TOP_K, pa.array(rows.ravel()))),
    }
    signal = {"kind": "entropy", "top_k": TOP_K, "tail": "renormalise", "pooling": "mean", "splitter": "paragraph"}
    whole = {
        "id": [f"p{number}" for number in range(first, first + count)],
        "task": ["synthetic"] * count,
        "family": [f"family-{number % 5}" for number in range(count)],
        "group": [f"level-{number}" for number in np.digitize(ease[::STEPS], (-1.0, 0.0, 1.0))],
        "model": ["synthetic"] * count,
        "shape": ["streaming"] * count,
        "signal": pa.array([signal | {"logits": "raw", "temperature": 0.6}] * count, kinds.field("signal").type),
        "steps": lists(np.arange(count + 1) * STEPS, struct(step_kind, step, steps)),
    }
    columns = [filled(whole.get(field.name), field.type, count) for field in kinds]
    return pa.Table.from_arrays(columns, schema=kinds)


def struct(kind: pa.StructType, values: dict[str, object], rows: int) -> pa.StructArray:
    """An array of structs; fields that are not given are null."""
    children = [filled(values.get(field.name), field.type, rows) for field in kind]
    return pa.StructArray.from_arrays(children, fields=list(kind))


def filled(values: object, kind: pa.DataType, rows: int) -> pa.Array:
    """An array of that type, or of nulls."""
    if values is None:
        return pa.nulls(rows, kind)
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)


def make(path: Path, steps: int, *, seed: int = 0) -> None:
    """Write a file with this number of steps, one row group after the other."""
    rng = np.random.default_rng(seed)
    total = steps // STEPS
    with parquet_writer(path) as writer:
        for first in range(0, total, GROUP):
            writer.write_table(problems(rng, first, min(GROUP, total - first)))


def measure(path: Path, stages: Sequence[str]) -> dict[str, float]:
    """Seconds of each stage in this process, and its peak memory."""
    figures: dict[str, float] = {}
    file = TraceFile(path)
    works: dict[str, Callable[[], object]] = {
        "read": lambda: sum(len(trace.steps) for trace in file),
        "entropy": lambda: Bench(file, first_of(file).signal, decide="first", seed=0),
        # The generated traces separate too weakly within groups for a gate, but the time is the same with `force`.
        "calibrate": lambda: calibrate(file, force=True),
        "evaluate": lambda: evaluate(file),
    }
    for name in stages:
        wall, busy = time.perf_counter(), time.process_time()
        works[name]()
        figures[name], figures[f"{name}_cpu"] = time.perf_counter() - wall, time.process_time() - busy
    return figures | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def fresh(path: Path, stages: Sequence[str]) -> dict[str, float]:
    """Run `measure` in a new process."""
    command = [sys.executable, "-m", "benchmarks.scale", "--measure", str(path), *stages]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


STAGES: Final = ("read", "entropy", "calibrate", "evaluate")


def main() -> None:
    """Measure the sizes one after the other."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), sys.argv[3:])))
        return
    stages = STAGES if "--stages" in sys.argv[1:] else ("evaluate",)
    results: list[dict[str, float]] = []
    print(f"{'steps':>9} {'file':>8}" + "".join(f"{stage:>40}" for stage in stages) + f"{'peak':>11}")
    for steps in [int(text) for text in sys.argv[1:] if text.isdigit()] or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "traces.parquet"
            make(path, steps)
            figures = fresh(path, stages) | {"steps": steps, "file_mb": path.stat().st_size / 1e6}
        results.append(figures)
        cells = [
            f"  wall {figures[stage]:7.1f} s, cpu {cpu:6.1f} s {1e6 * cpu / steps:6.0f} µs"
            for stage in stages
            for cpu in [figures[stage + "_cpu"]]
        ]
        print(f"{steps:9,} {figures['file_mb']:5.0f} MB{''.join(cells)}{figures['peak_mb']:8.0f} MB", flush=True)
    print("µs of processor time per step. All stages include reading the file. The peak is that of the process.")
    write("scale", {"sizes": results})


if __name__ == "__main__":
    main()
