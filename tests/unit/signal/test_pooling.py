"""The poolings: their values, where the answer is, and what a step lacks for them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.errors import LogprobsError
from justenough.signal.answers import answer_span
from justenough.signal.pooling import POOLINGS, Measured, pool
from justenough.signal.signal import Signal
from tests.builders import step


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("mean", 50.5),
        ("last-quarter", (76 + 100) / 2),
        ("worst-window", (85 + 100) / 2),
        ("90th-percentile", 90.1),
        ("maximum", 100.0),
        ("sum", 5050.0),
    ],
)
def test_poolings_of_a_ramp(pooling: str, expected: float) -> None:
    ramp = [float(number) for number in range(1, 101)]
    assert pool(Measured(ramp), pooling) == pytest.approx(expected)


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_one_token_is_its_own_pool_and_none_has_no_pool(pooling: str) -> None:
    one = Measured([0.7], logprobs=[-0.7 * math.log(2)], texts=["Answer: 7"])
    assert pool(one, pooling) == pytest.approx(0.7)
    with pytest.raises(LogprobsError):
        pool(Measured([]), pooling)


@settings(deadline=None)
@given(st.lists(st.floats(0, 4.4), min_size=1, max_size=90))
def test_the_90th_percentile_is_numpys_to_the_last_bit(bits: list[float]) -> None:
    assert pool(Measured(bits), "90th-percentile") == float(np.quantile(bits, 0.9))


def test_the_worst_window_is_found_wherever_it_is() -> None:
    assert pool(Measured([0.1] * 30 + [1.0] * 16 + [0.1] * 30), "worst-window") == 1.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>1+1=2</think>Answer: 2", "2"),
        ("<think>Answer: 3?</think>So it is 2.", "So it is 2"),
        ("I think the answer is 42", "42"),
        (r"</think>\boxed{7} and Answer: 8", "8"),
        (r"</think>Answer: 8, so \boxed{7}", "7"),
        ("<think>so</think>It is small. **Final answer:** 42\nThank you", "42"),
        ("Reasoning first.\nanswer : 7 apples \n", "7 apples"),
        (r"Thus \boxed{\frac{1}{2}} holds.", r"\frac{1}{2}"),
        (r"</think>It is \boxed{4", r"It is \boxed{4"),
        ("no thought was closed and no answer cued", None),
        ("<think>so</think>", None),
        ("<think>so</think>Answer:  ", None),
        ("", None),
    ],
)
def test_where_the_answer_stands(text: str, answer: str | None) -> None:
    span = answer_span(text)
    assert (None if span is None else text[slice(*span)]) == answer
    # What was elicited as an answer is one from its beginning.
    assert answer_span("42", elicited=True) == (0, 2)


def test_the_answer_span_is_of_the_answer_s_own_tokens() -> None:
    texts = ["<think>", "9", "</think>", "Answer", ":", " 4", "2", "\n"]
    bits = [1.0, 2.0, 3.0, 4.0, 5.0, 0.5, 0.25, 9.0]
    assert pool(Measured(bits, texts=texts), "answer-span") == 0.375
    # Without any text, or with a text for some of the tokens only, it cannot be told.
    for others in (None, texts[:-1]):
        assert pool(Measured(bits, texts=others), "answer-span") is None
    assert pool(Measured([1.0], texts=["thinking"]), "answer-span") is None


def test_surprisal_is_of_the_tokens_chosen_in_bits() -> None:
    logs = [math.log(0.5), math.log(0.125)]
    assert pool(Measured([9.0, 9.0], logprobs=logs), "surprisal") == pytest.approx(2.0)
    assert pool(Measured([9.0, 9.0], logprobs=logs[:1]), "surprisal") is None
    # A token without any probability has no surprisal; JSON's null stands for it.
    assert pool(Measured([9.0, 9.0], logprobs=[-1.0, -math.inf]), "surprisal") is None


def test_what_a_pooling_lacks_is_named() -> None:
    bare = step(0.5, 0.5)
    assert bare.lacks(Signal(pooling="surprisal")) == "logprobs"
    assert bare.lacks(Signal(pooling="answer-span")) == "token_texts"
    assert bare.lacks(Signal()) is None
    # The texts are there, and no answer in them: nothing is missing, there is just no such number.
    assert replace(bare, token_texts=("a", "b")).lacks(Signal(pooling="answer-span")) is None
