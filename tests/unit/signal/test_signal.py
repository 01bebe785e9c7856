import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.errors import InputError, LogprobsError, SignalMismatch
from justenough.gate import GateSettings, decisions
from justenough.signal.answers import answer_span
from justenough.signal.pooling import POOLINGS, Measured, pool
from justenough.signal.signal import MIN_COVERAGE, Signal, coverage
from justenough.trace import Step
from tests.builders import SIGNAL, step


def test_a_differing_signal_is_refused_by_what_differs() -> None:
    signal = Signal(top_k=20)
    signal.require(Signal(top_k=20), what="the steps")
    for other in (
        Signal(top_k=5),
        Signal(tail="bucket"),
        Signal(pooling="sum"),
        Signal(splitter="paragraph"),
        Signal(logits="raw"),
        Signal(temperature=0.6),
        Signal(kind="surprisal", top_k=None),
    ):
        assert signal.differences(other)
        with pytest.raises(SignalMismatch, match="the steps were measured differently"):
            signal.require(other, what="the steps")
    assert signal.differences(Signal(top_k=5)) == ("top_k 20 is not 5",)


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="tail"):
        Signal(tail="clip")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="top_k"):
        Signal(top_k=0)
    with pytest.raises(InputError, match="pooling"):
        Signal(pooling="median")
    assert Signal(kind="length", top_k=None, pooling="none of ours").kind == "length"


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


def test_all_signals_of_a_step_are_those_of_each() -> None:
    rows = np.log(np.random.default_rng(0).dirichlet(np.ones(20), size=40))
    whole = Step(answer="1", tokens=40, top_logprobs=tuple(map(tuple, rows.tolist())))
    signals = [replace(SIGNAL, pooling=pooling) for pooling in POOLINGS]
    signals += [replace(SIGNAL, tail="bucket"), replace(SIGNAL, top_k=5), Signal(kind="other", top_k=None)]
    found = whole.values(signals)
    assert found == [whole.bits(signal) for signal in signals]
    assert len(set(found)) > len(POOLINGS)
    assert replace(whole, tokens=50).values(signals) == [None] * len(signals)


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


@pytest.mark.parametrize(("entries", "tokens", "share"), [(0, 0, 0.0), (0, 5, 0.0), (19, 20, 0.95), (21, 20, 1.0)])
def test_coverage(entries: int, tokens: int, share: float) -> None:
    assert coverage(entries, tokens) == share


@pytest.mark.parametrize(("entries", "stops"), [(95, True), (94, False), (0, False)])
def test_below_95_percent_coverage_nothing_ever_stops(entries: int, stops: bool) -> None:
    seen = replace(step(*[0.0] * entries, tokens=100), entropies=(0.0,) * entries)
    settings = GateSettings(threshold=100.0)
    assert (decisions([seen], settings)[0].action == "stop") is stops
    assert (seen.usable_bits(settings.signal) is not None) is stops
    assert math.isclose(MIN_COVERAGE, 0.95)
