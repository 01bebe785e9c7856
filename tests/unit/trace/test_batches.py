"""A batch as columns gives bit for bit what its traces give, and is left to objects where it does not cover a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from justenough.errors import InputError, TraceFormatError
from justenough.evaluation.bench import Seen
from justenough.prompts import GENERAL
from justenough.rules.fitted import FITTED
from justenough.rules.looks import FirstPassage, Looks, looks_of, passage
from justenough.rules.rivals import RIVALS
from justenough.rules.rules import MissingField
from justenough.signal.pooling import POOLINGS
from justenough.signal.signal import Signal
from justenough.trace import Probe, Step, Trace, trace_digest
from justenough.trace.batches import Batch
from justenough.trace.building import columns_under
from justenough.trace.columns import Columns
from justenough.trace.files import TraceFile, items_of, read_traces, write_traces
from tests.builders import SIGNAL, step, trace

READS = list(
    dict.fromkeys(
        [read for make in RIVALS.values() if isinstance(rule := make(""), FirstPassage) for read in rule.reads]
        + [read for fitted in FITTED.values() for read in fitted.reads]
    )
)


def recorded(seed: int, *, form: str, n: int = 6) -> list[Trace]:
    """Streams whose tokens are recorded as rows, entropies or not at all; odd seeds lack some probes."""
    rng, whole = np.random.default_rng(seed), seed % 2 == 0
    signal = replace(SIGNAL, top_k=5) if form != "stand-in" else Signal(kind="stand-in", top_k=None)

    def one() -> Step:
        length = int(rng.integers(1, 40))
        logits = rng.normal(size=(length, 5)) * 3
        rows = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        fields: dict[str, object] = {}
        if form == "rows":
            fields["top_logprobs"] = tuple(map(tuple, rows.tolist()))
        if form == "entropies" and rng.random() < 0.9:
            fields["entropies"] = tuple(np.exp(rng.normal(size=length)).tolist())
        if form == "stand-in":
            fields["uncertainty"] = float(rng.random())
        if form != "rows" and rng.random() < 0.5:
            fields["entropy"] = float(rng.random())
        if rng.random() < 0.7:
            fields["logprobs"] = tuple((-rng.exponential(size=length)).tolist())
        if rng.random() < 0.7:
            fields["token_texts"] = tuple(rng.choice(["4", " so", "\\boxed{", "}", "é"], size=length).tolist())
        answer = str(rng.integers(3)) if rng.random() < 0.8 else None
        probe = Probe(
            answer=answer,
            correct=bool(rng.random() < 0.5),
            tokens=int(rng.integers(4)),
            prompt_tokens=int(rng.integers(99)) if rng.random() < 0.5 else None,
            text=f"wait {answer}" if whole or rng.random() < 0.5 else None,
            entropies=tuple(rng.random(3).tolist()) if whole or rng.random() < 0.8 else None,
            logprobs=tuple((-rng.random(3)).tolist()) if whole or rng.random() < 0.8 else None,
        )
        return Step(
            text=str(rng.choice(["Wait, it is \u00bd.", "so", ""])),
            # Another tool may record another answer than the probe's.
            answer=answer if rng.random() < 0.9 else "9",
            correct=probe.correct,
            tokens=length + int(rng.integers(3)),
            finish="stop" if rng.random() < 0.5 else None,
            model="other" if rng.random() < 0.2 else None,
            latency_s=float(rng.random()) if rng.random() < 0.5 else None,
            probe=probe if whole or rng.random() < 0.9 else None,
            **fields,  # type: ignore[arg-type]
        )

    return [
        replace(
            trace(
                *[one() for _ in range(int(rng.integers(1, 5)))],
                id=f"p{number}",
                shape="streaming",
                signal=signal,
                group=str(rng.choice(["a", "b"])) if rng.random() < 0.8 else None,
                seed=number if number % 2 else None,
            ),
            prompts=GENERAL,
            target='a "text"\n' if number % 3 else None,
        )
        for number in range(n)
    ]


def batches_of(traces: Sequence[Trace], path: Path) -> list[Batch | Trace]:
    write_traces(traces, path)
    return list(items_of(TraceFile(path)))


def equal(left: Columns, right: Columns) -> None:
    for name in Columns.__dataclass_fields__:
        one, other = getattr(left, name), getattr(right, name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            # Equal bits, and NaN in the same places.
            np.testing.assert_array_equal(one, other, err_msg=name)
        else:
            assert one == other, name


@pytest.mark.parametrize("form", ["rows", "entropies", "stand-in", "none"])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_columns_digests_and_looks_are_those_of_the_traces(form: str, seed: int, tmp_path: Path) -> None:
    traces = recorded(seed, form=form)
    [batch] = batches_of(traces, tmp_path / "t.parquet")
    assert isinstance(batch, Batch)
    assert list(map(trace_digest, batch.traces())) == list(map(trace_digest, traces))
    signals = [traces[0].signal]
    if form != "stand-in":
        signals = [replace(traces[0].signal, pooling=pooling) for pooling in POOLINGS]
        signals.append(replace(traces[0].signal, tail="bucket", top_k=3))
    for left, right in zip(columns_under([batch], signals), columns_under(traces, signals), strict=True):
        equal(left, right)
    equal(columns_under([batch], signals, measure="first")[0], columns_under(traces, signals, measure="first")[0])
    assert batch.digests() == [trace_digest(one) for one in traces]
    seen, plain = Seen(None), Seen(None)
    assert [*seen.through([batch]), *plain.through(traces)]
    assert (seen.tasks, seen.models, seen.families) == (plain.tasks, plain.models, plain.families)
    assert (seen.ignored, seen.fingerprint) == (plain.ignored, plain.fingerprint)
    one, other = looks_of([batch], READS), looks_of(traces, READS)
    for rule in (make("") for make in RIVALS.values()):
        if isinstance(rule, FirstPassage):
            assert stops(rule, one) == stops(rule, other)


def stops(rule: FirstPassage, looks: Looks) -> object:
    """Where a rule stops, or what it lacks."""
    try:
        return [row.tolist() for row in passage(rule, looks)]
    except MissingField as error:
        return error.field


@pytest.mark.parametrize(
    "odd",
    [
        replace(step(0.5), extra={"layers": 3}),
        replace(step(0.5), probe=Probe(answer="1", correct=True, tokens=1, extra={"candidates": {"1": -0.1}})),
        step(0.5, top_logprobs=[[-0.1, -3.0]]),
        step(top_logprobs=[[-0.1, -3.0], [-0.2]]),
    ],
    ids=["unknown keys", "candidates", "two kinds of entries", "rows of two widths"],
)
def test_what_columns_do_not_cover_is_read_as_traces(odd: Step, tmp_path: Path) -> None:
    traces = [trace(step(0.5), id="a"), trace(odd, id="b")]
    items = [item for item in batches_of(traces, tmp_path / "t.parquet") if isinstance(item, Trace)]
    assert list(map(trace_digest, items)) == list(map(trace_digest, traces))


def test_rows_that_are_too_narrow_for_a_signal_are_refused_as_from_traces(tmp_path: Path) -> None:
    rows = step(top_logprobs=[[-0.1, -3.0]])
    items = batches_of([trace(rows, signal=replace(SIGNAL, top_k=None))], tmp_path / "t.parquet")
    assert isinstance(items[0], Batch)
    with pytest.raises(InputError, match="a token has 2 log-probabilities, the signal takes 20"):
        columns_under(items, [SIGNAL])


def test_problems_are_left_out_of_a_batch(tmp_path: Path) -> None:
    traces = [trace(step(0.5, 0.1), id=str(number)) for number in range(4)]
    write_traces(traces, tmp_path / "t.parquet")
    file = TraceFile(tmp_path / "t.parquet").without([traces[1].hashed_id])
    [batch] = items_of(file)
    assert isinstance(batch, Batch)
    assert (batch.ids, file.passed_over) == (["0", "2", "3"], 1)
    assert [one.id for one in batch.traces()] == ["0", "2", "3"]
    nothing = TraceFile(tmp_path / "t.parquet").without([one.hashed_id for one in traces])
    assert (list(items_of(nothing)), nothing.passed_over) == ([], 4)


def test_jsonl_gives_traces(tmp_path: Path) -> None:
    traces = [trace(step(0.5, 0.1))]
    assert batches_of(traces, tmp_path / "t.jsonl") == read_traces(tmp_path / "t.jsonl").traces


def test_a_batch_of_two_models_is_refused(tmp_path: Path) -> None:
    items = batches_of([trace(step(0.5), id="a"), trace(step(0.5), id="b", model="other")], tmp_path / "t.parquet")
    assert isinstance(items[0], Batch)
    with pytest.raises(InputError, match="the traces mix model"):
        list(Seen(None).through(items))


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_traces([trace(step(0.5), id=str(number)) for number in range(3)], tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet").to_pylist()
    table[1]["shape"] = "round"
    pq.write_table(pa.Table.from_pylist(table, schema=pq.read_schema(tmp_path / "t.parquet")), tmp_path / "bad.parquet")
    with pytest.raises(TraceFormatError, match="shape is 'round'") as caught:
        list(items_of(TraceFile(tmp_path / "bad.parquet")))
    assert caught.value.line == 2
