import math

import numpy as np
import pytest
from numpy.typing import NDArray

from justenough.errors import LogprobsError
from justenough.signal.entropy import TAILS, RunningEntropy, Tail, entropy_of, sequence_entropy, token_entropy

NEVER = -math.inf


@pytest.mark.parametrize(
    ("logprobs", "tail", "bits"),
    [
        ([math.log(0.5), math.log(0.25), math.log(0.25)], "renormalise", 1.5),
        ([math.log(0.25), math.log(0.25)], "renormalise", 1.0),
        ([math.log(0.25), math.log(0.25)], "bucket", 1.5),
        ([math.log(0.5), math.log(0.5)], "full", 1.0),
        ([math.log(0.3)], "renormalise", 0.0),
        ([math.log(0.5)], "bucket", 1.0),
        ([0.0], "bucket", 0.0),
        ([0.0, NEVER, NEVER], "renormalise", 0.0),
        ([math.log(0.5), NEVER, math.log(0.5)], "bucket", 1.0),
        ([-800.0, -800.0], "renormalise", None),
        ([-700.0, -700.0], "renormalise", 1.0),
    ],
)
def test_entropies_known_by_heart(logprobs: list[float], tail: Tail, bits: float | None) -> None:
    if bits is None:
        with pytest.raises(LogprobsError, match="no entry with any probability"):
            entropy_of(logprobs, tail=tail)
    else:
        assert entropy_of(logprobs, tail=tail) == pytest.approx(bits, abs=1e-12)


@pytest.mark.parametrize("tail", TAILS)
def test_a_uniform_token_reaches_the_bound(tail: Tail) -> None:
    assert entropy_of([math.log(1 / 32)] * 32, tail=tail) == pytest.approx(5.0, abs=1e-12)


def test_only_the_largest_top_k_entries_are_kept_in_any_order() -> None:
    kept = [math.log(0.4), math.log(0.3), math.log(0.2)]
    assert entropy_of([-5.0, kept[1], -6.0, kept[0], kept[2]], top_k=3) == pytest.approx(entropy_of(kept), abs=1e-15)
    with pytest.raises(LogprobsError, match="top_k is 0"):
        entropy_of(kept, top_k=0)


def test_padding_with_impossible_entries_changes_no_bit() -> None:
    row = [-0.3, -1.9, -3.1, -4.4, -5.0]
    assert entropy_of(row, top_k=20) == entropy_of([*row, NEVER, NEVER], top_k=20)


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ([[-0.1, math.nan]], "token 0, entry 1: nan is no log-probability"),
        ([[-0.1], [0.2]], "token 1, entry 0: 0.2 is no log-probability"),
        ([[math.inf, -1.0]], "is no log-probability"),
        ([[-0.1], [NEVER]], "token 1 has no entry"),
        ([], "shape"),
        ([[]], "shape"),
        ([-0.1, -0.2], "shape"),
        ([[-0.1, -2.0], [-0.1]], "no block"),
    ],
)
def test_what_is_no_block_of_logprobs_is_refused(block: list[list[float]], complaint: str) -> None:
    with pytest.raises(LogprobsError, match=complaint):
        token_entropy(block)


def test_a_nan_is_not_hidden_among_the_entries_that_are_left_out() -> None:
    with pytest.raises(LogprobsError, match="nan"):
        token_entropy([[-0.1, math.nan, -3.0]], top_k=2)


def test_values_above_zero_by_rounding_only_are_taken() -> None:
    assert entropy_of([1e-6]) == 0.0
    assert entropy_of([1e-6], tail="bucket") == 0.0


def test_full_needs_the_whole_vocabulary_and_says_so() -> None:
    with pytest.raises(LogprobsError, match="not all of it"):
        entropy_of([math.log(0.5), math.log(0.4)], tail="full")


def test_an_unknown_tail_is_refused() -> None:
    with pytest.raises(LogprobsError, match="unknown tail"):
        token_entropy([[-1.0]], tail="clip")  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [[], [math.nan], [0.1, -0.1], [math.inf], [1e308, 1e308]])
def test_a_sequence_needs_entropies(values: list[float]) -> None:
    with pytest.raises(LogprobsError):
        sequence_entropy(values)
    # Wherever it stands: min() and max() do not see a NaN that is not the first.
    with pytest.raises(LogprobsError):
        sequence_entropy([0.1, *values, 0.2]) if values else sequence_entropy(values)


def test_the_mean_does_not_drift_over_a_long_sequence() -> None:
    running = RunningEntropy()
    values: NDArray[np.float64] = np.tile([1e-16, 1.0, 3e-9], 20_000)
    for bits in values.tolist():
        running.add(bits)
    assert running.mean == math.fsum(values) / len(values)
    assert running.count == len(values)
    with pytest.raises(LogprobsError, match="no token"):
        _ = RunningEntropy().mean
