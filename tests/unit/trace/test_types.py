from dataclasses import replace

import pytest

from justenough.errors import LogprobsError
from justenough.signal.signal import Signal
from justenough.trace import Probe, Token
from tests.builders import step, trace

ROW = [-0.1, -3.0, -5.0]
SHORT = Signal(top_k=3)


@pytest.mark.parametrize("signal", [SHORT, Signal(top_k=3, tail="bucket"), Signal(top_k=None)])
def test_a_step_has_the_bits_of_its_tokens(signal: Signal) -> None:
    recorded = step(top_logprobs=[ROW, [*ROW, -6.0], [*ROW, -6.0, -6.0, -7.0, -8.0, -8.5, -9.0, -9.5]])
    assert recorded.top_logprobs is not None
    fed = tuple(Token(text="", top_logprobs=row).bits(signal) for row in recorded.top_logprobs)
    assert recorded.token_bits(signal) == fed


def test_fewer_entries_than_the_signal_takes_are_an_error_that_names_the_option() -> None:
    with pytest.raises(LogprobsError, match="top_logprobs=20"):
        step(top_logprobs=[ROW]).bits(Signal(top_k=20))
    with pytest.raises(LogprobsError, match="max-logprobs"):
        Token(text="x", top_logprobs=tuple(ROW)).bits(Signal(top_k=20))


def test_the_richest_form_of_the_signal_counts_and_none_is_none() -> None:
    signal = Signal()
    assert step(0.2, 0.4).bits(signal) == pytest.approx(0.3)
    assert step(entropy=0.31).bits(signal) == 0.31
    assert step(entropy=0.31).bits(replace(signal, pooling="sum")) is None
    assert step(entropy=0.31).coverage() is None
    assert step().bits(signal) is None


def test_bits_of_one_kind_are_not_offered_for_another() -> None:
    stand_in = Signal(kind="surprisal", top_k=None)
    assert step(0.2, uncertainty=7.0).bits(stand_in) == 7.0
    assert step(0.2).bits(stand_in) is None
    assert Token(text="x", entropy=0.2).bits(stand_in) is None
    assert step(0.2, uncertainty=7.0).bits(Signal()) == pytest.approx(0.2)


def test_tokens_are_those_really_generated_up_to_a_step() -> None:
    probed = [replace(step(0.1, tokens=tokens), probe=Probe(answer="1", correct=True, tokens=9)) for tokens in (10, 20)]
    assert [trace(*probed, shape="streaming").tokens_to(count) for count in (1, 2)] == [19, 39]
    assert [trace(*probed, shape="sequential").tokens_to(count) for count in (1, 2)] == [19, 48]
    assert trace(*probed, shape="streaming").tokens == 39


def test_ids_are_hashed_with_their_task() -> None:
    first = trace(id="a")
    assert first.hashed_id != replace(first, task="other").hashed_id
    assert len(first.hashed_id) == 16
