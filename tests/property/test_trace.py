import math
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.errors import JustEnoughError
from justenough.evaluation.table import tables_of
from justenough.rules.rivals import RIVALS
from justenough.rules.rules import AllSteps, FixedBudget, FixedSteps, Oracle, Rule
from justenough.signal.combination import Combination
from justenough.signal.entropy import TAILS
from justenough.signal.pooling import POOLINGS
from justenough.signal.signal import Signal
from justenough.trace import Json, Probe, Step, Trace, data_fingerprint, trace_to_json
from justenough.trace.exchange import MOST_SECONDS, MOST_UNCERTAINTY
from justenough.trace.files import TraceFile, Traces, first_of, read_traces, write_traces

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
maybe_texts = st.none() | texts
finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**63 - 1)
bits = st.none() | st.lists(st.floats(0, 1000), max_size=4).map(tuple)
logs = st.floats(max_value=0, allow_nan=False)
rows = st.lists(logs, min_size=1, max_size=4).filter(lambda row: max(row) > -math.inf).map(tuple)
json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)


def unknown(known: Mapping[str, object]) -> st.SearchStrategy[Mapping[str, Json]]:
    """Keys that are not ours, among them one named as the column that holds them."""
    keys = (texts | st.just("extra")).filter(lambda key: key == "extra" or key not in known)
    return st.dictionaries(keys, json_values, max_size=3)


probes = st.builds(
    Probe,
    answer=maybe_texts,
    correct=st.none() | st.booleans(),
    tokens=counts,
    prompt_tokens=st.none() | counts,
    text=maybe_texts,
    entropies=bits,
    token_texts=st.none() | st.lists(texts, max_size=3).map(tuple),
    extra=unknown(Probe.__dataclass_fields__),
)
steps = st.builds(
    Step,
    text=texts,
    answer=maybe_texts,
    correct=st.none() | st.booleans(),
    tokens=counts,
    finish=maybe_texts,
    model=maybe_texts,
    prompt_tokens=st.none() | counts,
    latency_s=st.none() | st.floats(0, MOST_SECONDS),
    probe=st.none() | probes,
    entropies=bits,
    top_logprobs=st.none() | st.lists(rows, max_size=3).map(tuple),
    entropy=st.none() | st.floats(0, 1000),
    uncertainty=st.none() | st.floats(-MOST_UNCERTAINTY, MOST_UNCERTAINTY),
    logprobs=st.none() | st.lists(logs, max_size=3).map(tuple),
    token_texts=st.none() | st.lists(texts, max_size=3).map(tuple),
    confidences=bits,
    extra=unknown(Step.__dataclass_fields__),
)
signals = st.builds(
    Signal,
    kind=st.sampled_from(["entropy", "length", "surprisal"]),
    top_k=st.none() | st.integers(1, 100),
    tail=st.sampled_from(TAILS),
    pooling=st.sampled_from(sorted(POOLINGS)),
    splitter=st.sampled_from(["completion", "tokens:8"]),
    logits=st.sampled_from(["raw", "processed", "unknown"]),
    temperature=st.none() | st.floats(0, 2),
)
FITTED = Combination(
    inputs=("mean", "length"), centre=(0.1, 2.0), scale=(1.0, 0.5), weights=(1.5, -0.25), intercept=-1.0, n=200
)
signals = signals | signals.map(lambda one: replace(one, pooling="combination", combination=FITTED))
traces = st.builds(
    Trace,
    id=texts.filter(bool),
    model=texts,
    steps=st.lists(steps, min_size=1, max_size=3).map(tuple),
    task=texts,
    family=maybe_texts,
    group=maybe_texts,
    shape=st.sampled_from(["sequential", "streaming"]),
    problem=maybe_texts,
    target=maybe_texts,
    seed=st.none() | counts,
    settings=maybe_texts,
    signal=signals,
    signal_extra=unknown(Signal.__dataclass_fields__),
    extra=unknown(Trace.__dataclass_fields__),
)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@given(recorded=st.lists(traces, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_trace_survives_a_file_without_loss(ending: str, recorded: list[Trace]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"traces.{ending}"
        write_traces(recorded, path)
        read = read_traces(path).traces
    assert read == recorded
    assert data_fingerprint(read) == data_fingerprint(recorded)


def measured(step: Step, signal: Signal) -> object:
    """The step's bits, or how they are refused."""
    try:
        return step.usable_bits(signal), None if (bits := step.token_bits(signal)) is None else list(bits)
    except JustEnoughError as error:
        return str(error)


def tabled(traces: Traces) -> object:
    """The table under each pooling, or why there is none."""
    try:
        base = first_of(traces).signal
        made = tables_of(traces, [replace(base, pooling=pooling, combination=None) for pooling in POOLINGS])
    except JustEnoughError as error:
        return str(error)
    return [
        (
            table.bits.tobytes(),
            *(column.tolist() for column in (table.spent, table.generated, table.last_only)),
            *(column.tolist() for column in (table.correct, table.unanswered)),
            None if table.latency is None else table.latency.tobytes(),
            (table.groups, table.per_token, table.measurable),
        )
        for table in made
    ]


RULES: list[Rule] = [AllSteps(), FixedSteps(2), FixedBudget(3), Oracle("every")]
RULES += [make("") for make in RIVALS.values()]


def stopped(rule: Rule, trace: Trace) -> object:
    """Where the rule stops, or why it cannot be replayed."""
    try:
        return rule.replay(trace)
    except JustEnoughError as error:
        return str(error)


plain = st.builds(
    replace,
    traces,
    steps=st.lists(
        st.builds(
            replace,
            steps,
            extra=st.just({}),
            probe=st.none() | st.builds(replace, probes, extra=st.just({})),
            top_logprobs=st.none()
            | st.lists(st.lists(logs.filter(lambda x: x > -800), min_size=3, max_size=3).map(tuple), max_size=4).map(
                tuple
            ),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
)
"""Traces whose batches are read as columns: rows of one width, and no unknown keys."""


@given(recorded=st.lists(st.one_of(traces, plain), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_a_file_gone_through_in_batches_holds_the_same_traces_and_the_same_bits(recorded: list[Trace]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traces.parquet"
        write_traces(recorded, path)
        read = read_traces(path).traces
        streamed = TraceFile(path)
        # As often as wanted.
        for _ in range(2):
            columns = list(streamed)
            assert [trace_to_json(trace) for trace in columns] == [trace_to_json(trace) for trace in read]
        assert data_fingerprint(streamed) == data_fingerprint(read)
        left = list(streamed.without({read[0].hashed_id}))
        assert [trace.id for trace in left] == [trace.id for trace in read if trace.hashed_id != read[0].hashed_id]
        assert tabled(streamed) == tabled(read)
    for one, other in zip(columns, read, strict=True):
        for rule in RULES:
            assert stopped(rule, one) == stopped(rule, other)
        for of_column, of_object in zip(one.steps, other.steps, strict=True):
            assert measured(of_column, one.signal) == measured(of_object, other.signal)
