"""The vectorised decision equals the gate's own on any traces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.errors import InputError
from justenough.evaluation import Price, table_of
from justenough.gate import GateSettings, replay
from justenough.trace import Step, Trace
from tests.builders import SIGNAL, step, trace

bits = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
steps = st.builds(
    lambda entropies, correct, extra: step(*entropies, correct=correct, tokens=len(entropies) + extra),
    st.lists(bits, min_size=0, max_size=4),
    st.booleans(),
    st.sampled_from([0, 0, 0, 1]),
).filter(lambda parts: parts.tokens > 0)


@given(
    traces=st.lists(st.lists(steps, min_size=1, max_size=4), min_size=1, max_size=6),
    threshold=st.one_of(st.none(), bits),
    every=st.booleans(),
    patience=st.integers(1, 3),
    min_tokens=st.integers(0, 8),
    max_steps=st.integers(1, 5),
)
def test_stops_where_the_gate_stops(
    traces: list[list[Step]], threshold: float | None, every: bool, patience: int, min_tokens: int, max_steps: int
) -> None:
    recorded = [trace(*parts, id=str(number)) for number, parts in enumerate(traces)]
    settings = GateSettings(
        threshold=threshold,
        signal=SIGNAL,
        decide="every" if every else "first",
        max_steps=max_steps,
        min_tokens=min_tokens,
        patience=patience if every else 1,
    )
    table = table_of(recorded, SIGNAL)
    columns = table.stops(settings)
    for column, was in zip(columns, recorded, strict=True):
        # A trace with fewer steps repeats its last one in the table.
        assert min(int(column), len(was.steps) - 1) == replay(was, settings)[-1].step - 1
    if threshold is not None:
        harms, rescues = table.checkpoints(settings).counts(np.array([threshold]))
        stopped = table.correct[np.arange(len(table)), columns]
        final = table.correct[:, min(max_steps, table.steps) - 1]
        assert harms.tolist() == [(~stopped & final).sum()]
        assert rescues.tolist() == [(stopped & ~final).sum()]


def test_a_short_trace_repeats_its_last_step() -> None:
    table = table_of([trace(step(0.5, correct=False)), trace(step(0.5), step(0.1, 0.1), id="b")], SIGNAL)
    assert table.spent.tolist() == [[1, 1], [1, 3]]
    assert table.correct.tolist() == [[False, False], [True, True]]
    assert np.isnan(table.bits[0, 1])


def test_an_answer_that_is_not_graded_is_refused() -> None:
    with pytest.raises(InputError, match="not graded"):
        table_of([trace(step(0.5, correct=None, answer="4"))], SIGNAL)
    assert table_of([trace(step(0.5, correct=None, answer=None))], SIGNAL).unanswered.all()


def test_rows_keep_their_groups() -> None:
    parts: list[Trace] = [trace(step(0.5), id=str(number), group=f"g{number}") for number in range(4)]
    table = table_of(parts, SIGNAL)
    assert table.rows(np.array([2, 0])).groups is not None
    assert table.rows(np.array([False, True, False, True])).bits.shape == (2, 1)


def test_rows_keep_costs_and_latency() -> None:
    parts = [
        trace(*(replace(step(0.5), prompt_tokens=10 * n, latency_s=float(n)) for _ in range(2)), id=f"p{n}")
        for n in range(1, 4)
    ]
    table = table_of(parts, SIGNAL, prices={"model": Price(1.0, 2.0)})
    chosen = np.array([2, 0])
    part = table.rows(chosen)
    assert part.latency is not None
    assert part.latency.tolist() == [[3.0, 6.0], [1.0, 2.0]]
    assert part.costs is not None
    assert table.costs is not None
    assert part.costs.money.tolist() == table.costs.money[chosen].tolist()
    assert part.costs.last.tolist() == pytest.approx([32 / 1e6, 12 / 1e6])
    assert part.costs.output.tolist() == [2 / 1e6] * 2
    assert part.costs.looks.tolist() == [[0.0, 0.0]] * 2
