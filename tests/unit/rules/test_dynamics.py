"""ES-CoT, CoDE-Stop and LEASH against their formulas, step by step."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from justenough.rules.dynamics import EsCot, Leash
from justenough.rules.rules import MissingField
from justenough.trace import Trace
from tests.builders import SIGNAL, step, trace
from tests.unit.rules.recorded import stop, streamed, streaming


def answers(text: str) -> Trace:
    """One step for each letter; `-` is a step without an answer."""
    return streaming(*[streamed(None if letter == "-" else letter) for letter in text])


def test_es_cot_stops_when_a_run_is_suddenly_longer() -> None:
    # The run of b is ten longer than that of a at its eleventh step. Every earlier step was probed: four tokens each.
    assert stop("es-cot", answers("a" + "b" * 20)) == (12, 120 + 4 + 44)
    assert stop("es-cot:3", answers("aa" + "b" * 20))[0] == 2 + 5
    # One run throughout is longer than no other.
    assert stop("es-cot:3", answers("a" * 30))[0] == 30
    # Steps without an answer end a run and are none themselves.
    assert stop("es-cot:2", answers("a-----b"))[0] == 7
    assert stop("es-cot:2", answers("-aaaaaaa"))[0] == 8
    assert stop("es-cot:2", answers("a-bbbbbb"))[0] == 5


def test_es_cot_compares_the_difference_with_the_earlier_ones() -> None:
    # Lengths 1, 3, 2, 6: after the differences 2 and -1 a 4 is no surprise at 5 %.
    made = answers("abbbcc" + "dddddd" + "e" * 30)
    # The run of d ends after six steps, so its 4 is an earlier difference of the run of e.
    differences = [2.0, -1.0, 4.0]
    assert stats.ttest_1samp(differences[:2], 4, alternative="less").pvalue > 0.05
    latest = next(
        jump for jump in range(3, 40) if stats.ttest_1samp(differences, jump, alternative="less").pvalue <= 0.05
    )
    assert latest > 3
    assert EsCot(jump=3).replay(made).step == 12 + 6 + latest
    # Equal differences have no spread: anything larger is significant.
    assert EsCot(jump=3).replay(answers("abbccc" + "d" * 9)).step == 6 + 3 + 3


def sure(*confidences: float) -> Trace:
    return streaming(*[streamed("1", (0.0, 0.0), sure=value) for value in confidences], streamed("1"))


def test_code_stop_asks_for_more_confidence_at_later_steps() -> None:
    assert stop("code-stop", sure(0.91)) == (1, 10 + 4 + 4)
    # .9, .925, .95, and then no more.
    assert stop("code-stop", sure(0.89, 0.92, 0.94, 0.949, 0.951))[0] == 5
    assert stop("code-stop", sure(0.89, 0.926, 0.1))[0] == 2


def test_code_stop_gives_up_when_the_confidence_does_not_grow() -> None:
    falling = sure(0.5, 0.5, 0.5, 0.5, 0.5)
    # v is 1 from the second step on: 2·.5 - .5 < .55. The thoughts take 10, 20, 30, … tokens.
    score, expected = 0.0, 0
    for last in range(2, 6):
        score = sum(1 + math.log(last / number) for number in range(2, last + 1))
        if score >= 2 and not expected:
            expected = last
    assert stop("code-stop", falling)[0] == expected == 3
    assert stop("code-stop:0.9:3.9", falling)[0] == 4
    assert stop("code-stop:0.9:99", falling)[0] == 6
    # 2·.7 - .8 is not below .55.
    assert stop("code-stop", sure(0.8, 0.7, 0.66, 0.65, 0.64))[0] == 6


def thought(margins: list[float]) -> Trace:
    """Tokens with these differences of the two largest log-probabilities, ten in a step."""
    made = []
    for begin in range(0, len(margins), 10):
        one = step(top_logprobs=[(-0.1, -0.1 - margin) for margin in margins[begin : begin + 10]], answer="1")
        made.append(replace(one, probe=streamed("1").probe))
    return trace(*made, shape="streaming", signal=replace(SIGNAL, top_k=None))


def by_hand(entropies: list[float], margins: list[float], fall: float) -> int | None:
    """Algorithm 1 of the publication, token by token; the token (from 1) at which it stops."""
    nats = [value * math.log(2) for value in entropies]
    flat: list[bool] = []
    for token in range(1, len(nats) + 1):
        if token > 8:
            slope = (nats[token - 1] - nats[token - 9]) / 8
            flat.append(slope >= -0.005 and margins[token - 1] - margins[token - 9] <= 0.05)
        votes = flat[-5:]
        dropped = float(np.median(nats[:8])) - nats[token - 1] >= fall
        if token >= 64 and dropped and votes and 2 * sum(votes) >= len(votes):
            return token
    return None


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fall", [0.0, 0.3])
def test_leash_stops_at_the_end_of_the_step_with_the_plateau(seed: int, fall: float) -> None:
    rng = np.random.default_rng(seed)
    margins = np.abs(rng.normal(0.2 + np.arange(150) / 60, 0.5)).tolist()
    made = thought(margins)
    bits = [value for one in made.steps for value in one.token_bits(made.signal) or ()]
    token = by_hand(bits, margins, fall)
    expected = 15 if token is None else math.ceil(token / 10)
    assert Leash(fall=fall).replay(made).step == expected
    # It takes no probe before it stops.
    assert Leash(fall=fall).replay(made).tokens == 10 * expected + 4


def test_leash_stops_at_its_limit_of_tokens() -> None:
    made = thought([1.0] * 100)
    assert Leash(fall=9.0, limit=25).replay(made)[:2] == (3, 30 + 4)
    assert Leash(fall=9.0).replay(made).early is False


def test_leash_needs_the_two_largest_of_each_token() -> None:
    bare = thought([1.0] * 20)
    bare = replace(bare, steps=tuple(replace(one, top_logprobs=None) for one in bare.steps))
    with pytest.raises(MissingField, match="top log-probabilities"):
        Leash().replay(bare)
    with pytest.raises(MissingField, match="streamed"):
        Leash().replay(replace(bare, shape="sequential"))
