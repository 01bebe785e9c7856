"""The meter of a step: what it measures, when a step ends, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from justenough.errors import LogprobsError
from justenough.signal.signal import Signal
from justenough.trace import Token
from justenough.trace.meter import BLOCK, StepMeter

SURE = (-0.01, -5.0, -6.0)
SIGNAL = Signal(top_k=3)


def test_an_empty_step_has_no_bits() -> None:
    assert StepMeter(SIGNAL).end() == (None, 0, 0.0)


def test_each_step_starts_anew() -> None:
    meter = StepMeter(Signal())
    meter.measure(Token("a", entropy=0.25))
    assert meter.end() == (0.25, 1, 1.0)
    meter.measure(Token("b", entropy=0.75))
    assert meter.running_entropy == 0.75
    assert meter.end(tokens=4) == (0.75, 4, 0.25)


def test_only_streaming_steps_end_at_a_boundary() -> None:
    for shape, ends in (("sequential", False), ("streaming", True)):
        meter = StepMeter(Signal(splitter="tokens:1"), shape="streaming" if shape == "streaming" else "sequential")
        assert meter.hear(Token("a", entropy=0.1)) is ends


def test_a_refused_token_is_not_added() -> None:
    meter = StepMeter(SIGNAL)
    with pytest.raises(LogprobsError, match="has 2 log-probabilities"):
        meter.measure(Token("a", top_logprobs=SURE[:2]))
    assert meter.tokens == 0


def test_tokens_that_wait_are_measured_before_the_step_ends() -> None:
    one_by_one, together = StepMeter(SIGNAL), StepMeter(SIGNAL)
    for _ in range(BLOCK + 3):
        one_by_one.measure(Token("a", top_logprobs=SURE))
    assert together.measure_block(np.array([SURE] * (BLOCK + 3)))
    assert one_by_one.end() == together.end()


def test_a_block_is_refused_if_the_pooling_needs_texts() -> None:
    meter = StepMeter(Signal(top_k=3, pooling="surprisal"))
    assert not meter.measure_block(np.array([SURE]))
    assert meter.tokens == 0


def test_discarded_tokens_count_but_do_not_lower_the_coverage() -> None:
    meter = StepMeter(Signal())
    meter.measure(Token("a", entropy=0.5, discarded=3))
    assert meter.end() == (0.5, 4, 1.0)
