"""A file that is read in batches gives exactly the figures of its traces in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from justenough.calibration.calibration import calibrate
from justenough.errors import InputError
from justenough.evaluation import evaluate, table_of
from justenough.evaluation.bench import Bench
from justenough.evaluation.figures import figures_of, outcomes
from justenough.gate import GateSettings
from justenough.report import write_report
from justenough.rules.rules import EntropyGate
from justenough.trace import Probe, Step, Trace, parquet
from justenough.trace.files import TraceFile, read_traces, write_traces
from tests.builders import SIGNAL, population, trace
from tests.reports import few_draws


def recorded(n: int, *, seed: int = 0) -> list[Trace]:
    """Streaming traces with top-20 log-probabilities, and probes that every rival can look at."""
    rng = np.random.default_rng(seed)
    subject: list[Trace] = []
    for number in range(n):
        sure = rng.random()
        steps: list[Step] = []
        for at in range(int(rng.integers(1, 5))):
            right = bool(rng.random() < 0.3 + 0.6 * sure)
            logits = np.sort(rng.normal(size=(int(rng.integers(1, 9)), 20)) * (1 + 4 * sure))[:, ::-1]
            rows = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            bits, logs = rng.random(2) * (1 - sure), np.log(0.5 + rng.random(2) / 2)
            probe = Probe(
                answer="1" if right else "2",
                correct=right,
                tokens=2,
                text="so 1" if right else "wait 2",
                entropies=tuple(bits.tolist()),
                logprobs=tuple(logs.tolist()),
            )
            steps.append(
                Step(
                    text=f"step {at}",
                    answer=probe.answer,
                    correct=right,
                    tokens=len(rows),
                    top_logprobs=tuple(map(tuple, rows.tolist())),
                    latency_s=float(rng.random()),
                    probe=probe,
                )
            )
        subject.append(
            trace(*steps, id=str(number), shape="streaming", family=f"f{number % 3}", group=f"g{number % 2}")
        )
    return subject


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streamed") / "traces.parquet"
    write_traces(recorded(240), path)
    return path


def test_every_figure_is_that_of_the_traces_in_memory(file: Path) -> None:
    in_memory = read_traces(file).traces
    alike = (TraceFile(file), in_memory)
    first, second = (evaluate(traces, draws=5, resamples=50).to_json() for traces in alike)
    assert first == second
    subject = calibrate(in_memory, n=60, force=True)
    rules = "oracle,deer,entropy-mean"
    streamed, other = (
        evaluate(traces, calibration=subject, draws=2, decide="every", rules=rules, resamples=50) for traces in alike
    )
    assert streamed.to_json() == other.to_json()
    assert streamed.left_out == 60
    assert isinstance(first["rules"], dict)
    assert {"recommended", "halt-cot:0.6:2", "dynasor:3"} <= first["rules"].keys()


@pytest.mark.parametrize("pooling", [None, "maximum", "combination"])
def test_a_calibration_is_the_same_from_a_file_and_from_memory(file: Path, pooling: str | None) -> None:
    in_memory = read_traces(file).traces
    subject = calibrate(TraceFile(file), n=220, seed=1, pooling=pooling, force=True)
    assert subject == calibrate(in_memory, n=220, seed=1, pooling=pooling, force=True)
    assert subject.n == (110 if pooling == "combination" else 220)


def test_a_report_is_the_same_from_a_file_and_from_memory(file: Path, tmp_path: Path) -> None:
    in_memory = read_traces(file).traces
    subject = calibrate(in_memory, n=60, force=True)
    for traces, name in ((in_memory, "in_memory"), (TraceFile(file), "streamed")):
        evaluation = evaluate(traces, calibration=subject, draws=2, rules="all-steps,oracle", resamples=50)
        with few_draws():
            write_report(evaluation, traces, tmp_path / f"{name}.html", calibration=subject, command="")
    assert (tmp_path / "in_memory.html").read_bytes() == (tmp_path / "streamed.html").read_bytes()
    other = evaluate(population(30), draws=2, rules="oracle")
    with pytest.raises(InputError, match="not the traces"):
        write_report(other, TraceFile(file), tmp_path / "other.html", calibration=None, command="")


def test_a_file_is_read_in_small_parts(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grouped.parquet"
    pq.write_table(pq.read_table(file), path, row_group_size=8)
    monkeypatch.setattr(parquet, "_BATCH", 8)
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in TraceFile(path))
    assert 0 < most < path.stat().st_size / 4


def test_a_calibration_on_all_problems_of_a_file_leaves_none(file: Path) -> None:
    subject = calibrate(read_traces(file).traces, force=True)
    with pytest.raises(InputError, match="all 240 problems"):
        evaluate(TraceFile(file), calibration=subject)


def test_the_gate_of_a_bench_is_the_gate_itself(file: Path) -> None:
    in_memory = read_traces(file).traces
    bench = Bench(TraceFile(file), in_memory[0].signal, decide="every", seed=0)
    for settings in (
        replace(bench.settings, threshold=2.0, patience=2),
        replace(bench.settings, threshold=2.5, decide="first"),
        replace(bench.settings, threshold=1.5, min_tokens=9),
    ):
        stopped = [EntropyGate("gate", settings).replay(subject) for subject in in_memory]
        done = bench.gate(settings)
        assert done.tokens.tolist() == [row.tokens for row in stopped]
        assert done.correct.tolist() == [row.correct for row in stopped]
        assert done.early.tolist() == [row.early for row in stopped]


def test_figures_of_many_rules_are_those_of_each() -> None:
    table = table_of(population(80), SIGNAL)
    settings = GateSettings(signal=SIGNAL, max_steps=2)
    done = {str(at): outcomes(table, table.stops(replace(settings, threshold=at))) for at in (0.2, 0.4, 0.8)}
    done["mean"] = replace(done["0.4"], averaged=True)
    many = figures_of(table, done, margin=0.01, seed=3, resamples=50)
    for name, one in done.items():
        alone = figures_of(table, {name: one}, margin=0.01, seed=3, resamples=50)[name]
        assert many[name].accuracy_change == pytest.approx(alone.accuracy_change)
        assert many[name].saving == pytest.approx(alone.saving)
        assert many[name].harm == pytest.approx(alone.harm)
        assert many[name].mcnemar_p == alone.mcnemar_p
