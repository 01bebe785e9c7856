"""The columns hold what the traces hold, whatever the numbers of checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.errors import InputError
from justenough.trace import Probe, Step, Trace
from justenough.trace.building import columns_of, columns_under
from justenough.trace.columns import Columns
from tests.builders import SIGNAL, step, trace

SHORT = trace(step(0.5, answer="7"), id="a", group="hard", family="f", seed=3)
LONG = trace(
    step(0.5, 0.25, answer="8", correct=False),
    replace(step(0.1, answer="7"), latency_s=2.0, prompt_tokens=11, model="other"),
    step(answer=None, correct=None, tokens=4),
    id="b",
    shape="streaming",
)


def probed(tokens: int, probe: int | None) -> Step:
    made = step(*[0.5] * tokens)
    return made if probe is None else replace(made, probe=Probe(answer="1", correct=True, tokens=probe))


steps = st.builds(probed, st.integers(1, 4), st.none() | st.integers(0, 3))
shapes = st.sampled_from(["sequential", "streaming"])
runs = st.lists(st.tuples(st.lists(steps, min_size=1, max_size=4), shapes), min_size=1, max_size=5)


def traces_of(made: list[tuple[list[Step], str]]) -> list[Trace]:
    return [
        trace(*one, id=str(number), shape="streaming" if shape == "streaming" else "sequential")
        for number, (one, shape) in enumerate(made)
    ]


def test_every_quantity_is_flat_over_the_checkpoints() -> None:
    columns = columns_of([SHORT, LONG], SIGNAL)
    assert (len(columns), columns.steps, columns.offsets.tolist()) == (2, 3, [0, 1, 4])
    assert columns.bits.tolist()[:3] == [0.5, 0.375, 0.1]
    assert np.isnan(columns.bits[3])
    assert columns.tokens.tolist() == [1, 2, 1, 4]
    assert columns.answers.tolist() == [0, 1, 0, -1]
    assert columns.correct.tolist() == [1, 0, 1, -1]
    assert columns.unanswered.tolist() == [False, False, False, True]
    assert columns.prompt_tokens.tolist() == [-1, -1, 11, -1]
    assert np.isnan(columns.latency).tolist() == [True, True, False, True]
    assert columns.coverage.tolist()[:3] == [1.0, 1.0, 1.0]
    assert [columns.model_names[place] for place in columns.step_models] == ["model", "model", "other", "model"]


def test_what_names_a_problem_is_kept() -> None:
    columns = columns_of([SHORT, LONG])
    assert columns.ids.tolist() == ["a", "b"]
    assert columns.hashed_ids.tolist() == [SHORT.hashed_id, LONG.hashed_id]
    assert columns.seeds.tolist() == [3, -1]
    assert columns.groups.tolist() == ["hard", None]
    assert columns.strata() == ["f/hard", "/"]
    assert columns_of([LONG]).strata() is None
    assert columns.streaming.tolist() == [False, True]
    assert (columns.shape, columns_of([LONG]).shape) == ("sequential", "streaming")
    assert columns.problem_of.tolist() == [0, 1, 1, 1]


def test_the_last_checkpoint_may_be_that_of_a_shorter_run() -> None:
    columns = columns_of([SHORT, LONG])
    assert columns.first.tolist() == [0, 1]
    assert columns.last().tolist() == [0, 3]
    assert columns.last(2).tolist() == [0, 2]


@given(runs)
def test_tokens_spent_are_those_of_the_traces(made: list[tuple[list[Step], str]]) -> None:
    recorded = traces_of(made)
    spent = columns_of(recorded).spent()
    for row, was in zip(spent.tolist(), recorded, strict=True):
        assert row == [was.tokens_to(min(number, len(was.steps))) for number in range(1, len(row) + 1)]


@given(runs, st.integers(0, 2**16))
def test_rows_are_the_columns_of_those_traces(made: list[tuple[list[Step], str]], seed: int) -> None:
    recorded = traces_of(made)
    order = np.random.default_rng(seed).integers(len(recorded), size=len(recorded) + 1)
    same(columns_of(recorded, SIGNAL).rows(order), columns_of([recorded[row] for row in order], SIGNAL))
    chosen = np.arange(len(recorded)) % 2 == 0
    same(columns_of(recorded, SIGNAL).rows(chosen), columns_of(recorded[::2], SIGNAL))


def same(left: Columns, right: Columns) -> None:
    for name in ("offsets", "bits", "tokens", "probe_tokens", "correct", "ids", "streaming", "seeds"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def test_a_dense_view_may_be_wider_or_narrower_than_the_longest_problem() -> None:
    columns = columns_of([SHORT, LONG])
    assert columns.padded(columns.tokens, steps=4).tolist() == [[1, 1, 1, 1], [2, 1, 4, 4]]
    assert columns.summed(columns.tokens, steps=4).tolist() == [[1, 1, 1, 1], [2, 3, 7, 7]]
    assert columns.padded(columns.tokens, steps=2).tolist() == [[1, 1], [2, 1]]
    assert columns.recorded(steps=2).tolist() == [[True, False], [True, True]]
    assert np.isnan(columns.padded_bits()).tolist() == [[False, True, True], [False, False, True]]


def test_several_signals_share_one_pass() -> None:
    passes = 0

    def once() -> Iterator[Trace]:
        nonlocal passes
        passes += 1
        yield from (SHORT, LONG)

    last = replace(SIGNAL, pooling="maximum")
    mean, largest = columns_under(once(), [SIGNAL, last])
    assert passes == 1
    assert (mean.bits[1], largest.bits[1]) == (0.375, 0.5)
    assert largest.signal == last
    assert largest.tokens is mean.tokens


def test_first_steps_alone_may_be_measured() -> None:
    first = columns_of([LONG], measure="first")
    assert np.isnan(first.bits).tolist() == [False, True, True]
    assert first.correct.tolist() == [0, 1, -1]


def test_what_a_pooling_lacks_is_named() -> None:
    answer = replace(SIGNAL, pooling="answer-span")
    assert columns_of([SHORT], SIGNAL).lacking is None
    assert columns_of([SHORT], answer).lacking is not None
    assert columns_of([SHORT]).per_token
    assert not columns_of([SHORT, trace(step(entropy=0.5))]).per_token


def test_an_ungraded_answer_is_named_with_its_step() -> None:
    columns_of([SHORT, LONG]).require_graded()
    ungraded = replace(LONG, id="c", steps=(*LONG.steps, step(0.1, answer="9", correct=None)))
    columns = columns_of([SHORT, ungraded])
    assert columns.graded.tolist() == [True, True, True, True, False]
    with pytest.raises(InputError, match="c: step 4 has an answer that is not graded"):
        columns.require_graded()


def test_no_trace_is_an_error() -> None:
    with pytest.raises(InputError, match="there is no trace"):
        columns_of([])
