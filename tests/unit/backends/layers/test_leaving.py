"""The rules for early exits: CALM by three measures, DeeBERT by entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.backends.layers.leaving import (
    GRIDS,
    Calm,
    DeeBert,
    EarlyClassifier,
    Floats,
    Leaving,
    Saturation,
    parse_leave,
    rule_of,
)
from justenough.errors import InputError
from justenough.signal.entropy import token_entropy


@dataclass(frozen=True)
class At:
    """Tokens at an exit."""

    logprobs: Floats
    similarity: Floats
    trust: Floats


ROWS = np.log(np.array([[0.98, 0.01, 0.01], [0.5, 0.4, 0.1], [1 / 3, 1 / 3, 1 / 3]]))


@pytest.mark.parametrize(
    ("rule", "exits"),
    [
        (Calm(0.9), [True, False, False]),
        (Calm(0.05), [True, True, False]),
        (Calm(0.0), [True, True, True]),
        (Calm(2.0), [False, False, False]),
        (Saturation(0.9), [False, False, True]),
        (Saturation(0.5), [True, False, True]),
        (EarlyClassifier(0.5), [False, True, True]),
        (EarlyClassifier(1.1), [False, False, False]),
        (DeeBert(1.0), [True, False, False]),
        (DeeBert(1.5), [True, True, False]),
        (DeeBert(2.0), [True, True, True]),
        (DeeBert(0.0), [False, False, False]),
    ],
)
def test_tokens_exit_at_the_threshold(rule: Leaving, exits: list[bool]) -> None:
    at = At(ROWS, similarity=np.array([0.5, 0.1, 0.9]), trust=np.array([0.2, 0.5, 0.7]))
    assert rule.leaves(at).tolist() == exits


@pytest.mark.parametrize("threshold", [-0.1, math.nan, math.inf, -math.inf])
def test_a_threshold_is_a_finite_number_of_at_least_zero(threshold: float) -> None:
    with pytest.raises(InputError, match=f"margin is {threshold}"):
        Calm(threshold)
    with pytest.raises(InputError, match=f"threshold is {threshold} bits"):
        DeeBert(threshold)
    with pytest.raises(InputError, match=f"cosine is {threshold}"):
        Saturation(threshold)
    with pytest.raises(InputError, match=f"chance is {threshold}"):
        EarlyClassifier(threshold)


def test_the_name_has_the_unrounded_threshold() -> None:
    assert Calm(0.1 + 0.2).name == "calm@0.30000000000000004"
    assert DeeBert(0.5).name == "deebert@0.5"


def test_a_measure_is_parsed_with_or_without_its_threshold() -> None:
    assert parse_leave("softmax@0.9") == ("softmax", 0.9)
    assert parse_leave("entropy") == ("entropy", None)
    assert rule_of("saturation", 0.5) == Saturation(0.5)
    for wrong in ("margin", "softmax@much", "softmax@-1", ""):
        with pytest.raises(InputError):
            parse_leave(wrong)


@pytest.mark.parametrize("measure", GRIDS)
def test_thresholds_are_tested_from_the_most_cautious_on(measure: str) -> None:
    cautious = sorted(GRIDS[measure], reverse=measure != "entropy")
    assert list(GRIDS[measure]) == cautious


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=12), st.floats(0, 4), st.floats(0, 4))
def test_stricter_thresholds_exit_less_often(logits: list[float], one: float, other: float) -> None:
    values = np.array([logits])
    logprobs = values - np.logaddexp.reduce(values, axis=1, keepdims=True)
    at = At(logprobs, similarity=np.ones(1), trust=np.ones(1))
    low, high = sorted((one, other))
    assert bool(Calm(low).leaves(at)[0]) >= bool(Calm(high).leaves(at)[0])
    assert bool(DeeBert(high).leaves(at)[0]) >= bool(DeeBert(low).leaves(at)[0])
    assert bool(DeeBert(low).leaves(at)[0]) == (token_entropy(logprobs, tail="full")[0] < low)
