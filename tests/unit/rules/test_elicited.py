"""The answer after a step, its tokens and what comes with it, in both shapes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from justenough.rules.elicited import answer_value, candidate_entropy, elicited
from justenough.trace import Json, Probe, Trace
from tests.builders import step, trace
from tests.unit.rules.recorded import streamed, streaming, whole

CUED = Probe(
    answer="42",
    correct=True,
    tokens=5,
    text="Answer: 42",
    entropies=(9.0, 9.0, 9.0, 0.1, 0.2),
    logprobs=(-9.0, -9.0, -9.0, -0.01, -0.02),
    token_texts=("Answer", ":", " ", "4", "2"),
)


def probed(probe: Probe) -> Trace:
    return streaming(replace(streamed("42"), probe=probe), streamed("42"))


def test_the_answer_stands_after_the_thought_and_its_cue() -> None:
    made = trace(whole("12", (0.25, 0.5), tail="."), step(0.1))
    assert elicited(made, 1, rule="r") == ("12", "Answer: 12.", (0.25,), (-0.25,), 2)
    bare = replace(made.steps[0], text="<think>so", token_texts=("<think>", "so"))
    assert elicited(replace(made, steps=(bare, made.steps[0])), 1, rule="r") is None
    assert elicited(replace(made, steps=(replace(made.steps[0], answer=None), step(0.1))), 1, rule="r") is None


def test_the_cue_of_a_probe_is_not_part_of_its_answer() -> None:
    assert elicited(probed(CUED), 1, rule="r") == ("42", "Answer: 42", (0.1, 0.2), (-0.01, -0.02), 3)
    # If the prompt had the cue, all that was elicited is the answer.
    plain = replace(CUED, text=" 42", token_texts=(" 4", "2"), entropies=(0.1, 0.2), logprobs=(-0.01, -0.02))
    assert elicited(probed(plain), 1, rule="r") == ("42", " 42", (0.1, 0.2), (-0.01, -0.02), 0)
    assert elicited(probed(replace(CUED, answer=None)), 1, rule="r") is None


def test_candidates_come_before_rows_of_log_probabilities() -> None:
    one = replace(CUED, extra={"candidates": {"A": -1.0, "B": -1.0}, "top_logprobs": [[0.0]]})
    assert candidate_entropy(one) == pytest.approx(1.0)
    row: list[Json] = [{"token": "A", "logprob": 0.0}, {"token": "B", "logprob": -1e4}]
    rows = replace(CUED, extra={"top_logprobs": [[-1.0, -1.0], row]})
    assert candidate_entropy(rows) == pytest.approx(1.0)
    assert candidate_entropy(rows, 1) == 0.0
    assert candidate_entropy(None) is None


def test_an_incomplete_distribution_of_candidates_is_none() -> None:
    empty: list[dict[str, Json]] = [
        {},
        {"top_logprobs": []},
        {"top_logprobs": [None]},
        {"top_logprobs": [[0.0]]},
        {"candidates": {}},
        {"candidates": {"A": 0.0}},
        {"candidates": {"A": -0.5, "B": None}},
        {"candidates": {"A": -0.5, "B": False}},
    ]
    for extra in empty:
        assert candidate_entropy(replace(CUED, extra=extra)) is None


def test_numbers_are_read_in_every_notation() -> None:
    same = ("1/2", "0.5", ".5", "\\frac{1}{2}", "$\\dfrac{1}{2}$", "50%")
    assert {answer_value(text) for text in same} == {Fraction(1, 2)}
    assert answer_value("1,234,567") == answer_value("1234567")
    assert answer_value(" (1, 2) ") == "(1, 2)"
    assert answer_value("9" * 100) == "9" * 100
